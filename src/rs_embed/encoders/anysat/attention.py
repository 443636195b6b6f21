"""The parts of AnySat that depend on distances: position codes, relative attention, and the cross-attention block.

Source: gastruc/AnySat, models/networks/encoder/utils/{pos_embed,irpe,utils_ViT}.py and Transformer.py. The relative
term is the product with the query of iRPE, Wu et al. 2021, arXiv:2107.14222, in eight buckets.
"""

import functools
import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from rs_embed.encoders.kernels.attention import attend
from rs_embed.encoders.kernels.linear import Linear, linear
from rs_embed.encoders.layers import NORM_EPS, Mlp, add, sincos_1d

BUCKETS = 8
"""Columns of the relative table: 3 to 6 by distance, 7 for pairs with cls, 0 to 2 never used."""

CLS_BUCKET = 7
"""Bucket of every pair with cls in it."""

SPATIAL_NORM_EPS = 1e-5
"""LayerNorm epsilon of the spatial encoder; the main blocks have 1e-6."""

TOKENS_AT_ONCE = 2048
"""Tokens that the encoder holds at once: 25 MB in the widest array at base size. With 1024, it takes 3 % longer."""


@functools.lru_cache(maxsize=32)
def positions(side: int, spacing: int, dim: int) -> Float[Tensor, "place dim"]:
    """Encode the positions of a square grid, row by row: half of the channels for the column, half for the row.

    Args:
        side: Positions along a side.
        spacing: Distance between them, in the network's unit.
        dim: Token width, a multiple of 4.
    """
    # A tensor made in inference mode could not serve training later.
    with torch.inference_mode(False):
        codes = torch.stack([sincos_1d(float(index * spacing), dim // 2) for index in range(side)])
        column, row = codes.expand(side, -1, -1), codes[:, None].expand(-1, side, -1)
        return torch.cat([column, row], dim=-1).flatten(0, 1)


@functools.lru_cache(maxsize=8)
def relative_index(side: int) -> Int[Tensor, "token token"]:
    """Return, for each pair of tokens (cls first), the index of its value in a row-wise table of tokens x buckets.

    Args:
        side: Positions along a side of the grid; the tokens are these and cls.
    """
    with torch.inference_mode(False):
        along = torch.arange(side, device="cpu", dtype=torch.float32)
        row, col = torch.cartesian_prod(along, along).unbind(dim=1)
        distance = torch.hypot(row[:, None] - row, col[:, None] - col).round().int()
        # Rounded distance 0, 1, 2 to 3, 4 or more: buckets 3, 4, 5, 6.
        buckets = 3 + (distance >= 1).long() + (distance >= 2).long() + (distance >= 4).long()
        buckets = F.pad(buckets, (1, 0, 1, 0), value=CLS_BUCKET)
        return buckets + BUCKETS * torch.arange(side**2 + 1, device="cpu")[:, None]


def _split(x: Float[Tensor, "batch token dim"], heads: int) -> Float[Tensor, "batch head token head_dim"]:
    split: Tensor = x.unflatten(-1, (heads, -1)).transpose(1, 2)
    return split


class RelativeTable(nn.Module):
    """Eight learned vectors, one per distance bucket.

    Args:
        head_dim: Width of a head.
    """

    def __init__(self, *, head_dim: int) -> None:
        super().__init__()
        self.lookup_table_weight: nn.Parameter = nn.Parameter(torch.zeros(1, head_dim, BUCKETS))

    def forward(
        self, query: Float[Tensor, "batch token head_dim"], index: Int[Tensor, "token token"]
    ) -> Float[Tensor, "batch 1 token token"]:
        """Return the relative term of the attention logits, the same for all heads.

        Args:
            query: The query of head 0. The reference gathers its table with an index that has a batch axis, which
                keeps only head 0 and broadcasts its term to all heads. The released weights must have been trained
                this way, because the compiled operator for all heads refuses such an index.
            index: From `relative_index`.
        """
        scores = query @ self.lookup_table_weight[0]
        return scores.flatten(1)[:, index.flatten()].view(len(query), 1, *index.shape)


class RelativeAttention(nn.Module):
    """Self-attention among cls and the sub-tokens of a patch.

    Args:
        dim: Token width, a multiple of `heads`.
        heads: Number of heads.
    """

    def __init__(self, *, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv: nn.Linear = Linear(dim, 3 * dim)
        self.proj: nn.Linear = Linear(dim, dim)
        self.rpe_k: RelativeTable = RelativeTable(head_dim=dim // heads)

    def forward(
        self, x: Float[Tensor, "patch token dim"], index: Int[Tensor, "token token"] | None
    ) -> Float[Tensor, "patch query dim"]:
        """Mix the tokens.

        Args:
            x: Cls, then sub-tokens.
            index: From `relative_index`. If `None`, only cls is a query. Its bucket is the same for all pairs, and
                softmax cancels a constant, so there is no relative term.
        """
        if index is None:
            mixed = self._ask_for_cls(x)
        else:
            q, k, v = (_split(part, self.heads) for part in self.qkv(x).chunk(3, dim=-1))
            term = self.rpe_k(q[:, 0] * q.shape[-1] ** -0.5, index)
            mixed = attend(q, k, v, term).transpose(1, 2).flatten(2)
        out: Tensor = self.proj(mixed)
        return out

    def _ask_for_cls(self, x: Float[Tensor, "patch token dim"]) -> Float[Tensor, "patch 1 dim"]:
        """Attend from cls only, without computing keys and values of the tokens: a tenth of the work.

        The key matrix is multiplied with the query instead, and the value matrix with the weighted mean of the tokens.
        The bias of the keys adds a constant to all logits, which softmax cancels.
        """
        q_weight, k_weight, v_weight = self.qkv.weight.unflatten(0, (3, self.heads, -1))
        q_bias, _, v_bias = self.qkv.bias.chunk(3)
        q = linear(x[:, 0], q_weight.flatten(0, 1), q_bias).unflatten(-1, (self.heads, -1))
        tokens = x.to(q.dtype)
        asked = torch.einsum("phd,hdc->phc", q * q.shape[-1] ** -0.5, k_weight)
        shares = (asked @ tokens.mT).softmax(dim=-1)
        mixed = torch.einsum("phc,hdc->phd", shares @ tokens, v_weight).flatten(1)
        return (mixed + v_bias)[:, None]


class RelativeBlock(nn.Module):
    """Pre-norm transformer block with relative attention.

    Args:
        dim: Token width.
        heads: Number of heads.
    """

    def __init__(self, *, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1: nn.LayerNorm = nn.LayerNorm(dim, eps=SPATIAL_NORM_EPS)
        self.attn: RelativeAttention = RelativeAttention(dim=dim, heads=heads)
        self.norm2: nn.LayerNorm = nn.LayerNorm(dim, eps=SPATIAL_NORM_EPS)
        self.mlp: Mlp = Mlp(dim=dim, hidden=4 * dim)

    def forward(
        self, x: Float[Tensor, "patch token dim"], index: Int[Tensor, "token token"] | None
    ) -> Float[Tensor, "patch query dim"]:
        """Run the block; without `index`, return only cls."""
        mixed = self.attn(self.norm1(x), index)
        mixed = add(x[:, : mixed.shape[1]], mixed)
        return add(mixed, self.mlp(self.norm2(mixed)))


class SpatialEncoder(nn.Module):
    """Summarises each patch on its own: its cls token becomes the patch's token.

    Args:
        dim: Token width.
        depth: Number of blocks.
        heads: Number of heads.
    """

    def __init__(self, *, dim: int, depth: int, heads: int) -> None:
        super().__init__()
        self.cls_token: nn.Parameter = nn.Parameter(torch.zeros(1, 1, dim))
        self.predictor_blocks: nn.ModuleList = nn.ModuleList(RelativeBlock(dim=dim, heads=heads) for _ in range(depth))
        self.predictor_norm: nn.LayerNorm = nn.LayerNorm(dim, eps=SPATIAL_NORM_EPS)

    def forward(
        self, sub: Float[Tensor, "patch sub dim"], spacing_m: int, *, with_sub: bool
    ) -> Float[Tensor, "patch token dim"]:
        """Encode patches.

        Args:
            sub: Sub-tokens of square patches.
            spacing_m: Metres between neighbours, for their position codes.
            with_sub: Whether to return the sub-tokens too; otherwise the last block computes only cls.
        """
        side = math.isqrt(sub.shape[1])
        placed = sub + positions(side, spacing_m, sub.shape[2]).to(sub.device)
        x = torch.cat([self.cls_token.to(placed).expand(len(sub), -1, -1), placed], dim=1)
        index = relative_index(side).to(sub.device)
        for i, block in enumerate(self.predictor_blocks, start=1):
            x = block(x, index if with_sub or i < len(self.predictor_blocks) else None)
        out: Tensor = self.predictor_norm(x)
        return out


class CrossAttention(nn.Module):
    """Computes one token per patch from the tokens of all modalities.

    Args:
        dim: Token width, a multiple of `heads`.
        heads: Number of heads.
    """

    def __init__(self, *, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_learned: nn.Parameter = nn.Parameter(torch.zeros(1, 1, dim))
        self.wk: nn.Linear = Linear(dim, dim)
        self.wv: nn.Linear = Linear(dim, dim)
        self.rpe_k: RelativeTable = RelativeTable(head_dim=dim // heads)
        self.proj: nn.Linear = Linear(dim, dim)

    def forward(
        self, x: Float[Tensor, "batch token dim"], places: Float[Tensor, "query dim"], side: int
    ) -> Float[Tensor, "batch query dim"]:
        """Compute the token of each position.

        Args:
            x: Cls, then the patches of each modality.
            places: Position codes of cls (zero) and the patches. Added to a learned vector, they are the queries, the
                same for every input.
            side: Patches along a side.
        """
        q, k, v = (_split(part, self.heads) for part in (self.q_learned + places, self.wk(x), self.wv(x)))
        # The term of the unscaled query: eight times that of the spatial encoder at 64 channels per head.
        term = self.rpe_k(q[:, 0], relative_index(side).to(x.device))
        modalities = (x.shape[1] - 1) // side**2
        bias = torch.cat([term[..., :1], *[term[..., 1:]] * modalities], dim=-1)
        q = q.expand(len(x), -1, -1, -1)
        mixed = attend(q, k, v, bias)
        out: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return out


class CrossBlock(nn.Module):
    """The last block: cross-attention, then MLP.

    Args:
        dim: Token width.
        heads: Number of heads.
    """

    def __init__(self, *, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1: nn.LayerNorm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn: CrossAttention = CrossAttention(dim=dim, heads=heads)
        self.norm2: nn.LayerNorm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp: Mlp = Mlp(dim=dim, hidden=4 * dim)

    def forward(
        self, x: Float[Tensor, "batch token dim"], places: Float[Tensor, "query dim"], side: int
    ) -> Float[Tensor, "batch query dim"]:
        """Run the block; there is no residual connection around the attention, as the queries are not tokens."""
        read = self.attn(self.norm1(x), places, side).to(x.dtype)
        return add(read, self.mlp(self.norm2(read)))
