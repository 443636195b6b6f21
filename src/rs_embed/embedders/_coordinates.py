"""Encode the location of a window as the text and token ids that TerraMind was trained with.

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
"""Name of the tokenizer file in the folder of a checkpoint."""
NAME_IT = "set RS_EMBED_TERRAMIND_COORDS_TOKENIZER or `coords_tokenizer=` to its path"


@dataclass(frozen=True)
class Coordinates:
    """The tokenizer of coordinates, ready to use."""

    tokenizer: "Tokenizer"
    id: str
    """Identity of the file, with its sha256."""

    def ids(self, geobox: GeoBox, windows: Sequence[Window]) -> list[Tensor]:
        """Return the token ids `[L]` of each window, for the centre of its part that lies on the chip.

        Raises:
            InputError: The texts of the windows differ in length, so that their tokens cannot be stacked.
        """
        texts = [text_of(*centre_of(geobox, window)) for window in windows]
        ids = [torch.tensor(self.tokenizer.encode(text).ids) for text in texts]
        if len({len(one) for one in ids}) > 1:
            raise InputError(
                "Expected the same number of coordinate tokens for every window, got different numbers.",
                texts="; ".join(dict.fromkeys(texts)),
                fix='use input_prep="crop", or a place that lies within one quarter of a degree',
            )
        return ids


def text_of(lon: float, lat: float) -> str:
    """Return the text for a location in degrees. Slightly west of 0 it contains "-0.00", as the authors' text does."""
    lon, lat = np.rint(np.array([lon, lat]) * STEPS_PER_DEGREE) / STEPS_PER_DEGREE
    return f"lat={lat:.2f} lon={lon:.2f} [EOS]"


def check_tokenizer(given: Path | None) -> None:
    """Check the tokenizer as far as possible without contacting the hub.

    Raises:
        MissingDependency: The package `tokenizers` is not installed.
        WeightsNotFound: The given file does not exist.
    """
    require("tokenizers", extra="coords")
    if given is not None and not given.expanduser().is_file():
        raise WeightsNotFound(
            f"Expected TerraMind's coordinates tokenizer at {str(given)!r}, got no such file.",
            fix=f"correct the path, or leave it out to use the hub's; {NAME_IT}",
        )


def load_coordinates(given: Path | None, ckpt: Path | None, weights: Weights) -> Coordinates:
    """Load the given tokenizer, else the one next to the checkpoint, else the one on the hub or in its cache.

    Raises:
        WeightsError: No tokenizer is found, or it cannot be read or has another vocabulary.
    """
    from tokenizers import Tokenizer

    check_tokenizer(given)
    file = _find(given, ckpt, weights, LibrarySettings.read())
    try:
        tokenizer = Tokenizer.from_file(str(file.path))
    except Exception as error:  # the package raises no narrower class
        raise WeightsCorrupt(
            f"{str(file.path)!r} is not a tokenizer file.", found=f"{type(error).__name__}: {error}", fix=NAME_IT
        ) from error
    tokens = tokenizer.encode(text_of(0, 0)).tokens
    if "[UNK]" in tokens or "[EOS]" not in tokens:
        raise WeightsMismatch(
            f"Expected a tokenizer that knows coordinates, got {str(file.path)!r}, which does not.",
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
            fix=f"download {weights.file} of {weights.hub} on a machine that reaches the hub, then {NAME_IT}",
        ) from error
    return WeightsFile(found.path, "hub", found.sha256, weights.hub, found.commit, weights.file)
