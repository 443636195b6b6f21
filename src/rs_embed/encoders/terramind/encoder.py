"""TerraMind: one vision transformer over the patches of any of its modalities.

Source: IBM/terratorch 1.2.11, models/backbones/terramind (model/terramind_vit.py); paper arXiv:2504.11171.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from rs_embed.encoders.kernels.linear import prepared
from rs_embed.encoders.layers import NORM_EPS, Block, Encoder, counted_layers, run_blocks, side_by_side
from rs_embed.encoders.terramind.embeddings import (
    MODALITIES,
    PATCH_PX,
    V1_MODALITIES,
    ModalityEmbedding,
    PixelEmbedding,
    SequenceEmbedding,
    build_embedding,
    position_table,
)
from rs_embed.encoders.tokens import TokenGrid, TokenLayout, Tokens
from rs_embed.errors import BandMismatch, InputError, WeightsMismatch

TRAINED_PX = 224
"""Side of the images in pre-training, for which the stored position tables are computed."""

Family = Literal["A", "B"]
"""A (base, large): gated MLP, no bias anywhere. B (tiny, small): plain MLP, biases."""

EMBEDDINGS = ("encoder_embeddings",)
"""Parts with one member per modality; files hold those of all modalities."""

_NORM_WEIGHT = re.compile(r"(encoder\.\d+\.norm[12]|encoder_norm)\.weight")


class ZeroBiasNorm(nn.Module):
    """LayerNorm with a learned weight; its bias is stored, but always zero.

    Args:
        dim: Token width.
    """

    bias: Float[Tensor, " dim"]

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight: nn.Parameter = nn.Parameter(torch.ones(dim))
        self.register_buffer("bias", torch.zeros(dim))

    def forward(self, x: Float[Tensor, "batch token dim"]) -> Float[Tensor, "batch token dim"]:
        """Standardise each token."""
        return F.layer_norm(x, x.shape[-1:], self.weight, self.bias, NORM_EPS)


class TerraMindEncoder(Encoder):
    """The encoder of TerraMind, for any choice of modalities, bands, layers and image size.

    Modalities must cover the same ground; their grids may differ in size. Resized position tables are cached until
    weights are loaded or moved.

    Args:
        dim: Token width, 64 per head in the published models.
        depth: Number of blocks.
        heads: Number of attention heads.
        family: Kind of block; see `Family`.
        modalities: Modalities of the checkpoint.
        image_px: Side of the square image for which position tables are computed. The published tables are for 224 px
            and are resized to other images; another value here computes new tables, which changes the results.
    """

    def __init__(
        self,
        *,
        dim: int,
        depth: int,
        heads: int,
        family: Family,
        modalities: Sequence[str] = V1_MODALITIES,
        image_px: int = TRAINED_PX,
    ) -> None:
        super().__init__()
        self.modalities: tuple[str, ...] = tuple(modalities)
        self._side = image_px // PATCH_PX
        self.encoder_embeddings: nn.ModuleDict = nn.ModuleDict(
            {MODALITIES[name].key: build_embedding(name, dim=dim, side=self._side) for name in modalities}
        )
        gated = family == "A"
        self.encoder: nn.ModuleList = nn.ModuleList(
            Block(dim=dim, heads=heads, gated=gated, norm=ZeroBiasNorm) for _ in range(depth)
        )
        self.encoder_norm: ZeroBiasNorm = ZeroBiasNorm(dim)
        self._fill_buffers()

    def forward(
        self,
        inputs: Mapping[str, Tensor],
        *,
        layers: Sequence[int] | None = None,
        bands: Mapping[str, Sequence[str]] | None = None,
    ) -> Tokens:
        """Encode one or more modalities of the same places.

        Args:
            inputs: Modality -> standardised pixels `[batch, band, height, width]` in multiples of 16 px, ids of image
                tokens `[batch, row, col]`, or ids of a sequence `[batch, place]`. The grids of the output have their
                order and names. Tokens of a sequence lie on no grid; they are prefix tokens.
            layers: Blocks whose outputs are concatenated along the token width, counted from 0, or from -1 backwards;
                default: the last. Only the last has the final norm. Blocks after the deepest one are not run.
            bands: Modality -> bands of its channels, if these are not all of the checkpoint's in its order.

        Raises:
            InputError: A modality is unknown, or sizes do not fit.
            BandMismatch: The channels do not match the bands.
            SpecError: A layer does not exist.
        """
        outputs = self.intermediates(inputs, layers=(-1,) if layers is None else layers, bands=bands)
        return Tokens(side_by_side([output.values for output in outputs]), outputs[0].layout)

    def intermediates(
        self,
        inputs: Mapping[str, Tensor],
        *,
        layers: Sequence[int] | None = None,
        bands: Mapping[str, Sequence[str]] | None = None,
    ) -> list[Tokens]:
        """Encode as `forward` does and return the output of each of `layers`; default: every block."""
        depth = len(self.encoder)
        wanted = range(depth) if layers is None else counted_layers(layers, depth)
        tokens = self.embed(inputs, bands)
        with prepared(self.encoder[: max(wanted) + 1], device_type=tokens.values.device.type):
            states = run_blocks(self.encoder, tokens.values, wanted)
        return [
            Tokens(self.encoder_norm(x) if layer == depth - 1 else x, tokens.layout)
            for layer, x in zip(wanted, states, strict=True)
        ]

    def embed(self, inputs: Mapping[str, Tensor], bands: Mapping[str, Sequence[str]] | None = None) -> Tokens:
        """Turn inputs into the tokens that enter the first block.

        Sequences come first. Blocks do not see the order of tokens, so this changes no value.
        """
        bands = bands or {}
        embeddings = {name: self._embedding(name) for name in inputs}
        _check_inputs(inputs, bands)
        sequences, maps = [], {}
        for name, embedding in embeddings.items():
            extra = (bands.get(name),) if isinstance(embedding, PixelEmbedding) else ()
            tokens = embedding(inputs[name], *extra)
            if isinstance(embedding, SequenceEmbedding):
                sequences.append(tokens)
            else:
                maps[name] = tokens
        grids = tuple(TokenGrid(name, *tokens.shape[1:3]) for name, tokens in maps.items())
        joined = torch.cat(sequences + [tokens.flatten(1, 2) for tokens in maps.values()], dim=1)
        return Tokens(joined, TokenLayout(grids, prefix=sum(tokens.shape[1] for tokens in sequences)))

    def drop_cached(self) -> None:
        """Drop the cached position tables; needed only after changing tables in place."""
        for embedding in self.encoder_embeddings.values():
            if isinstance(embedding, ModalityEmbedding):
                embedding.drop_cached()

    @torch.no_grad()
    def init_random(self, seed: int) -> None:
        """See `Encoder`; position tables and zero biases are not random."""
        super().init_random(seed)
        self._fill_buffers()
        self.drop_cached()

    def _embedding(self, name: str) -> nn.Module:
        if name in self.modalities:
            return self.encoder_embeddings[MODALITIES[name].key]
        close = difflib.get_close_matches(name.upper(), self.modalities, n=1, cutoff=0.5)
        choice = f"choose from {', '.join(self.modalities)}"
        raise InputError(
            f"This TerraMind encoder has no modality {name!r}.", fix=f"did you mean {close[0]}?" if close else choice
        )

    def _fill_buffers(self) -> None:
        """Fill position tables and zero biases (not on the meta device)."""
        for name, buffer in self.named_buffers():
            if name.endswith(".bias"):
                buffer.zero_()
        for name in self.modalities:
            table = self.get_buffer(f"encoder_embeddings.{MODALITIES[name].key}.pos_emb")
            table.copy_(position_table(name, dim=table.shape[2], side=self._side))


def complete_state(
    state: Mapping[str, Tensor], modalities: Sequence[str] = V1_MODALITIES, image_px: int = TRAINED_PX
) -> dict[str, Tensor]:
    """Complete the encoder's tensors of a published file, so that an encoder with these arguments loads them strictly.

    Missing zero biases and position tables are added. A table for another image size is replaced, as in the authors'
    code.

    Args:
        state: Tensors by name.
        modalities: Modalities of the encoder.
        image_px: Image size of the encoder's position tables, pixels.

    Raises:
        WeightsMismatch: The bias of a LayerNorm is not zero.
    """
    kept = dict(state)
    for name in [name for name in kept if _NORM_WEIGHT.fullmatch(name)]:
        bias = kept.setdefault(f"{name.removesuffix('weight')}bias", torch.zeros_like(kept[name]))
        if bias.any():
            raise WeightsMismatch(
                f"Expected a bias of zero in TerraMind's LayerNorms, got up to {bias.abs().max():.3g}.",
                layer=name.removesuffix(".weight"),
                fix="use a published checkpoint, or one trained without changing these biases",
            )
    for name in modalities:
        prefix = f"encoder_embeddings.{MODALITIES[name].key}."
        if f"{prefix}mod_emb" in kept:
            table = position_table(name, dim=kept[f"{prefix}mod_emb"].numel(), side=image_px // PATCH_PX)
            stored = kept.get(f"{prefix}pos_emb")
            if stored is None or stored.shape != table.shape:
                kept[f"{prefix}pos_emb"] = table
    return kept


def _check_inputs(inputs: Mapping[str, Tensor], bands: Mapping[str, Sequence[str]]) -> None:
    lengths = {name: len(values) for name, values in inputs.items()}
    if len(set(lengths.values())) != 1:
        raise InputError(
            "Expected one or more modalities with the same number of items, got others.",
            items=", ".join(f"{name} {length}" for name, length in lengths.items()) or "none",
            fix="pass every modality for every place",
        )
    stray = [name for name in bands if name not in inputs or not MODALITIES[name].bands]
    if stray:
        raise BandMismatch(
            f"Expected bands only for the inputs, got some for {', '.join(stray)}.",
            inputs=", ".join(inputs),
            fix="use the same names in `bands` as in the inputs",
        )
