"""The transformer parts that the encoders share.

Attributes are named as in the published checkpoints (`attn.qkv`, `mlp.fc1`, ...), so state dicts load as they
are.
"""

import itertools
import math
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from rs_embed.encoders.linear import PACKED, Linear

NORM_EPS = 1e-6
"""LayerNorm epsilon of the ViT family (torch's own default is 1e-5)."""

INIT_STD = 0.02
"""Standard deviation of the normal that random weights are drawn from; it is cut at twice of that."""

WITHIN_TWO_STD = math.erf(math.sqrt(2))
"""Share of a normal within two standard deviations of its mean."""


MANY_TOKENS = 256
"""From here on attention is quicker head by head."""

Kept = TypeVar("Kept")


class Recent(Generic[Kept]):
    """The few most recently used results of a costly function.

    Args:
        size: How many are kept.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: OrderedDict[Hashable, Kept] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Kept]) -> Kept:
        """Give what is kept under `key`, made now if it is not there."""
        if key not in self._kept:
            self._kept[key] = make()
        self._kept.move_to_end(key)
        while len(self._kept) > self._size:
            self._kept.popitem(last=False)
        return self._kept[key]

    def clear(self) -> None:
        """Drop everything."""
        self._kept.clear()


class Forgetful(nn.Module, ABC):
    """A module that keeps what it computed from its weights, and drops it when they are loaded or moved."""

    def __init__(self) -> None:
        super().__init__()
        self.register_load_state_dict_post_hook(_forget_after_loading)  # type: ignore[no-untyped-call]

    @abstractmethod
    def forget(self) -> None:
        """Drop what is kept; needed by hand only after weights were changed in place."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Forgetful":
        self.forget()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self


def _forget_after_loading(module: Forgetful, incompatible_keys: object) -> None:
    """Run after loading, also of a parent module; not a method, so that a copy forgets its own."""
    module.forget()


class Encoder(nn.Module):
    """What every encoder of ours can do beside `forward`."""

    @torch.no_grad()
    def init_random(self, seed: int) -> None:
        """Give every parameter a value that depends on `seed` alone; for tests and benchmarks, on the CPU.

        Works on the empty storage that `to_empty(device="cpu")` leaves. A family with buffers fills them too.
        """
        generator = torch.Generator(device="cpu").manual_seed(seed)
        for name, parameter in self.named_parameters():
            if name.endswith(".bias"):
                nn.init.zeros_(parameter)
            elif name.endswith(".weight") and parameter.ndim == 1:
                nn.init.ones_(parameter)
            else:
                # A normal cut at two deviations, by its inverse: 20 times as fast as torch's trunc_normal_.
                parameter.uniform_(-WITHIN_TWO_STD, WITHIN_TWO_STD, generator=generator).erfinv_()
                parameter.mul_(math.sqrt(2) * INIT_STD)


def attend(
    q: Float[Tensor, "batch head query head_dim"],
    k: Float[Tensor, "batch head token head_dim"],
    v: Float[Tensor, "batch head token head_dim"],
    bias: Float[Tensor, "#batch #head query token"] | None = None,
) -> Float[Tensor, "batch head query head_dim"]:
    """Mix the values by the softmax of the scaled dot products and `bias`, as `scaled_dot_product_attention` does.

    That is not quick on the CPU. Without gradients, on one core of an EPYC with AVX-512, for 12 heads of 64
    channels: 1025 tokens take 39 ms in bf16 and 35 in fp32, here 14 and 21; 30 x 17 tokens in bf16 1.2, here 0.7.
    Logits are rounded to bf16 then, which adds about as much as the rounding of queries and keys did.

    Args:
        q: Queries.
        k: Keys.
        v: Values.
        bias: Added to the logits; the same number of batch items and heads, or one for all.
    """
    quick = q.device.type == "cpu" and q.dtype in PACKED and not torch.is_grad_enabled()
    if quick and torch.backends.mkldnn.is_available():
        bias = None if bias is None else bias.to(q.dtype)
        if min(q.shape[2], k.shape[2]) >= MANY_TOKENS:
            return _attend_by_head(q, k, v, bias)
        if q.dtype == torch.bfloat16:
            return _attend_together(q, k, v, bias)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)


