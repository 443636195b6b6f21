"""Weights kept as the encoder holds them, so that the next start maps a file instead of unpickling and copying one.

Beside a hub file, or under `RS_EMBED_CACHE_DIR` for a file of one's own, lies
`<key>.<digest>.safetensors`: float32 tensors under the encoder's names. The key is a sha256 of the source's sha256, of
all names, shapes and types, and of `RULE`; the digest is one of the whole file, compared on every load: 128 bits of
XXH3, 30 ms for 370 MB that lie in memory, where sha256 takes 200 (one core of an EPYC, SHA extensions). That finds
damage, not malice: who may write there may replace the hub's file too.
"""

import hashlib
import json
import time
from dataclasses import dataclass
from logging import Logger
from pathlib import Path

import numpy as np
import xxhash
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from rs_embed.core.atomic import PART, part_of, publish
from rs_embed.core.resources import require_room
from rs_embed.embedders.weights.layout import Picked
from rs_embed.redact import logger

log: Logger = logger(__name__)
RULE = 1
"""Raised when a key filter comes to make other numbers of the same file."""
NOTE = "note"
"""In the file's own metadata: what is to be said of the source, which later starts do not read."""
ABANDONED_S = 86_400
"""Age at which a half-written file is one of a process that died."""


@dataclass(frozen=True)
class Converted:
    """Where the converted tensors of one source, for one module, are kept."""

    folder: Path
    key: str

    @classmethod
    def of(cls, module: nn.Module, source_sha256: str, folder: Path) -> "Converted":
        """What `module` takes from that source."""
        manifest = [[name, list(t.shape), str(t.dtype)] for name, t in sorted(module.state_dict().items())]
        told = json.dumps([RULE, source_sha256, manifest])
        return cls(folder, hashlib.sha256(told.encode()).hexdigest()[:32])

    def read(self) -> Picked | None:
        """The tensors, mapped and not copied: the file is only ever replaced whole. `None`: not there, or damaged."""
        for path in self._found():
            try:
                if digest_of(path) == path.name.split(".")[1]:
                    with safe_open(path, "pt") as opened:
                        told = opened.metadata()
                    if NOTE in told:
                        return Picked(load_file(path), told[NOTE] or None)
                    found = "an earlier version of rs_embed wrote it, without what there is to say of the source"
                else:
                    found = "another digest than its name says"
            except (OSError, ValueError, SafetensorError) as error:
                found = f"{type(error).__name__}: {error}"
            log.warning("%s cannot be used (%s); converting the weights again", path, found)
            _remove(path)
        return None

    def write(self, picked: Picked) -> None:
        """Keep these tensors. A folder that cannot be written, or is full, is none: the load has succeeded already."""
        part = part_of(self.folder / f"{self.key}.safetensors")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._sweep()
            require_room(self.folder, sum(tensor.nbytes for tensor in picked.tensors.values()))
            whole = {name: tensor.contiguous() for name, tensor in picked.tensors.items()}
            save_file(whole, part, {NOTE: picked.note or ""})  # of two entries the order would be left to chance
            publish(part, self.folder / f"{self.key}.{digest_of(part)}.safetensors")
        except (OSError, SafetensorError) as error:
            log.info("converted weights are not kept in %s: %s", self.folder, error)
            _remove(part)

    def _found(self) -> list[Path]:
        return sorted(self.folder.glob(f"{self.key}.*.safetensors"))

    def _sweep(self) -> None:
        """Remove what processes that died have left half written."""
        for part in self.folder.glob(f"{PART}*"):
            if time.time() - part.stat().st_mtime > ABANDONED_S:
                _remove(part)


def digest_of(path: Path) -> str:
    """A hash of a whole file, at the speed of memory."""
    return xxhash.xxh3_128_hexdigest(np.memmap(path, np.uint8, "r").data)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log.debug("cannot remove %s: %s", path, error)
