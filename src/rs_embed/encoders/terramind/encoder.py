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
"""Side of the images of the pre-training, which the stored position tables are made for."""

Family = Literal["A", "B"]
"""A (base, large): gated MLP, no bias anywhere. B (tiny, small): plain MLP, biases."""

EMBEDDINGS = ("encoder_embeddings",)
"""Where each member belongs to one modality; files hold those of all."""

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
    """The encoder of TerraMind; one object serves every choice of modalities, bands, layers and image size.

    Modalities must show the same ground; their grids may differ in size. Resized position tables are kept;
    loading or moving weights drops them.

    Args:
        dim: Token width, 64 per head in the published models.
        depth: Number of blocks.
        heads: Number of attention heads.
        family: Which kind of block.
        modalities: What the checkpoint can embed.
        image_px: Side of the square image that position tables are made for. The published tables are for 224
            and are resized to other images; another size here means fresh tables, and so other numbers.
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
            inputs: Modality to standardised pixels [batch, band, height, width] in multiples of 16 px, to ids of
                image tokens [batch, row, col], or to ids of a sequence [batch, place]. Their order is that of the
                grids, which are named after them. Tokens of a sequence lie on no grid: they are prefix tokens.
            layers: Blocks whose outputs are joined along the token width, counted from 0, or from -1 backwards;
                the last if left out. Its output alone is normed. Blocks after the deepest one are not run.
            bands: Modality to its bands in the order of its channels, where they are not all of the checkpoint's.

        Raises:
            InputError: A modality is unknown, or sizes do not fit.
            BandMismatch: The channels are not those wanted.
            SpecError: There is no such layer.
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
        """Encode as `forward` does and return the output of each of `layers`; of every block if left out."""
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
        """Drop the kept position tables; needed only after changing tables in place."""
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
            f"This TerraMind has no modality {name!r}.", fix=f"did you mean {close[0]}?" if close else choice
        )

    def _fill_buffers(self) -> None:
        """Give position tables and zero biases their values (none on the meta device)."""
        for name, buffer in self.named_buffers():
            if name.endswith(".bias"):
                buffer.zero_()
        for name in self.modalities:
            table = self.get_buffer(f"encoder_embeddings.{MODALITIES[name].key}.pos_emb")
            table.copy_(position_table(name, dim=table.shape[2], side=self._side))


def complete_state(
    state: Mapping[str, Tensor], modalities: Sequence[str] = V1_MODALITIES, image_px: int = TRAINED_PX
) -> dict[str, Tensor]:
    """Give the encoder's tensors out of a published file as an encoder of these arguments loads them strictly.

    Zero biases and position tables are added where the file has none; a table made for another image size is
    replaced, as upstream does.

    Args:
        state: Tensors by name.
        modalities: The encoder's.
        image_px: The encoder's.

    Raises:
        WeightsMismatch: The bias of a LayerNorm is not zero.
    """
    kept = dict(state)
    for name in [name for name in kept if _NORM_WEIGHT.fullmatch(name)]:
        bias = kept.setdefault(f"{name.removesuffix('weight')}bias", torch.zeros_like(kept[name]))
        if bias.any():
            raise WeightsMismatch(
                f"TerraMind's LayerNorms have a bias of zero, one here reaches {bias.abs().max():.3g}.",
                layer=name.removesuffix(".weight"),
                fix="use a published checkpoint, or one that was trained with these biases left alone",
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
            "TerraMind wants one or more modalities with equally many items.",
            items=", ".join(f"{name} {length}" for name, length in lengths.items()) or "none",
            fix="give every modality for every place",
        )
    stray = [name for name in bands if name not in inputs or not MODALITIES[name].bands]
    if stray:
        raise BandMismatch(
            f"Bands are given for {', '.join(stray)}, but there are no such pixels.",
            inputs=", ".join(inputs),
            fix="use the same names in `bands` as in the inputs",
        )