def _attend_by_head(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """Attend with one matrix of logits at a time, which stays in the cache; both products by oneDNN."""
    multiply = torch.ops.mkldnn._linear_pointwise
    batch, heads, queries, width = q.shape
    mixed = q.new_empty(batch, queries, heads, width)
    bias = None if bias is None else bias.expand(batch, heads, -1, -1)
    for item, head in itertools.product(range(batch), range(heads)):
        scaled = q[item, head] * width**-0.5
        logits = multiply(scaled, k[item, head].contiguous(), None, "none", [], "")
        if bias is not None:
            logits += bias[item, head]
        mixed[item, :, head] = multiply(logits.softmax(-1), v[item, head].mT.contiguous(), None, "none", [], "")
    return mixed.transpose(1, 2)


def _attend_together(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """Attend with the matrices of logits of all heads and items at once, which are small."""
    many_q, many_k, many_v = (part.flatten(0, 1) for part in (q, k, v))
    logits = torch.bmm(many_q, many_k.mT).unflatten(0, q.shape[:2])
    scale = q.shape[-1] ** -0.5
    logits = logits * scale if bias is None else torch.add(bias, logits, alpha=scale)
    # Rows of 17 take torch half the time in float32.
    shares = logits.softmax(-1, dtype=torch.float32).to(v.dtype)
    return torch.bmm(shares.flatten(0, 1), many_v).view_as(q)


class Attention(nn.Module):
    """Multi-head self-attention with an optional additive bias.

    Args:
        dim: Token width, a multiple of `heads`.
        heads: Number of heads.
        bias: Whether the two linear maps have one.
    """

    def __init__(self, *, dim: int, heads: int, bias: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(dim, 3 * dim, bias=bias)
        self.proj = Linear(dim, dim, bias=bias)

    def forward(
        self, x: Float[Tensor, "batch token dim"], bias: Float[Tensor, "1 head token token"] | None = None
    ) -> Float[Tensor, "batch token dim"]:
        """Mix the tokens.

        Args:
            x: [batch, token, dim].
            bias: Added to the scaled dot products of every batch item; of the same dtype as they.
        """
        batch, token, dim = x.shape
        qkv: Tensor = self.qkv(x)
        q, k, v = qkv.view(batch, token, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4).unbind()
        mixed = attend(q, k, v, bias)
        out: Tensor = self.proj(mixed.transpose(1, 2).reshape(batch, token, dim))
        return out


class Mlp(nn.Module):
    """Two linear maps with an exact GELU between them.

    Args:
        dim: Token width.
        hidden: Width between the two maps.
    """

    def __init__(self, *, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = Linear(dim, hidden, gelu=True)
        self.fc2 = Linear(hidden, dim)

    def forward(self, x: Float[Tensor, "batch token dim"]) -> Float[Tensor, "batch token dim"]:
        """Transform each token by itself."""
        out: Tensor = self.fc2(self.fc1(x))
        return out


class GatedMlp(nn.Module):
    """Two linear maps without bias; between them, a third gates what the first gives through a SiLU.

    Args:
        dim: Token width.
        hidden: Width between the maps.

    Source: Shazeer 2020, arXiv:2002.05202 (SwiGLU).
    """

    def __init__(self, *, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = Linear(dim, hidden, bias=False)
        self.fc2 = Linear(hidden, dim, bias=False)
        self.fc3 = Linear(dim, hidden, bias=False)

    def forward(self, x: Float[Tensor, "batch token dim"]) -> Float[Tensor, "batch token dim"]:
        """Transform each token by itself."""
        out: Tensor = self.fc2(F.silu(self.fc1(x)) * self.fc3(x))
        return out


def layer_norm(dim: int) -> nn.Module:
    """Build the usual LayerNorm of a block, with learned weight and bias."""
    return nn.LayerNorm(dim, eps=NORM_EPS)


def add(x: Float[Tensor, "*batch dim"], change: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
    """Add what a layer gave, which may be of a lower precision: cast first, torch takes 2.5 times as long by itself."""
    return x + change.to(x.dtype)


class Block(nn.Module):
    """Pre-norm transformer block: attention, then MLP, each added to its input.

    Args:
        dim: Token width.
        heads: Number of heads.
        gated: A gated MLP of 8/3 times the width and no bias in any linear map, instead of a plain one of ratio 4.
        norm: Builds a norm from the token width.
    """

    def __init__(
        self, *, dim: int, heads: int, gated: bool = False, norm: Callable[[int], nn.Module] = layer_norm
    ) -> None:
        super().__init__()
        self.norm1 = norm(dim)
        self.attn = Attention(dim=dim, heads=heads, bias=not gated)
        self.norm2 = norm(dim)
        self.mlp = GatedMlp(dim=dim, hidden=8 * dim // 3) if gated else Mlp(dim=dim, hidden=4 * dim)

    def forward(
        self, x: Float[Tensor, "batch token dim"], bias: Float[Tensor, "1 head token token"] | None = None
    ) -> Float[Tensor, "batch token dim"]:
        """Run the block; `bias` is the attention's."""
        mixed = add(x, self.attn(self.norm1(x), bias))
        return add(mixed, self.mlp(self.norm2(mixed)))


def sincos_1d(position: float, dim: int) -> Float[Tensor, " dim"]:
    """Code a number as sines, then cosines, at `dim / 2` frequencies from 1 down to almost 1/10000.

    Computed in float64, as positions reach 192, where float32 sines are off by 1e-5; float32 on the CPU.

    Args:
        position: Any real number.
        dim: Even length of the code.

    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.5, with sines and cosines not interleaved.
    """
    index = torch.arange(dim // 2, dtype=torch.float64, device="cpu")
    angle = position * 10000.0 ** (-index / (dim // 2))
    return torch.cat([angle.sin(), angle.cos()]).float()
