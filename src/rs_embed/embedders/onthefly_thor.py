"""THOR 1.0: prepares chips as the model page and the authors' code describe."""

import math
from collections.abc import Mapping
from functools import cached_property
from typing import cast, final

import torch
from pydantic import JsonValue

from rs_embed.core.chip import Chip
from rs_embed.core.settings import LibrarySettings
from rs_embed.core.specs import SensorSpec
from rs_embed.embedders.base import Embedder, ModelInput, ModelRequest, Network, Readout
from rs_embed.embedders.card import Modality
from rs_embed.embedders.cards.thor import ThorKnobs
from rs_embed.embedders.prepare.framing import Frame, InputGeometry, cut_windows
from rs_embed.embedders.prepare.normalize import Scaling, to_image, unit_scale, unscaled, z_score
from rs_embed.embedders.weights.layout import Layout
from rs_embed.embedders.weights.networks import build_network
from rs_embed.encoders.layers import counted_layers
from rs_embed.encoders.thor.bands import GROUP_OF_BAND, GROUPS
from rs_embed.encoders.thor.encoder import ThorEncoder
from rs_embed.encoders.thor.patchify import TRAINED_PATCH_SIZES_PX, plan_geometry
from rs_embed.encoders.tokens import Tokens
from rs_embed.errors import SpecError

CLAMP_SIGMA = 5.0
"""Pre-training clamped standardised pixels to this range. Source: FM4CS/THOR, thor/data/thor_dataset_base.py."""
LAYOUT = Layout(foreign=("prod_embed", "cls_token"))
"""The authors' class has optional product embeddings and a class token, which the published sizes do not use. Their
training code keeps its decoder and heads in the same module. Source: FM4CS/THOR, thor_vit.py and thor_mae.py."""


