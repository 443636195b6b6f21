"""A cache of converted weights, so that the next start maps a file instead of unpickling and copying one.

The cache file `<key>.<digest>.safetensors` holds float32 tensors under the encoder's names. It lies next to a hub file,
or under `RS_EMBED_CACHE_DIR` for a file of the user's own. The key is a sha256 of the source's sha256, of all names,
shapes and types, and of `RULE`. The digest covers the whole file and is verified on every load. It is XXH3 of 128 bits,
which takes 30 ms for 370 MB in memory, where sha256 takes 200 ms (one core of an EPYC, SHA extensions). It detects
damage, not malice: anyone who can write there can replace the hub's file too.
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
"""Version of the conversion; increase it when a key filter reads different values from the same file."""
NOTE = "note"
"""Key in the file's metadata for the note on the source, since later starts do not read the source."""
ABANDONED_S = 86_400
"""Age above which a partial file is taken to belong to a process that died."""


@dataclass(frozen=True)
class Converted:
    """The cache entry of one source for one module."""

    folder: Path
    key: str

    @classmethod
    def of(cls, module: nn.Module, source_sha256: str, folder: Path) -> "Converted":
        """Return the cache entry of a module for a source."""
        manifest = [[name, list(t.shape), str(t.dtype)] for name, t in sorted(module.state_dict().items())]
        facts = json.dumps([RULE, source_sha256, manifest])
        return cls(folder, hashlib.sha256(facts.encode()).hexdigest()[:32])

    def read(self) -> Picked | None:
        """Return the tensors, or `None` if the file is missing or damaged.

        They are memory-mapped, which is safe because the file is only ever replaced as a whole.
        """
        for path in self._found():
            try:
                if digest_of(path) == path.name.split(".")[1]:
                    with safe_open(path, "pt") as opened:
                        metadata = opened.metadata()
                    if NOTE in metadata:
                        return Picked(load_file(path), metadata[NOTE] or None)
                    found = "an earlier version of rs_embed wrote it, without the note on the source"
                else:
                    found = "its digest differs from the one in its name"
            except (OSError, ValueError, SafetensorError) as error:
                found = f"{type(error).__name__}: {error}"
            log.warning("Cannot use %s (%s); converting the weights again", path, found)
            _remove(path)
        return None

    def write(self, picked: Picked) -> None:
        """Write the tensors to the cache. Errors are only logged, because the weights are already loaded."""
        part = part_of(self.folder / f"{self.key}.safetensors")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._sweep()
            require_room(self.folder, sum(tensor.nbytes for tensor in picked.tensors.values()))
            whole = {name: tensor.contiguous() for name, tensor in picked.tensors.items()}
            save_file(whole, part, {NOTE: picked.note or ""})  # one entry only: the order of two would be random
            publish(part, self.folder / f"{self.key}.{digest_of(part)}.safetensors")
        except (OSError, SafetensorError) as error:
            log.info("Cannot cache converted weights in %s: %s", self.folder, error)
            _remove(part)

    def _found(self) -> list[Path]:
        return sorted(self.folder.glob(f"{self.key}.*.safetensors"))

    def _sweep(self) -> None:
        """Remove partial files of processes that died."""
        for part in self.folder.glob(f"{PART}*"):
            if time.time() - part.stat().st_mtime > ABANDONED_S:
                _remove(part)


def digest_of(path: Path) -> str:
    """Return the XXH3 hash of a whole file."""
    return xxhash.xxh3_128_hexdigest(np.memmap(path, np.uint8, "r").data)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log.debug("Cannot remove %s: %s", path, error)
