"""`tokenize` and `detokenize`: pixels of a modality as one of some thousand words per 16 x 16 px, and back."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from rs_embed.core.checks import require_choice, require_whole
from rs_embed.core.chip import Chip
from rs_embed.core.optional import require
from rs_embed.embedders.cards.terramind import TokenModality
from rs_embed.embedders.cards.terramind_tokens import PATCH_PX, TOKENS, TokenFacts
from rs_embed.errors import BandMismatch, InputError, UnitMismatch
from rs_embed.generation.raster import GeneratedRaster, RoundTripError, require_classes
from rs_embed.providers.arrays import SupportsArray
from rs_embed.providers.common.plausible import refuse_implausible

if TYPE_CHECKING:
    from torch import Tensor

    from rs_embed.embedders.imagining.tokenizers import Tokenizer
    from rs_embed.embedders.prepare.framing import Frame

TILE_PX = 224
"""Of larger images; the tokenizers were trained with 224 to 256 px."""


@dataclass(frozen=True, eq=False)
class Tokenized:
    """An image as token ids."""

    modality: TokenModality
    ids: NDArray[np.int32]
    """`[row, col]`, one per 16 x 16 px, row by row from the north-west."""
    shape_px: tuple[int, int]
    """Of the image; the last tokens may reach beyond it."""
    geobox: GeoBox | None
    """Of the pixels; `None` for an array without a place."""
    weights: str
    """Identity of the tokenizer's weights."""
    weights_note: str | None
    """A warning that must travel with the tokens."""
    pixels: NDArray[np.float32] | None = None
    """What went in, `[C, H, W]`, NaN is nodata: kept so that `detokenize` can tell the error."""

    @property
    def vocabulary(self) -> int:
        """How many ids there are."""
        return TOKENS[self.modality].vocabulary

    def __repr__(self) -> str:
        note = f", {self.weights_note}" if self.weights_note else ""
        return f"Tokenized({self.modality}, {self.ids.shape} of {self.vocabulary} words{note})"


def tokenize(
    modality: TokenModality,
    pixels: Chip | SupportsArray,
    *,
    ckpt: str | Path | None = None,
    pretrained: bool = True,
    device: str = "auto",
) -> Tokenized:
    """Pixels as tokens of TerraMind 1.0.

    Args:
        modality: S2L2A (12 bands, 0-based DN), S1GRD or S1RTC (VV, VH, dB), DEM (metres), LULC (class codes 0 to 9)
            or NDVI (-1 to 1).
        pixels: A chip of one frame, or an array `[C, H, W]` (`[H, W]` of one band) in that unit; NaN is nodata, which
            is filled with the mean (land cover: 0).
        ckpt: File of the tokenizer instead of the hub's.
        pretrained: `False` takes seeded random weights, and the result says so.
        device: "auto", "cpu", "cuda" or "cuda:0".

    Raises:
        MissingDependency: The extra `terratorch` is not installed.
        InputError: Other bands, units or values than the tokenizer takes.
        WeightsError: The tokenizer's weights could not be had.
    """
    require_choice("modality", modality, get_args(TokenModality))
    require("terratorch", extra="terratorch")
    facts = TOKENS[modality]
    values, geobox = _values(facts, pixels)
    tokenizer = _tokenizer(modality, ckpt, pretrained=pretrained, device=device)
    ids = _encode(tokenizer, values)
    shape_px = (values.shape[1], values.shape[2])
    network = tokenizer.network
    return Tokenized(modality, ids, shape_px, geobox, network.weights_id, network.note, values)


def detokenize(
    tokens: Tokenized,
    *,
    seed: int = 0,
    steps: int = 10,
    ckpt: str | Path | None = None,
    pretrained: bool = True,
    device: str = "auto",
) -> GeneratedRaster:
    """Pixels of tokens, in the unit of the modality; with the error where the pixels of before are known.

    Args:
        tokens: What `tokenize` gave; for ids of your own, a `Tokenized` around them.
        seed: Of the noise that the diffusion begins with; land cover needs none.
        steps: Of the diffusion, 1 to 1,000.

    The other arguments are those of `tokenize`.

    Raises:
        MissingDependency: The extra `terratorch` is not installed.
        InputError: Ids that do not exist, or not as many as the shape wants.
        WeightsError: The tokenizer's weights could not be had.
    """
    from rs_embed.generation.tiles import Diffusion, decode_tiles, to_pixels  # loads torch

    seed, steps = require_whole("seed", seed, 0, 2**31), require_whole("steps", steps, 1, 1000)
    if not isinstance(tokens, Tokenized):
        raise InputError(f"Expected what `tokenize` gives, got {tokens!r:.80}.", fix="Tokenized(modality, ids, ...)")
    require_choice("modality", tokens.modality, get_args(TokenModality))
    require("terratorch", extra="terratorch")
    facts = TOKENS[tokens.modality]
    _check_ids(tokens, facts)
    tokenizer = _tokenizer(tokens.modality, ckpt, pretrained=pretrained, device=device)
    frame = _frame(facts, tokens.shape_px)
    found = decode_tiles(tokenizer, _padded_ids(tokens.ids, frame), frame, Diffusion(seed, steps))
    height, width = tokens.shape_px
    pixels = to_pixels(facts, found[:, :height, :width])
    network = tokenizer.network
    meta = {"tokenizer": network.weights_id, "modality": tokens.modality, "seed": seed, "steps": steps}
    error = None if tokens.pixels is None else round_trip_error(facts, tokens.pixels, pixels)
    text = json.dumps({**meta, "tokens_by": tokens.weights, "note": network.note})
    return GeneratedRaster(tokens.modality, pixels, facts.bands, tokens.geobox, text, network.note, error)


