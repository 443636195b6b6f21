"""THOR as a TerraTorch backbone, with the options of the authors' extension.

Source of names and meanings: FM4CS/thor_terratorch_ext, README.md and models/backbones/thor_vit.py.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from rs_embed.embedders._vit_mae_utils import to_grid
from rs_embed.embedders.card import ModelCard
from rs_embed.embedders.onthefly_thor import LAYOUT
from rs_embed.embedders.weights.reading import read_state_dict
from rs_embed.encoders.thor.bands import GROUP_OF_BAND, PUBLIC_NAMES, kernel_name, resolve_bands
from rs_embed.encoders.thor.encoder import ThorEncoder
from rs_embed.encoders.thor.patchify import Strategy, ThorGeometry, plan_geometry
from rs_embed.errors import BandMismatch, ChoiceWarning, SpecError, warn
from rs_embed.terratorch.encoders import one_of, trainable

Merge = Literal["mean", "sum", "max", "concat"]
MERGES: tuple[Merge, ...] = get_args(Merge)
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
Bands = Sequence[str] | Mapping[str, Sequence[str]]

S2_BANDS = (
    *("COASTAL_AEROSOL", "BLUE", "GREEN", "RED", "NIR_BROAD", "RED_EDGE_1", "RED_EDGE_2", "RED_EDGE_3"),
    *("NIR_NARROW", "WATER_VAPOR", "SWIR_1", "SWIR_2"),
)
DEFAULT_BANDS = (*S2_BANDS, "VV", "VH")
GROUND_COVER_M, PATCH_PX = 2880, 8
INPUT_PARAMS = ("ground_covers", "flexivit_patch_size_seqs", "select_patch_strategy")
"""Keys of `input_params`. The authors' fourth key, the reference patch size, is a constant of the encoder here."""


class ThorBackbone(nn.Module):
    """The THOR backbone for a selection of bands and a ground cover.

    The input is `[batch, channel, height, width]`, square and standardised, of any pixel size, with channels in the
    order of `model_bands`. If `model_bands` is a mapping by modality, the input is a mapping of such tensors. The
    output is one tensor per layer: `[batch, token, dim]`, or with `merge_method` a map `[batch, channel, row, col]`.
    """

    def __init__(
        self,
        encoder: ThorEncoder,
        *,
        geometry: ThorGeometry,
        modalities: tuple[str, ...],
        layers: tuple[int, ...],
        merge: Merge | None,
    ) -> None:
        """Freeze parameters that these bands do not use, so that every trainable parameter gets a gradient."""
        super().__init__()
        self.encoder = encoder
        self._geometry, self._modalities, self._layers, self._merge = geometry, modalities, layers, merge
        dim = encoder.norm.normalized_shape[0]
        wide = len(geometry.groups) if merge == "concat" else 1
        self.out_channels: list[int] = [dim * wide for _ in layers]
        for name, parameter in encoder.named_parameters():
            parameter.requires_grad_(self._uses(name))

    def _uses(self, name: str) -> bool:
        kernels = {kernel_name(band) for group in self._geometry.groups for band in group.bands}
        match name.split("."):
            case ["norm", _]:
                return False
            case ["ind_patch_embed", "patch_embed", kernel, _]:
                return kernel in kernels
            case ["band_embed", group]:
                return group in {one.name for one in self._geometry.groups}
            case ["blocks", block, *_]:
                return int(block) <= max(self._layers)
        return True

    def forward(self, x: Tensor | Mapping[str, Tensor], **_: object) -> list[Tensor]:
        """Encode a batch; other keys of TerraTorch's batches are ignored.

        Raises:
            BandMismatch: The modalities or channels differ from `model_bands`.
            InputError: The image is not square.
        """
        images = x if isinstance(x, Tensor) else self._joined(x)
        outputs = self.encoder.intermediates(images, self._geometry)
        chosen = [outputs[layer] for layer in self._layers]
        if self._merge is None:
            return chosen
        return [to_grid(tokens, self._geometry.layout, self._merge) for tokens in chosen]

    def _joined(self, x: Mapping[str, Tensor]) -> Tensor:
        if set(x) != set(self._modalities):
            raise BandMismatch(
                f"Expected {', '.join(self._modalities) or 'one tensor of all bands'}, got {', '.join(x)}.",
                fix="set model_bands by modality, such as {'S2L2A': ['BLUE', ...]}, or concat_bands: true",
            )
        return torch.cat([x[name] for name in self._modalities], dim=1)


