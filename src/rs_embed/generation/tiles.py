"""Generate a region in tiles: join tokens and pixels of overlapping windows into one raster.

Three measures keep seams small. Where windows overlap, each token comes from the window in which it is most central,
and all windows are decoded with that token. The noise from which a diffusion starts belongs to the region, not to the
window. Pixels are blended with weights that fall towards the edge of a window.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rs_embed.embedders.cards.terramind_tokens import LULC_CLASSES, PATCH_PX, TokenFacts
from rs_embed.embedders.imagining.tokenizers import Tokenizer
from rs_embed.embedders.prepare.framing import Frame, Window
from rs_embed.errors import ReadoutError

NOISE_PX = 32
"""Side of the squares in which noise is drawn, each with its own seed. Windows start on multiples of it, except for
classes, which need no noise."""
SEED_STRIDE = 1_000_003
"""Distance between the seeds of two tiles, as each step of the sampler uses the next integer."""


def tile_seed(seed: int, tile: int) -> int:
    """Return the sampler's seed for a tile; the first tile has the seed of the call."""
    return seed + SEED_STRIDE * tile


def stitch_ids(ids: Sequence[Tensor], frame: Frame) -> Tensor:
    """Join the token ids of all windows, `[row, col]`. Ids cannot be averaged, so each comes from the nearest window.

    Args:
        ids: Token ids `[row, col]` of each window of the frame.
        frame: The windows.
    """
    rows, cols = (side // PATCH_PX for side in frame.extent_px)
    whole, best = torch.zeros(rows, cols, dtype=torch.long), torch.zeros(rows, cols)
    for window, values in zip(frame.windows, ids, strict=True):
        there = _cells(window)
        nearness = _tent(values.shape[0])[:, None] * _tent(values.shape[1])
        nearer = nearness > best[there]
        whole[there][nearer] = values[nearer]
        best[there][nearer] = nearness[nearer]
    return whole


@dataclass(frozen=True)
class Diffusion:
    """Settings of the diffusion from tokens to pixels; not used for classes."""

    seed: int = 0
    """Seed of the noise from which it starts."""
    steps: int = 10


def decode_tiles(
    tokenizer: Tokenizer, ids: Tensor, frame: Frame, diffusion: Diffusion, advance: Callable[[], None] = lambda: None
) -> Tensor:
    """Decode the tokens of a frame, window by window.

    Overlapping pixels are averaged with weights; overlapping classes are decided by weighted votes.

    Args:
        tokenizer: The tokenizer of the modality.
        ids: Token ids `[row, col]` of the whole frame.
        frame: The windows.
        diffusion: Settings of the diffusion.
        advance: Called after each window.

    Returns:
        Standardised pixels `[band, height, width]`, or class codes `[1, height, width]`.
    """
    classes, facts = len(LULC_CLASSES), tokenizer.facts
    height, width = frame.extent_px
    layers = classes if facts.is_classes else len(facts.bands)
    total, weights = torch.zeros(layers, height, width), torch.zeros(height, width)
    for window in frame.windows:
        noise = None if facts.is_classes else region_noise(facts, window, diffusion.seed)
        pixels = tokenizer.decode(ids[_cells(window)], noise, diffusion.steps)
        if facts.is_classes:
            pixels = torch.nn.functional.one_hot(pixels[0].long(), classes).permute(2, 0, 1).float()
        weight = _tent(window.height)[:, None] * _tent(window.width)
        there = slice(window.row, window.row + window.height), slice(window.col, window.col + window.width)
        total[:, *there] += pixels * weight
        weights[there] += weight
        advance()
    if facts.is_classes:
        return total.argmax(dim=0, keepdim=True)
    return total.div_(weights)


def region_noise(facts: TokenFacts, window: Window, seed: int) -> Tensor:
    """Return standard normal noise `[band, height, width]` for a window; overlapping windows share it."""
    squares = [
        [
            _square(facts, seed, row, col)
            for col in range(window.col // NOISE_PX, (window.col + window.width) // NOISE_PX)
        ]
        for row in range(window.row // NOISE_PX, (window.row + window.height) // NOISE_PX)
    ]
    return torch.cat([torch.cat(line, dim=2) for line in squares], dim=1)


def _square(facts: TokenFacts, seed: int, row: int, col: int) -> Tensor:
    digest = hashlib.blake2b(f"{seed} {facts.name} {row} {col}".encode(), digest_size=7).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest))
    return torch.randn(len(facts.bands), NOISE_PX, NOISE_PX, generator=generator)


def to_pixels(facts: TokenFacts, found: Tensor) -> NDArray[np.float32] | NDArray[np.uint8]:
    """Convert standardised values to the modality's unit, float32; class codes become uint8.

    Raises:
        ReadoutError: The decoder returned values that are not finite.
    """
    if facts.is_classes:
        return found.to(torch.uint8).numpy()
    finite = found.isfinite()
    if not bool(finite.all()):
        raise ReadoutError(
            f"Expected finite pixels of {facts.name}, got {int((~finite).sum())} of {found.numel()} NaN or infinite.",
            fix="check the weights of the model and of the tokenizer",
        )
    mean, std = (torch.tensor(values)[:, None, None] for values in (facts.mean, facts.std))
    return (found * std + mean).numpy()


def at_limit(facts: TokenFacts, found: Tensor) -> float:
    """Return the share of values at the decoder's limit: it clamps at one standard deviation from the mean."""
    return 0.0 if facts.is_classes else float((found.abs() >= 1 - 1e-6).float().mean())


def _cells(window: Window) -> tuple[slice, slice]:
    row, col = window.row // PATCH_PX, window.col // PATCH_PX
    return slice(row, row + window.height // PATCH_PX), slice(col, col + window.width // PATCH_PX)


def _tent(length: int) -> Tensor:
    ramp = torch.arange(length, dtype=torch.float32)
    return torch.minimum(ramp + 0.5, length - ramp - 0.5)