@final
class ThorEmbedder(Embedder):
    """THOR: one token sequence over band groups of several pixel sizes."""

    @staticmethod
    def build(request: ModelRequest, settings: LibrarySettings) -> Network:
        """Load the encoder with the card's checkpoint, or with random weights on request."""
        return build_network(lambda: ThorEncoder(**request.card.arch), request, settings, LAYOUT)

    @property
    def _knobs(self) -> ThorKnobs:
        return cast("ThorKnobs", self.request.knobs)

    def geometry(self) -> InputGeometry:
        """Accept square inputs, whose windows start on the coarsest patch of all band groups.

        Raises:
            SpecError: The sizes do not fit together, "unit_scale" is used without reflectance, or a layer does not
                exist.
        """
        self._check_normalization()
        self._layers  # noqa: B018
        image_px, patch_px, scale_m = self._sizes_px["img"], self._sizes_px["patch_size"], self.request.scale_m
        lattice_px = math.lcm(*(patch_px * gsd_m for gsd_m in self._gsds_m)) / scale_m
        if lattice_px != int(lattice_px):
            raise SpecError(
                f"Expected patches of whole pixels, got {lattice_px:g} pixels of {scale_m:g} m.",
                fix="use a scale_m of 10, or one that divides the patch",
            )
        if image_px % lattice_px:
            raise self._no_fit(image_px, int(lattice_px))
        return InputGeometry(image_px, int(lattice_px), square=True, patch_px=patch_px)

    @cached_property
    def _layers(self) -> tuple[int, ...]:
        return counted_layers(self._knobs.layers, self.request.card.arch["depth"])

    def _check_normalization(self) -> None:
        if self._knobs.normalize != "unit_scale":
            return
        for modality, sensor in self.request.inputs:
            units = {str(modality.stats[band].unit) for band in sensor.bands} - {"reflectance"}
            if units:
                raise SpecError(
                    f"Expected reflectance for normalize='unit_scale', got {', '.join(units)} in {modality.name}.",
                    fix="use normalize='thor_stats', which supports every sensor",
                )

    def _no_fit(self, image_px: int, lattice_px: int) -> SpecError:
        cover_m = image_px * self.request.scale_m
        sizes = [str(px) for px in TRAINED_PATCH_SIZES_PX if all(cover_m % (px * gsd_m) == 0 for gsd_m in self._gsds_m)]
        pixels = ", ".join(f"{gsd_m} m" for gsd_m in sorted(set(self._gsds_m)))
        fix = f"set img={max(1, round(image_px / lattice_px)) * lattice_px}"
        return SpecError(
            f"Expected a patch that divides the image in every band group, got a patch of "
            f"{self._sizes_px['patch_size']} px and an image of {image_px} px.",
            image=f"{cover_m:g} m a side; the bands have pixels of {pixels}",
            fix=fix + (f", or patch_size={' or '.join(sizes)}" if sizes else ""),
        )

    @cached_property
    def _sizes_px(self) -> dict[str, int]:
        """Image and patch size in force: the user's, else those of the first modality."""
        first, given = self.request.inputs[0][0], self._knobs.model_fields_set
        return {
            "img": self._knobs.img if "img" in given else first.image_px,
            "patch_size": self._knobs.patch_size if "patch_size" in given else first.patch_px,
        }

    @cached_property
    def _bands(self) -> dict[str, int | None]:
        """THOR's names of the input channels, in order, with their pixel size if it is not THOR's default."""
        bands: dict[str, int | None] = {}
        for modality, sensor in self.request.inputs:
            for name in sensor.bands:
                band = modality.stats[name].model_name
                if band in bands:
                    raise SpecError(
                        f"Expected each band of THOR once, got {name} of {modality.name!r} in another modality too.",
                        fix="leave one of the modalities out",
                    )
                bands[band] = int(modality.native_gsd_m[band]) if band in modality.native_gsd_m else None
        return bands

    @cached_property
    def _overrides_m(self) -> dict[str, int]:
        """Band group -> pixel size, where it is not THOR's default."""
        return {GROUP_OF_BAND[band]: gsd_m for band, gsd_m in self._bands.items() if gsd_m is not None}

    @cached_property
    def _gsds_m(self) -> tuple[int, ...]:
        """Pixel sizes of the band groups present."""
        present = {GROUP_OF_BAND[band] for band in self._bands}
        return tuple(self._overrides_m.get(group.name, group.gsd_m) for group in GROUPS if group.name in present)

    def _cover_m(self, image_px: int) -> int:
        """Return the ground cover by the model page's rule: `ground_cover_m = scale_m * image_size`."""
        cover_m = self.request.scale_m * image_px
        if cover_m != int(cover_m):
            raise SpecError(f"Expected a ground cover of whole metres, got {cover_m:g} m.", fix="use a whole scale_m")
        return int(cover_m)

    def prepare(self, chips: Mapping[str, Chip], frame: Frame) -> list[ModelInput]:
        """Fill, clip, standardise, clamp to five sigma and resize, in the order of the model page."""
        images = [
            to_image(chips[modality.name], modality, sensor, self._scaling(modality, sensor))
            for modality, sensor in self.request.inputs
        ]
        cover_m = float(self._cover_m(frame.input_px[0]))
        windows = cut_windows(images[0] if len(images) == 1 else torch.cat(images), frame)
        return [ModelInput({"images": window}, ground_cover_m=cover_m) for window in windows]

    def _scaling(self, modality: Modality, sensor: SensorSpec) -> Scaling:
        if self._knobs.normalize == "thor_stats":
            return z_score(modality, sensor, CLAMP_SIGMA)
        return unit_scale(modality, sensor) if self._knobs.normalize == "unit_scale" else unscaled(modality, sensor)

    def encode(self, batch: ModelInput) -> Tokens:
        """Return tokens of the last block or the requested ones; the final norm is applied only on request."""
        encoder = cast("ThorEncoder", self.network.module)
        geometry = plan_geometry(
            tuple(self._bands), int(batch.ground_cover_m), (self._sizes_px["patch_size"],), gsd_m=self._overrides_m
        )
        return encoder.forward(
            batch.tensors["images"], geometry, final_norm=self._knobs.final_norm, layers=self._layers
        )

    @property
    def normalization(self) -> str:
        """The knob `normalize`."""
        return self._knobs.normalize

    @cached_property
    def readout(self) -> Readout:
        """One grid per band group; several are merged into a group grid, a single one is a plain patch grid."""
        sees = {
            name: tuple(
                modality.name
                for modality, sensor in self.request.inputs
                if any(GROUP_OF_BAND[modality.stats[band].model_name] == name for band in sensor.bands)
            )
            for name in {GROUP_OF_BAND[band]: None for band in self._bands}
        }
        kind = "thor_group_grid" if len(sees) > 1 else "patch_tokens"
        parts = len(self._layers)
        return Readout(self.request.card.dim * parts, sees, kind, merge=self._knobs.group_merge, parts=parts)

    def knobs_in_force(self) -> dict[str, JsonValue]:
        """Return the knobs, with the sizes in force, which depend on the modality unless the user sets them."""
        return {**super().knobs_in_force(), **self._sizes_px}

    def facts(self) -> dict[str, JsonValue]:
        """Return the facts that the model page documents."""
        return {
            "group_merge": self._knobs.group_merge,
            "final_norm": self._knobs.final_norm,
            "layers": list(self._layers),
        }