def build_thor(
    card: ModelCard,
    *,
    pretrained: bool = True,
    ckpt: str | Path | None = None,
    model_bands: Bands = DEFAULT_BANDS,
    new_bands: Mapping[str, str] | None = None,
    input_params: Mapping[str, object] | None = None,
    ground_cover: int | Sequence[int] | None = None,
    patch_sizes: int | Sequence[int] | None = None,
    select_patch_strategy: Strategy | None = None,
    merge_method: Merge | None = None,
    out_indices: Sequence[int] | None = None,
) -> ThorBackbone:
    """Build the THOR backbone.

    Args:
        card: The card of a THOR size.
        pretrained: Whether to load the authors' weights.
        ckpt: A file to load instead of the hub's.
        model_bands: Channels in order, such as "BLUE", "NIR_BROAD", "VV", "EW_HH", "VV_60", "OA01_REFLECTANCE"; a
            mapping by modality if the data module returns several tensors. Default: all bands of Sentinel-2, and VV and
            VH.
        new_bands: Band of `model_bands` that THOR does not know -> the known band whose group it joins, such as
            {"YELLOW": "GREEN"}. A token of a group is the mean of its bands, so the new band must have the pixel size
            of that group. Its patch kernel starts from random numbers, unless `ckpt` has it; a warning says so.
        input_params: `ground_covers` (one value: side of the image in metres, default 2880), `flexivit_patch_size_seqs`
            (pixels of a band, default 8) and `select_patch_strategy`.
        ground_cover: The authors' newer name of `ground_covers`; takes precedence over `input_params`.
        patch_sizes: The authors' newer name of `flexivit_patch_size_seqs`; takes precedence over `input_params`.
        select_patch_strategy: As in `input_params`, over which it takes precedence.
        merge_method: How to merge band groups into one map; `None` returns tokens.
        out_indices: Indices of the blocks to return; default: all.

    Raises:
        BandMismatch: A band is unknown or given twice.
        SpecError: An option is unknown or does not fit the others.
        WeightsError: The weights are missing, unreachable, corrupt, or belong to another model.
    """
    merge = one_of("merge_method", merge_method, (None, *MERGES))
    by_modality = model_bands if isinstance(model_bands, Mapping) else {"": model_bands}
    newer = dict(zip(INPUT_PARAMS, (ground_cover, patch_sizes, select_patch_strategy), strict=True))
    params = {**(input_params or {}), **{name: value for name, value in newer.items() if value is not None}}
    groups = _groups_of_new(new_bands or {})
    geometry = _geometry([band for bands in by_modality.values() for band in bands], params, groups)
    layers = _layers(card.arch["depth"], out_indices)
    trained = _trained(groups, ckpt) if pretrained else tuple(groups)

    def make() -> ThorEncoder:
        return _with_kernels(ThorEncoder(**card.arch), trained)

    encoder = trainable(make, card, LAYOUT, pretrained=pretrained, ckpt=ckpt)
    untrained = [band for band in groups if band not in trained]
    if untrained:
        warn(
            f"THOR was not trained with {', '.join(untrained)}: these patch kernels start from random numbers. All "
            "other weights are those of the checkpoint.",
            ChoiceWarning,
        )
    _with_kernels(encoder, untrained)
    modalities = tuple(by_modality) if isinstance(model_bands, Mapping) else ()
    return ThorBackbone(encoder, geometry=geometry, modalities=modalities, layers=layers, merge=merge)


def _groups_of_new(bands: Mapping[str, str]) -> dict[str, str]:
    """Return the group that each new band joins."""
    groups = {}
    for name, like in bands.items():
        if name in PUBLIC_NAMES or not re.fullmatch(r"\w+", name):
            raise BandMismatch(
                f"Expected a name that THOR does not know, of letters, digits and _, got {name!r}.",
                fix="leave it out of new_bands, or rename it",
            )
        groups[name] = GROUP_OF_BAND[resolve_bands([like])[0][0]]
    return groups


def _trained(bands: Mapping[str, str], ckpt: str | Path | None) -> tuple[str, ...]:
    """Return the new bands whose kernels the file has: it was then saved from a backbone with these bands."""
    if not bands or ckpt is None or not Path(ckpt).expanduser().is_file():
        return ()
    names = read_state_dict(Path(ckpt).expanduser())
    return tuple(band for band in bands if any(name.endswith(f"patch_embed.{band}.weight") for name in names))


def _with_kernels(encoder: ThorEncoder, bands: Sequence[str]) -> ThorEncoder:
    encoder.ind_patch_embed.add_bands(bands, encoder.norm.normalized_shape[0])
    return encoder


def _geometry(names: Sequence[str], params: Mapping[str, object], new: Mapping[str, str]) -> ThorGeometry:
    unused = [name for name in new if name not in names]
    if unused:
        raise BandMismatch(
            f"Expected new_bands among model_bands, got {', '.join(unused)}, which model_bands lacks.",
            fix="add them to model_bands, in the order of the channels",
        )
    known = [name for name in names if name not in new]
    resolved, sizes = resolve_bands(known)
    bands = {**dict(zip(known, resolved, strict=True)), **{name: name for name in new}}
    unknown = [name for name in params if name not in INPUT_PARAMS]
    if unknown:
        raise SpecError(
            f"Expected only {', '.join(INPUT_PARAMS)} in input_params, got {', '.join(unknown)}.", fix="remove them"
        )
    covers = _whole_numbers("ground_covers", params.get("ground_covers", [GROUND_COVER_M]))
    if len(covers) != 1:
        raise SpecError(f"Expected one ground cover, got {covers}.", fix=f"set ground_covers=[{GROUND_COVER_M}]")
    patches_px = _whole_numbers("flexivit_patch_size_seqs", params.get("flexivit_patch_size_seqs", [PATCH_PX]))
    strategy = one_of("select_patch_strategy", params.get("select_patch_strategy", "min"), STRATEGIES)
    return plan_geometry([bands[name] for name in names], covers[0], patches_px, strategy, sizes, new_bands=new)


def _whole_numbers(name: str, value: object) -> list[int]:
    values = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    if not all(isinstance(one, int) for one in values):
        raise SpecError(f"Expected {name} as whole numbers, got {value!r}.", fix=f"set {name}=[...]")
    return list(values)


def _layers(depth: int, indices: Sequence[int] | None) -> tuple[int, ...]:
    layers = tuple(range(depth)) if indices is None else tuple(index % depth for index in indices)
    if not layers or any(not -depth <= index < depth for index in indices or ()):
        raise SpecError(
            f"Expected out_indices between {-depth} and {depth - 1}, got {list(indices or ())}.",
            fix="leave it out for all layers, or [-1] for the last",
        )
    return layers
