"""AnySat as a TerraTorch backbone, with TerraTorch's order of axes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from rs_embed.embedders._vit_mae_utils import to_grid
from rs_embed.embedders.card import ModelCard
from rs_embed.embedders.weights.layout import Layout
from rs_embed.encoders.anysat.encoder import AnySatEncoder
from rs_embed.encoders.anysat.modalities import MODALITIES
from rs_embed.errors import BandMismatch, InputError
from rs_embed.terratorch.encoders import one_of, trainable

Output = Literal["patch", "dense", "tile"]
OUTPUTS: tuple[Output, ...] = get_args(Output)
IDLE = ("pad_parameter", "attention_heads.fc1_k.bias")
"""Parameters without gradient: the value of masked pixels, as nothing is masked, and a bias that softmax cancels."""
RELATIVE = "attn.rpe_k.lookup_table_weight"
"""Parameter without effect in the last block of a patch, where only the class token is a query and it adds a
constant."""


class AnySatBackbone(nn.Module):
    """The AnySat backbone for some of its modalities.

    The input is a tensor for one modality, or a mapping of tensors for several: `[batch, channel, height, width]`, or
    `[batch, channel, time, height, width]` for series. Images are square and standardised, with bands in the order of
    the card. The output is a list of one tensor: a map `[batch, channel, row, col]`, or `[batch, 1, dim]` for the tile
    token.
    """

    def __init__(
        self, encoder: AnySatEncoder, *, patch_m: int, days: Mapping[str, tuple[float, ...]], output: Output
    ) -> None:
        """Freeze parameters that do not affect the output, so that every trainable parameter gets a gradient."""
        super().__init__()
        self.encoder = encoder
        self._patch_m, self._days, self._output = patch_m, days, output
        dim = encoder.cls_token.shape[-1]
        self.out_channels: list[int] = [2 * dim if output == "dense" else dim]
        idle = IDLE if output == "dense" else (*IDLE, f"predictor_blocks.{len(encoder.blocks) - 2}.{RELATIVE}")
        for name, parameter in encoder.named_parameters():
            parameter.requires_grad_(not name.endswith(idle))

    def forward(
        self, x: Tensor | Mapping[str, Tensor], *, dates: Mapping[str, Tensor] | None = None, **_: object
    ) -> list[Tensor]:
        """Encode a batch.

        Args:
            x: The images; see the class.
            dates: Modality -> day of the year, `[batch, time]`, 1 January = 0; default: the option `days`.

        Raises:
            BandMismatch: The modalities, channels or axes differ from those of the backbone.
            InputError: A series has no dates, or the inputs do not fit each other.
        """
        given = {self.encoder.modalities[0]: x} if isinstance(x, Tensor) else x
        if set(given) != set(self.encoder.modalities):
            raise BandMismatch(
                f"Expected {', '.join(self.encoder.modalities)}, got {', '.join(given)}.",
                fix="use AnySat's names of modalities in the data module, or set `modalities`",
            )
        inputs = {name: _time_first(name, given[name]) for name in self.encoder.modalities}
        series = {name: values for name, values in inputs.items() if MODALITIES[name].period is not None}
        when = {name: (dates or {}).get(name, self._repeated(name, values)) for name, values in series.items()}
        if self._output == "dense":
            return [self.encoder.dense(inputs, dates=when, patch_m=self._patch_m, raster=True)]
        tokens = self.encoder(inputs, dates=when, patch_m=self._patch_m)
        return [tokens.values[:, :1] if self._output == "tile" else to_grid(tokens.values, tokens.layout)]

    def _repeated(self, name: str, values: Tensor) -> Tensor:
        days = self._days.get(name, ())
        if len(days) != values.shape[1]:
            raise InputError(
                f"Expected a day for each of {values.shape[1]} frames of {name}, got {len(days)}.",
                fix=f"set days={{{name!r}: [...]}}, days of the year with 1 January = 0, or put `dates` in the batch",
            )
        return torch.tensor(days, device=values.device).expand(len(values), -1)


def _time_first(name: str, values: Tensor) -> Tensor:
    """Move the time axis before the channels, as AnySat expects; TerraTorch has it after them."""
    if MODALITIES[name].period is None:
        return values
    return values[:, None] if values.ndim == 4 else values.transpose(1, 2)


def build_anysat(
    card: ModelCard,
    *,
    pretrained: bool = True,
    ckpt: str | Path | None = None,
    modalities: Sequence[str] = ("s2",),
    patch_size_m: int = 40,
    days: Sequence[float] | Mapping[str, Sequence[float]] = (),
    output: Output = "patch",
) -> AnySatBackbone:
    """Build the AnySat backbone.

    Args:
        card: The card of AnySat.
        pretrained: Whether to load the authors' weights.
        ckpt: A file to load instead of the hub's.
        modalities: AnySat's names of the modalities, in order.
        patch_size_m: Side of a patch, metres; a multiple of 10.
        days: Days of the year of the frames, 1 January = 0, for batches without dates; a mapping by modality if they
            differ.
        output: "patch", "dense" (the token of each part of a patch after that of the patch, twice the width) or "tile".

    Raises:
        SpecError: A modality or output is unknown.
        WeightsError: The weights are missing, unreachable, corrupt, or belong to another model.
    """
    arch = {name: card.arch[name] for name in ("dim", "depth", "heads")}
    wanted = tuple(modalities)

    def make() -> AnySatEncoder:
        return AnySatEncoder(dim=arch["dim"], depth=arch["depth"], heads=arch["heads"], modalities=wanted)

    encoder = trainable(make, card, Layout(), pretrained=pretrained, ckpt=ckpt)
    by_modality = days if isinstance(days, Mapping) else dict.fromkeys(wanted, days)
    frames = {name: tuple(one) for name, one in by_modality.items()}
    return AnySatBackbone(encoder, patch_m=patch_size_m, days=frames, output=one_of("output", output, OUTPUTS))
