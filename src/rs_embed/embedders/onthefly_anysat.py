"""AnySat: dated series and fine images of one place, at the pixel sizes that the network assumes."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import cast, final

import numpy as np
import torch
from pydantic import JsonValue
from torch import Tensor
from torch.nn.functional import avg_pool2d

from rs_embed.core.chip import Chip
from rs_embed.core.hashing import sha256_of
from rs_embed.core.settings import LibrarySettings
from rs_embed.core.specs import OutputSpec, SensorSpec
from rs_embed.embedders.base import Embedder, ModelInput, ModelRequest, Network, Readout
from rs_embed.embedders.card import Modality
from rs_embed.embedders.cards.anysat import PUBLISHED, AnySatKnobs
from rs_embed.embedders.prepare.framing import Frame, InputGeometry, cut_windows, frame_chip, stitch
from rs_embed.embedders.prepare.normalize import Scaling, to_frames, unscaled, z_score
from rs_embed.embedders.statistics import statistics_of
from rs_embed.embedders.weights.layout import Layout
from rs_embed.embedders.weights.networks import build_network
from rs_embed.encoders.anysat.encoder import AnySatEncoder
from rs_embed.encoders.anysat.modalities import CELL_M
from rs_embed.encoders.layers import counted_layers
from rs_embed.encoders.tokens import TokenGrid, TokenLayout, Tokens
from rs_embed.errors import InputError, SpecError

WINDOW_PATCHES, WINDOW_M = 32, 1280
"""Largest side of a window in which patches attend to each other. The authors' README advises at most 1024 patches, and
tiles in pre-training are up to 1280 m wide."""
DATES, VALID = " dates", " valid"
"""Suffix of tensor names for dates; name of the tensor of valid shares."""


@final
class AnySatEmbedder(Embedder):
    """AnySat: encodes each patch once, then mixes patches in overlapping square windows."""

    @staticmethod
    def build(request: ModelRequest, settings: LibrarySettings) -> Network:
        """Load the encoder with every projector of the published file."""
        arch = request.card.arch

        def make() -> AnySatEncoder:
            return AnySatEncoder(dim=arch["dim"], depth=arch["depth"], heads=arch["heads"])

        return build_network(make, request, settings, Layout())

    @property
    def _knobs(self) -> AnySatKnobs:
        return cast("AnySatKnobs", self.request.knobs)

    @cached_property
    def _layers(self) -> tuple[int, ...]:
        """Layers of the part that mixes patches, whose last block is the cross block."""
        return counted_layers(self._knobs.layers, self.request.card.arch["depth"] + 1)

    @property
    def _window_patches(self) -> int:
        return min(WINDOW_PATCHES, WINDOW_M // self._knobs.patch_size_m)

    def geometry(self) -> InputGeometry:
        """Accept inputs of whole patches of 10 m pixels, in any shape; "crop" keeps one window."""
        patch_px = self._knobs.patch_size_m // CELL_M
        return InputGeometry(
            self._window_patches * patch_px, patch_px, square=False, patch_px=patch_px, native_only=True
        )

    @property
    def cell_px(self) -> int:
        """A patch, or a pixel of a dense grid."""
        return 1 if self.request.dense else self.geometry().patch_px

    def check(self, output: OutputSpec) -> None:
        """Check statistics, layers and pooling.

        Raises:
            SpecError: Max pooling is requested although the vector is the tile token, or a layer does not exist.
            KnobError: A modality has no statistics.
        """
        for modality, sensor in self.request.inputs:
            self._scaling(modality, sensor)
        own_vector = self.readout.own_vector  # reading it also checks the layers
        if output.pooling != "mean" and own_vector is not None:
            raise SpecError(
                f"Expected mean pooling, got {output.pooling!r}: the vector is the {own_vector}.",
                fix='set pooled="patch" to pool patches',
            )

    def prepare(self, chips: Mapping[str, Chip], frame: Frame) -> list[ModelInput]:
        """Standardise each modality, and add the day of the year of each frame (1 January = 0)."""
        tensors: dict[str, Tensor] = {}
        valid = []
        for modality, sensor in self.request.inputs:
            name, chip = modality.name, chips[modality.name]
            frames = to_frames(chip, modality, sensor, self._scaling(modality, sensor))
            (pixels,) = cut_windows(frames, frame, modality.grid_px)
            tensors[name] = pixels if modality.is_series else pixels[0]
            if modality.is_series:
                tensors[name + DATES] = _days_of_year(chip, name)
            valid.append(self._valid_share(chip, frame, modality.grid_px))
        tensors[VALID] = torch.stack(valid).amax(dim=0)
        return [ModelInput(tensors)]

    def _valid_share(self, chip: Chip, frame: Frame, grid_px: int) -> Tensor:
        """Return the share of each patch that is valid in any frame, `[row, col]`."""
        seen = torch.from_numpy(np.isfinite(chip.values).all(axis=1).any(axis=0)).float()
        height, width = (px * grid_px for px in frame.extent_px)
        row, col = (px * grid_px for px in frame.origin_px)
        part = seen.new_zeros(height, width)
        cut = seen[row : row + height, col : col + width]
        part[: cut.shape[0], : cut.shape[1]] = cut
        return avg_pool2d(part[None], self._knobs.patch_size_m // CELL_M * grid_px)[0]

    def encode(self, batch: ModelInput) -> Tokens:
        """Return the tile token, then a token per patch (or per part of a patch) of the whole chip."""
        encoder = cast("AnySatEncoder", self.network.module)
        names = [modality.name for modality, _ in self.request.inputs]
        patch_m = self._knobs.patch_size_m
        patches = encoder.patches(
            {name: batch.tensors[name] for name in names},
            dates={name: batch.tensors[name + DATES] for name in names if name + DATES in batch.tensors},
            patch_m=patch_m,
            dense=names[0] if self.request.dense else None,
        )
        rows, cols = batch.tensors[VALID].shape[1:]
        frame = self._squares((rows, cols), 1)
        side = frame.windows[0].height
        there = [(slice(None), slice(w.row, w.row + side), slice(w.col, w.col + side)) for w in frame.windows]
        mixed = [
            encoder.mix({name: values[at] for name, values in patches.values.items()}, patch_m, self._layers)
            for at in there
        ]
        shares = torch.stack([batch.tensors[VALID][at].sum(dim=(1, 2)) for at in there], dim=1)
        tokens = torch.stack([one.values.float() for one in mixed], dim=1)
        whole = _joined(tokens, mixed[0].layout, frame, shares)
        if not self.request.dense:
            return whole
        grid = whole.values[:, 1:].unflatten(1, (rows, cols))
        dense = patches.dense_map(grid, raster=self._knobs.dense_order == "raster")
        return Tokens(dense.flatten(2).mT, TokenLayout((TokenGrid("dense", dense.shape[2], dense.shape[3]),)))

    def _squares(self, shape: tuple[int, int], cell: int) -> Frame:
        """Return the square windows in which patches are mixed.

        Args:
            shape: Shape of the chip, in pixels or patches.
            cell: Side of a patch in the same unit.
        """
        side = min(self._window_patches, shape[0] // cell, shape[1] // cell) * cell
        return frame_chip(shape, "tile", InputGeometry(side, lattice_px=cell, square=True, patch_px=cell))

    def windows(self, frame: Frame) -> Frame:
        """Return the square windows in which patches are mixed, pixels."""
        return self._squares(frame.extent_px, self.geometry().patch_px)

    def _scaling(self, modality: Modality, sensor: SensorSpec) -> Scaling:
        if self._knobs.normalize == "none":
            scaling = unscaled(modality, sensor)  # without a published mean, nodata becomes 0
            return replace(scaling, fill=np.where(np.isnan(scaling.fill), np.float32(0), scaling.fill))
        stats = statistics_of(modality, self._knobs.normalize, PUBLISHED)
        return z_score(replace(modality, stats=stats), sensor, clamp_sigma=None)

    @property
    def normalization(self) -> str:
        """The knob `normalize`; for a file, its name and hash."""
        name = self._knobs.normalize
        return name if name in (*PUBLISHED, "none") else f"{Path(name).name}#sha256:{sha256_of(Path(name))}"

    @cached_property
    def readout(self) -> Readout:
        """The vector is the trained tile token, unless the knob `pooled` selects patches.

        In the dense grid, the channels of a part of a patch follow those of the patch.
        """
        dense, dim = self.request.dense, self.request.card.dim
        return Readout(
            dim * (len(self._layers) + dense),
            grid_kind="dense_tokens" if dense else "patch_tokens",
            own_vector="tile_token" if self._knobs.pooled == "tile" else None,
        )

    def knobs_in_force(self) -> dict[str, JsonValue]:
        """Return the knobs, with a file of statistics identified by its content instead of its path."""
        return {**super().knobs_in_force(), "normalize": self.normalization}

    def facts(self) -> dict[str, JsonValue]:
        """Return the patch size, the encoding of dates, and the layers."""
        return {
            "patch_size_m": self._knobs.patch_size_m,
            "date_code": "day of the year, 1 January = 0",
            "layers": list(self._layers),
        }


def _days_of_year(chip: Chip, name: str) -> Tensor:
    days = [time.timetuple().tm_yday - 1 for time in chip.times if time is not None]
    if len(days) < len(chip.times):
        raise InputError(f"Expected the date of each frame of {name}, got none.", fix="pass `dates` or `temporal`")
    return torch.tensor(days, dtype=torch.float32)


def _joined(tokens: Tensor, layout: TokenLayout, frame: Frame, shares: Tensor) -> Tokens:
    """Stitch windows into one lattice; the tile token is their mean, weighted by the valid ground in each.

    Args:
        tokens: `[batch, window, N, D]`.
        layout: The token layout of one window.
        frame: The windows.
        shares: Valid ground in each window, `[batch, window]`.
    """
    shares = shares + 1e-6  # so that a crop wholly on nodata still has a mean
    weights = shares / shares.sum(dim=1, keepdim=True)
    stitched = [stitch(one, layout, frame) for one in tokens]
    values = torch.cat([one.values for one in stitched])
    values[:, 0] = torch.einsum("bw,bwd->bd", weights, tokens[:, :, 0])
    return Tokens(values, stitched[0].layout)
