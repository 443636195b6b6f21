"""THOR 1.0: chips to network inputs as the model page and the authors' code describe."""

import math
from collections.abc import Mapping
from typing import Literal, cast, final

import torch
from pydantic import JsonValue

from rs_embed.chip import Chip
from rs_embed.embedders._framing import Frame, InputGeometry, cut_windows
from rs_embed.embedders._networks import KeyFilter, build_network
from rs_embed.embedders._normalize import Scaling, to_image, unit_scale, unscaled, z_score
from rs_embed.embedders.base import Embedder, ModelInput, ModelRequest, Network
from rs_embed.embedders.card import Modality
from rs_embed.embedders.cards.thor import ThorKnobs
from rs_embed.encoders.thor import ThorEncoder
from rs_embed.encoders.thor_bands import GROUP_OF_BAND
from rs_embed.encoders.thor_patchify import ThorGeometry, plan_geometry
from rs_embed.encoders.tokens import Tokens
from rs_embed.errors import SpecError
from rs_embed.settings import LibrarySettings
from rs_embed.specs import SensorSpec

CLAMP_SIGMA = 5.0
"""Pre-training clamped standardised pixels to this range. Source: FM4CS/THOR, thor/data/thor_dataset_base.py."""

KEYS = KeyFilter("encoder.", (r"decoder_.*", r"decode_.*", r"ref_pos_embed.*", r"pos_embed.*"))
"""The published files hold the decoder of the pre-training too. Source: FM4CS/thor_terratorch_ext, thor_vit.py."""


@final
class ThorEmbedder(Embedder):
    """One token sequence over band groups of several pixel sizes."""

    @staticmethod
    def build(request: ModelRequest, settings: LibrarySettings) -> Network:
        """The encoder with the checkpoint of the card, or with random weights where asked for."""
        return build_network(lambda: ThorEncoder(**request.card.arch), request, settings, KEYS)

    @property
    def _knobs(self) -> ThorKnobs:
        return cast("ThorKnobs", self.request.knobs)

    def geometry(self) -> InputGeometry:
        """Square inputs; windows start on the coarsest patch of all band groups."""
        first = self.request.inputs[0][0]
        turned = self._knobs.model_fields_set
        image_px = self._knobs.img if "img" in turned else first.image_px
        patch_px = self._patch_px
        patches_m = {patch_px * group.gsd_m for group in self._plan(self._cover_m(image_px)).groups}
        lattice_px = math.lcm(*patches_m) / self.request.scale_m
        if lattice_px != int(lattice_px):
            raise SpecError(
                f"Wanted patches of whole pixels, found {lattice_px:g} pixels of {self.request.scale_m:g} m.",
                fix="use a scale_m of 10, or one that divides the patch",
            )
        return InputGeometry(image_px, int(lattice_px), square=True, patch_px=patch_px)

    @property
    def _patch_px(self) -> int:
        default = self.request.inputs[0][0].patch_px
        if default is None or "patch_size" in self._knobs.model_fields_set:
            return self._knobs.patch_size
        return default

    def _cover_m(self, image_px: int) -> int:
        """The page's rule: `ground_cover_m = scale_m * image_size`."""
        cover_m = self.request.scale_m * image_px
        if cover_m != int(cover_m):
            raise SpecError(f"Wanted a ground cover of whole metres, found {cover_m:g} m.", fix="use a whole scale_m")
        return int(cover_m)

    def _plan(self, cover_m: int) -> ThorGeometry:
        bands: list[str] = []
        gsd_m: dict[str, int] = {}
        for modality, sensor in self.request.inputs:
            for name in sensor.bands:
                band = modality.stats[name].model_name
                bands.append(band)
                if band in modality.native_gsd_m:
                    gsd_m[GROUP_OF_BAND[band]] = int(modality.native_gsd_m[band])
        return plan_geometry(bands, cover_m, (self._patch_px,), gsd_m=gsd_m)

    def prepare(self, chips: Mapping[str, Chip], frame: Frame) -> list[ModelInput]:
        """Fill, clip, standardise, clamp to five sigma, then resize: the order of the model page."""
        images = [
            to_image(chips[modality.name], modality, sensor, self._scaling(modality, sensor))
            for modality, sensor in self.request.inputs
        ]
        cover_m = float(self._cover_m(frame.input_px[0]))
        windows = cut_windows(torch.cat(images), frame)
        return [ModelInput({"images": window}, ground_cover_m=cover_m) for window in windows]

    def _scaling(self, modality: Modality, sensor: SensorSpec) -> Scaling:
        if self._knobs.normalize == "thor_stats":
            return z_score(modality, sensor, CLAMP_SIGMA)
        return unit_scale(modality, sensor) if self._knobs.normalize == "unit_scale" else unscaled(modality, sensor)

    def encode(self, batch: ModelInput) -> Tokens:
        """Tokens of the last block, without the final norm unless the knob asks for it."""
        encoder = cast("ThorEncoder", self.network.module)
        geometry = self._plan(int(batch.ground_cover_m))
        return encoder.forward(batch.tensors["images"], geometry, final_norm=self._knobs.final_norm)

    @property
    def normalization(self) -> str:
        """The knob."""
        return self._knobs.normalize

    @property
    def grid_merge(self) -> Literal["mean", "sum", "concat"]:
        """The knob `group_merge`."""
        return self._knobs.group_merge

    @property
    def grid_kind(self) -> str:
        """Several band groups make a group grid; a single one is a plain square of patch tokens."""
        groups = {GROUP_OF_BAND[m.stats[name].model_name] for m, s in self.request.inputs for name in s.bands}
        return "thor_group_grid" if len(groups) > 1 else "patch_tokens"

    def facts(self) -> dict[str, JsonValue]:
        """Names that the model page promises."""
        return {"group_merge": self._knobs.group_merge, "final_norm": self._knobs.final_norm}
