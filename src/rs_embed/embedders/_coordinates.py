"""Where a window lies, as the text and the token ids that TerraMind was trained with.

Source: IBM/terratorch 1.2.11, models/backbones/terramind/tokenizer/text/text_tokenizer.py (CoordsTokenizer). The
package `tokenizers` is imported inside functions: only `modality="...+Coordinates"` needs it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from odc.geo.geobox import GeoBox
from torch import Tensor

from rs_embed.core.hashing import sha256_of
from rs_embed.core.optional import require
from rs_embed.core.settings import LibrarySettings
from rs_embed.embedders.card import Weights
from rs_embed.embedders.prepare.framing import Window, centre_of
from rs_embed.embedders.weights.hub import obtain
from rs_embed.embedders.weights.load import PATIENT, WeightsFile
from rs_embed.errors import InputError, WeightsCorrupt, WeightsError, WeightsMismatch, WeightsNotFound

if TYPE_CHECKING:
    from tokenizers import Tokenizer

STEPS_PER_DEGREE = 4
"""Coordinates are rounded to a quarter of a degree."""
BESIDE = "coords_tokenizer.json"
"""Name under which the tokenizer is looked for in the folder of a checkpoint."""
NAME_IT = "name its file by RS_EMBED_TERRAMIND_COORDS_TOKENIZER or `coords_tokenizer=`"


@dataclass(frozen=True)
class Coordinates:
    """The tokenizer, ready to tell places."""

    tokenizer: "Tokenizer"
    id: str
    """Which file it was, with its sha256."""

    def ids(self, geobox: GeoBox, windows: Sequence[Window]) -> list[Tensor]:
        """Token ids `[L]` of each window: of the centre of its part that lies on the chip.

        Raises:
            InputError: Windows of one chip have texts of other lengths, so that their tokens do not stack.
        """
        texts = [text_of(*centre_of(geobox, window)) for window in windows]
        ids = [torch.tensor(self.tokenizer.encode(text).ids) for text in texts]
        if len({len(one) for one in ids}) > 1:
            raise InputError(
                "Expected equally many tokens for the coordinates of every window, got others.",
                texts="; ".join(dict.fromkeys(texts)),
                fix='use input_prep="crop", or a place that lies within one quarter of a degree',
            )
        return ids


def text_of(lon: float, lat: float) -> str:
    """The sentence for a place, degrees east and north; a little west of 0 it says "-0.00", as the authors' does."""
    lon, lat = np.rint(np.array([lon, lat]) * STEPS_PER_DEGREE) / STEPS_PER_DEGREE
    return f"lat={lat:.2f} lon={lon:.2f} [EOS]"


def check_tokenizer(given: Path | None) -> None:
    """What can be known without asking the hub.

    Raises:
        MissingDependency: The package `tokenizers` is not installed.
        WeightsNotFound: The file named is not there.
    """
    require("tokenizers", extra="coords")
    if given is not None and not given.expanduser().is_file():
        raise WeightsNotFound(
            f"Expected TerraMind's coordinates tokenizer at {str(given)!r}, got no such file.",
            fix=f"correct the path, or leave it out to use the hub's; {NAME_IT}",
        )


def load_coordinates(given: Path | None, ckpt: Path | None, weights: Weights) -> Coordinates:
    """The tokenizer named, else the one beside the checkpoint, else that of the hub (or of its cache).

    Raises:
        WeightsError: It is nowhere, cannot be read, or is one of another vocabulary.
    """
    from tokenizers import Tokenizer

    check_tokenizer(given)
    file = _find(given, ckpt, weights, LibrarySettings.read())
    try:
        tokenizer = Tokenizer.from_file(str(file.path))
    except Exception as error:  # the package raises nothing narrower
        raise WeightsCorrupt(
            f"{str(file.path)!r} is not a tokenizer file.", found=f"{type(error).__name__}: {error}", fix=NAME_IT
        ) from error
    tokens = tokenizer.encode(text_of(0, 0)).tokens
    if "[UNK]" in tokens or "[EOS]" not in tokens:
        raise WeightsMismatch(
            f"{str(file.path)!r} is a tokenizer that does not know coordinates.",
            text=text_of(0, 0),
            tokens=" ".join(tokens),
            fix=f"get {weights.file} of {weights.hub}, and {NAME_IT}",
        )
    return Coordinates(tokenizer, file.id)


def _find(given: Path | None, ckpt: Path | None, weights: Weights, settings: LibrarySettings) -> WeightsFile:
    beside = None if ckpt is None else ckpt.expanduser().parent / BESIDE
    path = given.expanduser() if given is not None else beside
    if path is not None and path.is_file():
        return WeightsFile(path, "ckpt", sha256_of(path), file=path.name)
    try:
        found = obtain(weights, offline=settings.offline, cache_dir=settings.cache_dir, endpoint=None, retry=PATIENT)
    except WeightsError as error:
        raise type(error)(
            "Expected TerraMind's coordinates tokenizer, got none.",
            beside_the_checkpoint=None if beside is None else f"no {beside}",
            hub=f"{weights.hub}: {error.headline}",
            found=error.facts.get("found", error.facts.get("hub")),
            fix=f"download {weights.file} of {weights.hub} where the hub is reached, then {NAME_IT}",
        ) from error
    return WeightsFile(found.path, "hub", found.sha256, weights.hub, found.commit, weights.file)