def round_trip_error(
    facts: TokenFacts, before: NDArray[np.float32], after: NDArray[np.float32] | NDArray[np.uint8]
) -> RoundTripError:
    """Per band, over the pixels that had a value."""
    names, unit = tuple(band.name for band in facts.bands), facts.bands[0].unit
    valid = np.isfinite(before)
    difference = np.where(valid, after.astype(np.float64) - before, np.nan)
    if facts.is_classes:
        changed = float((difference[valid] != 0).mean())
        return RoundTripError(names, unit, (changed,), (0.0,), float(valid.mean()))
    rmse = tuple(float(np.sqrt(np.nanmean(band**2))) for band in difference)
    bias = tuple(float(np.nanmean(band)) for band in difference)
    return RoundTripError(names, unit, rmse, bias, float(valid.all(axis=0).mean()))


def _tokenizer(modality: TokenModality, ckpt: str | Path | None, *, pretrained: bool, device: str) -> "Tokenizer":
    from rs_embed.embedders.runtime.device import pick_device
    from rs_embed.generation.networks import tokenizer_for

    path = None if ckpt is None else Path(ckpt).expanduser()
    return tokenizer_for(modality, path, pretrained=pretrained, device=pick_device(device))


def _values(facts: TokenFacts, pixels: Chip | SupportsArray) -> tuple[NDArray[np.float32], GeoBox | None]:
    """`[C, H, W]` in the modality's unit, and where they lie."""
    geobox, names = None, tuple(band.name for band in facts.bands)
    if isinstance(pixels, Chip):
        chip = pixels.select(names) if set(names) <= set(pixels.band_names) else pixels
        if chip.values.shape[0] != 1 or tuple((b.name, b.unit) for b in chip.bands) != tuple(
            (b.name, b.unit) for b in facts.bands
        ):
            raise UnitMismatch(
                f"Expected one frame of {', '.join(names)} in {facts.bands[0].unit}.",
                chip=chip.describe(),
                fix="fetch the chip with the sensor of the model's card",
            )
        values, geobox = chip.values[0], chip.geobox
    else:
        values = _array(facts, pixels)
        values = values[None] if values.ndim == 2 and len(names) == 1 else values
    if values.ndim != 3 or values.shape[0] != len(names):
        raise BandMismatch(
            f"Expected [{len(names)}, H, W] for {facts.name}, got an array {values.shape}.",
            bands=", ".join(names),
            fix="give all bands of the modality, in this order",
        )
    if not np.isfinite(values).any():
        raise InputError(
            f"Expected values for {facts.name}, got nothing but nodata.", fix="give pixels that hold something"
        )
    refuse_implausible(values, facts.bands[0].unit, f"array for {facts.name}")
    if facts.is_classes:
        require_classes(values)
    return values, geobox


def _array(facts: TokenFacts, pixels: SupportsArray) -> NDArray[np.float32]:
    try:
        return np.asarray(pixels, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"Expected an array or a chip for {facts.name}, got {pixels!r:.80}.",
            fix="of a file, inspect_chip(..., backend=<path>) gives the chip",
        ) from error


def _frame(facts: TokenFacts, shape_px: tuple[int, int]) -> "Frame":
    from rs_embed.embedders.prepare.framing import InputGeometry, frame_chip

    return frame_chip(shape_px, "tile", InputGeometry(TILE_PX, facts.lattice_px, square=False, patch_px=PATCH_PX))


def _encode(tokenizer: "Tokenizer", values: NDArray[np.float32]) -> NDArray[np.int32]:
    import torch

    from rs_embed.embedders.prepare.framing import cut_windows
    from rs_embed.generation.tiles import stitch_ids

    facts = tokenizer.facts
    mean, std = (torch.tensor(numbers)[:, None, None] for numbers in (facts.mean, facts.std))
    image = ((torch.from_numpy(values) - mean) / std).nan_to_num(0.0)
    frame = _frame(facts, (values.shape[1], values.shape[2]))
    windows = cut_windows(image, frame)
    if facts.is_classes:
        windows = [window.round() for window in windows]
    whole = stitch_ids([tokenizer.encode(window) for window in windows], frame)
    rows, cols = (-(-side // PATCH_PX) for side in values.shape[1:])
    return whole[:rows, :cols].numpy().astype(np.int32)


def _check_ids(tokens: Tokenized, facts: TokenFacts) -> None:
    wanted, ids = tuple(-(-side // PATCH_PX) for side in tokens.shape_px), tokens.ids
    whole = ids.size > 0 and np.issubdtype(ids.dtype, np.integer)
    if not whole or ids.shape != wanted or ids.min() < 0 or ids.max() >= facts.vocabulary:
        reach = f", {ids.min()} to {ids.max()}" if ids.size else ""
        raise InputError(
            f"Expected {' x '.join(map(str, wanted))} ids of {facts.name} from 0 to {facts.vocabulary - 1}.",
            found=f"{ids.dtype} {ids.shape}{reach}",
            fix="one whole number per 16 x 16 px of shape_px",
        )


def _padded_ids(ids: NDArray[np.int32], frame: "Frame") -> "Tensor":
    """Over the whole frame; where it reaches beyond the image, the last row and column go on."""
    import torch

    rows, cols = (side // PATCH_PX for side in frame.extent_px)
    return torch.from_numpy(np.pad(ids, ((0, rows - ids.shape[0]), (0, cols - ids.shape[1])), mode="edge")).long()
