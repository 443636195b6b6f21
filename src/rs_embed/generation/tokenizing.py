"""`tokenize` and `detokenize`: convert 16 x 16 px patches of a modality to token ids and back."""

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
from rs_embed.embedders.cards.terramind_tokens import PATCH_PX, TOKENS, TokenFacts, require_classes
from rs_embed.errors import BandMismatch, InputError, UnitMismatch
from rs_embed.generation.raster import GeneratedRaster, RoundTripError
from rs_embed.providers.arrays import SupportsArray
from rs_embed.providers.common.plausible import refuse_implausible

if TYPE_CHECKING:
    from torch import Tensor

    from rs_embed.embedders.imagining.tokenizers import Tokenizer
    from rs_embed.embedders.prepare.framing import Frame

TILE_PX = 224
"""Side of the tiles of larger images, pixels; the tokenizers were trained with 224 to 256 px."""


@dataclass(frozen=True, eq=False)
class Tokenized:
    """An image of one modality as token ids."""

    modality: TokenModality
    ids: NDArray[np.int32]
    """Token ids `[row, col]`, one per 16 x 16 px, from the north-west corner."""
    shape_px: tuple[int, int]
    """Height and width of the image, pixels; the last tokens may extend beyond it."""
    geobox: GeoBox | None
    """Grid of the pixels; `None` for an array without a place."""
    weights: str
    """Identity of the tokenizer's weights."""
    weights_note: str | None
    """A warning to keep with the tokens, such as random weights."""
    pixels: NDArray[np.float32] | None = None
    """The original pixels `[C, H, W]` with NaN for nodata, from which `detokenize` computes the error."""

    @property
    def vocabulary(self) -> int:
        """Number of token ids of the modality."""
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
    """Convert an image to tokens of TerraMind 1.0.

    Args:
        modality: S2L2A (12 bands, 0-based DN), S1GRD or S1RTC (VV, VH, dB), DEM (metres), LULC (class codes 0 to 9)
            or NDVI (-1 to 1).
        pixels: A chip of one frame, or an array `[C, H, W]` (`[H, W]` for one band) in that unit. NaN is nodata, which
            is filled with the mean (land cover: 0).
        ckpt: File of the tokenizer instead of the hub's.
        pretrained: Whether to load trained weights; `False` uses seeded random weights, which the result records.
        device: "auto", "cpu", "cuda" or "cuda:0".

    Returns:
        The token ids, with the original pixels and their georeference.

    Raises:
        MissingDependency: The extra `terratorch` is not installed.
        InputError: The tokenizer does not take these bands, units or values.
        WeightsError: The tokenizer's weights are missing, unreachable or corrupt.
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
    """Convert tokens of TerraMind 1.0 to an image.

    Args:
        tokens: The result of `tokenize`, or a `Tokenized` with your own ids.
        seed: Seed of the noise from which the diffusion starts; not used for land cover.
        steps: Number of diffusion steps, 1 to 1,000.
        ckpt: File of the tokenizer instead of the hub's.
        pretrained: Whether to load trained weights; `False` uses seeded random weights, which the result records.
        device: "auto", "cpu", "cuda" or "cuda:0".

    Returns:
        The pixels in the unit of the modality; with their error if the original pixels are known.

    Raises:
        MissingDependency: The extra `terratorch` is not installed.
        InputError: Ids are out of range, or their number does not fit the shape.
        WeightsError: The tokenizer's weights are missing, unreachable or corrupt.
    """
    from rs_embed.generation.tiles import Diffusion, decode_tiles, to_pixels  # loads torch

    seed, steps = require_whole("seed", seed, 0, 2**31), require_whole("steps", steps, 1, 1000)
    if not isinstance(tokens, Tokenized):
        raise InputError(f"Expected a Tokenized, got {tokens!r:.80}.", fix="pass the result of `tokenize`")
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
    """Compute the error of each band, over the pixels that have a value."""
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
    from rs_embed.embedders.imagining.tokenizers import tokenizer_for
    from rs_embed.embedders.runtime.device import pick_device

    path = None if ckpt is None else Path(ckpt).expanduser()
    return tokenizer_for(modality, path, pretrained=pretrained, device=pick_device(device))


def _values(facts: TokenFacts, pixels: Chip | SupportsArray) -> tuple[NDArray[np.float32], GeoBox | None]:
    """Return the pixels `[C, H, W]` in the modality's unit, and their grid."""
    geobox, names = None, tuple(band.name for band in facts.bands)
    if isinstance(pixels, Chip):
        chip = pixels.select(names) if set(names) <= set(pixels.band_names) else pixels
        if chip.values.shape[0] != 1 or tuple((b.name, b.unit) for b in chip.bands) != tuple(
            (b.name, b.unit) for b in facts.bands
        ):
            raise UnitMismatch(
                f"Expected one frame of {', '.join(names)} in {facts.bands[0].unit}, got another chip.",
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
            fix="pass all bands of the modality, in this order",
        )
    if not np.isfinite(values).any():
        raise InputError(f"Expected values for {facts.name}, got only nodata.", fix="pass an image with valid pixels")
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
            fix="for a file, pass the chip of inspect_chip(..., backend=<path>)",
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
            fix="pass one integer per 16 x 16 px of shape_px",
        )


def _padded_ids(ids: NDArray[np.int32], frame: "Frame") -> "Tensor":
    """Extend the ids to the whole frame by repeating the last row and column."""
    import torch

    rows, cols = (side // PATCH_PX for side in frame.extent_px)
    return torch.from_numpy(np.pad(ids, ((0, rows - ids.shape[0]), (0, cols - ids.shape[1])), mode="edge")).long()
