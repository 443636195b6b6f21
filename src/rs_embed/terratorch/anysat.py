"""AnySat as a TerraTorch backbone: our encoder with TerraTorch's order of axes."""

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
"""No gradient reaches what stands for masked pixels, as there are no masks, nor a bias that softmax takes away."""
RELATIVE = "attn.rpe_k.lookup_table_weight"
"""Of the last block of a patch it adds the same to all where only cls asks; the second half has a block more."""


class AnySatBackbone(nn.Module):
    """AnySat over some of its modalities.

    Takes a tensor for one modality, or tensors by name for several: `[batch, channel, height, width]`, and series also
    as `[batch, channel, time, height, width]`; square, standardised, bands in the order of the card. Gives a list of
    one tensor: a map `[batch, channel, row, col]`, or `[batch, 1, dim]` for the whole.
    """

    def __init__(
        self, encoder: AnySatEncoder, *, patch_m: int, days: Mapping[str, tuple[float, ...]], output: Output
    ) -> None:
        """Freeze what the output does not use, so that every parameter that wants a gradient gets one."""
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
            x: See the class.
            dates: `[batch, time]` by modality, day of the year, 1 January = 0; by default the option `days`.

        Raises:
            BandMismatch: Other modalities, channels or axes.
            InputError: No dates for a series, or inputs that do not fit each other.
        """
        given = {self.encoder.modalities[0]: x} if isinstance(x, Tensor) else x
        if set(given) != set(self.encoder.modalities):
            raise BandMismatch(
                f"Expected {', '.join(self.encoder.modalities)}, got {', '.join(given)}.",
                fix="name the modalities of the data module as AnySat does, or give `modalities`",
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
                fix=f"days={{{name!r}: [...]}}, days of the year with 1 January = 0, or `dates` in the batch",
            )
        return torch.tensor(days, device=values.device).expand(len(values), -1)


def _time_first(name: str, values: Tensor) -> Tensor:
    """TerraTorch has channels before time, AnySat after it."""
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
    """The backbone of AnySat.

    Args:
        card: Of AnySat.
        pretrained: Whether to load the authors' weights.
        ckpt: A file to load in place of the hub's.
        modalities: AnySat's names, in order.
        patch_size_m: Side of a patch, a multiple of 10 m.
        days: Of the frames of a series that come without dates: days of the year, 1 January = 0; by modality if
            they differ.
        output: "patch", "dense" (each patch's token beside that of each part of it, twice the width), or "tile".

    Raises:
        SpecError: An unknown modality or output.
        WeightsError: The weights could not be had.
    """
    arch = {name: card.arch[name] for name in ("dim", "depth", "heads")}
    wanted = tuple(modalities)

    def make() -> AnySatEncoder:
        return AnySatEncoder(dim=arch["dim"], depth=arch["depth"], heads=arch["heads"], modalities=wanted)

    encoder = trainable(make, card, Layout(), pretrained=pretrained, ckpt=ckpt)
    by_modality = days if isinstance(days, Mapping) else dict.fromkeys(wanted, days)
    frames = {name: tuple(one) for name, one in by_modality.items()}
    return AnySatBackbone(encoder, patch_m=patch_size_m, days=frames, output=one_of("output", output, OUTPUTS))
