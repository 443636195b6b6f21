"""Presto: a series of months for each pixel, in the network's channel groups, with missing values masked."""

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import cast, final

import numpy as np
import torch
from pydantic import JsonValue
from torch import Tensor

from rs_embed.core.chip import Chip
from rs_embed.core.geo import pixel_centres
from rs_embed.core.settings import LibrarySettings
from rs_embed.core.specs import OutputSpec
from rs_embed.embedders.base import Embedder, ModelInput, ModelRequest, Network, Readout
from rs_embed.embedders.card import Modality
from rs_embed.embedders.cards.presto import ALIKE, GROUPS, IMAGERY
from rs_embed.embedders.prepare.dates_and_places import months_of, on_the_sphere
from rs_embed.embedders.prepare.framing import Frame, InputGeometry, Window
from rs_embed.embedders.prepare.normalize import to_frames, unscaled, z_score
from rs_embed.embedders.weights.layout import Layout
from rs_embed.embedders.weights.networks import build_network
from rs_embed.encoders.presto import LAND_COVER, NO_CLASS, PixelSeries, PrestoEncoder
from rs_embed.encoders.tokens import TokenGrid, TokenLayout, Tokens
from rs_embed.errors import InputError, SpecError

SEEN = " seen"
"""Suffix of tensor names for masks."""
CROPPED_PX = 256
"""Side of the centre that `input_prep="crop"` keeps, pixels."""


@final
class PrestoEmbedder(Embedder):
    """Presto: every pixel is a token."""

    @staticmethod
    def build(request: ModelRequest, settings: LibrarySettings) -> Network:
        """Load the encoder; the decoder of the pre-training in the same file is not loaded."""
        return build_network(lambda: PrestoEncoder(**request.card.arch), request, settings, Layout())

    def geometry(self) -> InputGeometry:
        """Accept chips of any shape at native pixel size, because each pixel is encoded on its own."""
        return InputGeometry(CROPPED_PX, lattice_px=1, square=False, patch_px=1, native_only=True)

    def check(self, output: OutputSpec) -> None:
        """Check the modalities.

        Raises:
            SpecError: Two modalities fill the same channels, or there is no imagery.
        """
        names = [modality.name for modality, _ in self.request.inputs]
        for alike in ALIKE:
            if set(alike) <= set(names):
                raise SpecError(f"Expected one of {' and '.join(alike)}, which fill the same channels, got both.",
                                fix=f"modality={'+'.join(name for name in names if name != alike[1])!r}")  # fmt: skip
        if not set(names) & set(IMAGERY):
            raise SpecError(
                f"Expected imagery, got {', '.join(names)} alone.", fix=f"set modality={'s2+' + '+'.join(names)!r}"
            )

    def prepare(self, chips: Mapping[str, Chip], frame: Frame) -> list[ModelInput]:
        """Normalise each channel group; add masks, months, and the location of each pixel."""
        (window,) = frame.windows
        tensors: dict[str, Tensor] = {}
        for modality, sensor in self.request.inputs:
            if modality.name not in chips:
                continue
            chip = chips[modality.name]
            land_cover = modality.name == LAND_COVER
            scaling = unscaled(modality, sensor) if land_cover else z_score(modality, sensor, clamp_sigma=None)
            pixels = _cut(to_frames(chip, modality, sensor, scaling), window)
            seen = _cut(torch.from_numpy(np.isfinite(chip.values)), window).to(pixels.device)
            tensors |= _classes(pixels, seen) if land_cover else dict(_groups(modality, pixels, seen))
        tensors["months"] = months_of(self.request, chips)
        tensors["xyz"] = _place(next(iter(chips.values())), window)
        return [ModelInput(tensors)]

    def encode(self, batch: ModelInput) -> Tokens:
        """Return one token per pixel; the pixels of the batch are encoded as one list."""
        encoder = cast("PrestoEncoder", self.network.module)
        xyz, months = batch.tensors["xyz"], batch.tensors["months"]
        count, height, width, _ = xyz.shape
        names = [name for name in batch.tensors if name + SEEN in batch.tensors]
        values, seen = ({name: _by_pixel(batch.tensors[name + end]) for name in names} for end in ("", SEEN))
        months = months[:, None].expand(-1, height * width, -1).flatten(0, 1) if count > 1 else months
        vectors = encoder.forward(PixelSeries(values, seen, months, xyz.flatten(0, 2)))
        grid = TokenGrid("pixels", height, width)
        return Tokens(vectors.view(count, height * width, -1), TokenLayout((grid,)))

    @property
    def normalization(self) -> str:
        """Name of the authors' normalisation."""
        return "presto"

    @cached_property
    def readout(self) -> Readout:
        """Grid of pixels, valid where imagery is; a vector is their mean."""
        imagery = tuple(modality.name for modality, _ in self.request.inputs if modality.name in IMAGERY)
        return Readout(self.request.card.dim, {"pixels": imagery}, grid_kind="pixels", placed=False)

    def facts(self) -> dict[str, JsonValue]:
        """Return the encoding of dates."""
        return {"date_code": "calendar month, January = 0"}

    def facts_of(self, given: ModelInput) -> dict[str, JsonValue]:
        """Return the months of the series."""
        return {"months": given.tensors["months"].tolist()}


def _cut(values: Tensor, window: Window) -> Tensor:
    rows, cols = (
        slice(start, start + side) for start, side in ((window.row, window.height), (window.col, window.width))
    )
    return values[..., rows, cols]


def _groups(modality: Modality, pixels: Tensor, seen: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yield the groups of a modality, `[T, C, H, W]`, and their masks, `[T, H, W]`."""
    at = {band: index for index, band in enumerate(modality.stats)}
    at |= {"elevation": at["DEM"]} if "DEM" in at else {}
    sources = {band.name: band.of for band in modality.derived}
    for group, bands in GROUPS.items():
        if set(bands) <= set(at):
            yield group, pixels[:, [at[band] for band in bands]]
            of = [at[source] for band in bands for source in sources.get(band, (band,))]
            yield group + SEEN, seen[:, of].all(dim=1)


def _classes(pixels: Tensor, seen: Tensor) -> dict[str, Tensor]:
    """Return the most likely class, `[T, H, W]`, of probabilities `[T, C, H, W]`, and its mask."""
    there = seen.all(dim=1)
    return {LAND_COVER: pixels.argmax(dim=1).where(there, NO_CLASS), LAND_COVER + SEEN: there}


def _place(chip: Chip, window: Window) -> Tensor:
    """Return the location of each pixel on the unit sphere, `[H, W, 3]`.

    Raises:
        InputError: The chip has no georeference.
    """
    if chip.geobox is None:
        raise InputError(
            "Expected a place for Presto, which takes the location of each pixel, got pixels without one.",
            chip=chip.describe(),
            fix="pass their location as spatial=PointBuffer(...), on the grid of rs_embed.geobox_for",
        )
    xyz = on_the_sphere(*pixel_centres(chip.geobox))
    return _cut(torch.from_numpy(xyz), window).permute(1, 2, 0).contiguous()


def _by_pixel(values: Tensor) -> Tensor:
    """Rearrange `[batch, T, (C,) H, W]` to `[batch * H * W, T(, C)]`."""
    return values.movedim((-2, -1), (1, 2)).flatten(0, 2)
