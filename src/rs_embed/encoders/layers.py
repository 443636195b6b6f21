"""Transformer layers shared by the encoders.

Attributes are named as in the published checkpoints (`attn.qkv`, `mlp.fc1`, ...), so that state dicts load as they
are.
"""

import math
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rs_embed.encoders.kernels.attention import Attention, Distances
from rs_embed.encoders.kernels.linear import Linear
from rs_embed.errors import SpecError

NORM_EPS = 1e-6
"""LayerNorm epsilon of the ViT family (torch's own default is 1e-5)."""

INIT_STD = 0.02
"""Standard deviation of the normal distribution of random weights, truncated at two standard deviations."""

WITHIN_TWO_STD = math.erf(math.sqrt(2))
"""Share of a normal distribution within two standard deviations of its mean."""


Kept = TypeVar("Kept")


GPU_FACTOR = 32
"""How many times as much work a GPU gets at once as a CPU, whose share must fit into its cache."""


def at_once(count: int, like: Tensor) -> int:
    """Return how many items to process at once on the device of `like`, given `count` for a CPU."""
    return count if like.device.type == "cpu" else GPU_FACTOR * count


class LRUCache(Generic[Kept]):
    """A cache of the most recently used results of a costly function.

    Args:
        size: Number of results to keep.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: OrderedDict[Hashable, Kept] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Kept]) -> Kept:
        """Return the result for `key`, computed if it is not in the cache."""
        if key not in self._kept:
            self._kept[key] = make()
        self._kept.move_to_end(key)
        while len(self._kept) > self._size:
            self._kept.popitem(last=False)
        return self._kept[key]

    def clear(self) -> None:
        """Empty the cache."""
        self._kept.clear()

    def __len__(self) -> int:
        return len(self._kept)


class CachesFromWeights(nn.Module, ABC):
    """A module that caches results computed from its weights, and drops them when weights are loaded or moved."""

    def __init__(self) -> None:
        super().__init__()
        self.register_load_state_dict_post_hook(_drop_after_loading)  # type: ignore[no-untyped-call]

    @abstractmethod
    def drop_cached(self) -> None:
        """Drop cached results; call it after changing weights in place."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "CachesFromWeights":
        self.drop_cached()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self


def _drop_after_loading(module: CachesFromWeights, incompatible_keys: object) -> None:
    """Drop cached results after loading, also of a parent module. Not a method, so that a copy drops its own."""
    module.drop_cached()


class Encoder(nn.Module):
    """The base class of the encoders of this package."""

    @torch.no_grad()
    def init_random(self, seed: int) -> None:
        """Set every parameter to a random value that depends only on `seed`; for tests and benchmarks, on the CPU.

        Works on the empty storage that `to_empty(device="cpu")` leaves. Encoders with buffers fill them too.
        """
        generator = torch.Generator(device="cpu").manual_seed(seed)
        for name, parameter in self.named_parameters():
            if name.endswith(".bias"):
                nn.init.zeros_(parameter)
            elif name.endswith(".weight") and parameter.ndim == 1:
                nn.init.ones_(parameter)
            else:
                # A truncated normal by the inverse of its distribution: 20 times as fast as torch's trunc_normal_.
                parameter.uniform_(-WITHIN_TWO_STD, WITHIN_TWO_STD, generator=generator).erfinv_()
                parameter.mul_(math.sqrt(2) * INIT_STD)


class Mlp(nn.Module):
    """Two linear layers with an exact GELU between them.

    Args:
        dim: Token width.
        hidden: Width of the hidden layer.
    """

    def __init__(self, *, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1: nn.Linear = Linear(dim, hidden, after="gelu")
        self.fc2: nn.Linear = Linear(hidden, dim)

    def forward(self, x: Float[Tensor, "batch token dim"]) -> Float[Tensor, "batch token dim"]:
        """Transform each token by itself."""
        out: Tensor = self.fc2(self.fc1(x))
        return out


class GatedMlp(nn.Module):
    """A gated MLP without bias: a third linear layer gates the SiLU of the first.

    Args:
        dim: Token width.
        hidden: Width of the hidden layer.

    Source: Shazeer 2020, arXiv:2002.05202 (SwiGLU).
    """

    def __init__(self, *, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1: nn.Linear = Linear(dim, hidden, bias=False, after="silu")
        self.fc2: nn.Linear = Linear(hidden, dim, bias=False)
        self.fc3: nn.Linear = Linear(dim, hidden, bias=False)

    def forward(self, x: Float[Tensor, "batch token dim"]) -> Float[Tensor, "batch token dim"]:
        """Transform each token by itself."""
        out: Tensor = self.fc2(self.fc1(x) * self.fc3(x))
        return out


def layer_norm(dim: int) -> nn.Module:
    """Build the usual LayerNorm of a block, with learned weight and bias."""
    return nn.LayerNorm(dim, eps=NORM_EPS)


def add(x: Float[Tensor, "*batch dim"], change: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
    """Add a layer's output, which may have lower precision; torch takes 2.5 times as long unless it is cast first."""
    return x + change.to(x.dtype)


class Block(nn.Module):
    """Pre-norm transformer block: attention, then MLP, each added to its input.

    Args:
        dim: Token width.
        heads: Number of heads.
        gated: Whether to use a gated MLP of 8/3 times the width and no bias in any linear layer, instead of a plain
            MLP of 4 times the width.
        norm: Builds a norm layer from the token width.
    """

    def __init__(
        self, *, dim: int, heads: int, gated: bool = False, norm: Callable[[int], nn.Module] = layer_norm
    ) -> None:
        super().__init__()
        self.norm1: nn.Module = norm(dim)
        self.attn: Attention = Attention(dim=dim, heads=heads, bias=not gated)
        self.norm2: nn.Module = norm(dim)
        self.mlp: GatedMlp | Mlp = GatedMlp(dim=dim, hidden=8 * dim // 3) if gated else Mlp(dim=dim, hidden=4 * dim)

    def forward(
        self, x: Float[Tensor, "batch token dim"], distances: Distances | None = None
    ) -> Float[Tensor, "batch token dim"]:
        """Run the block, with an optional distance penalty on its attention."""
        mixed = add(x, self.attn(self.norm1(x), distances))
        return add(mixed, self.mlp(self.norm2(mixed)))


def counted_layers(layers: Sequence[int] | None, depth: int) -> tuple[int, ...]:
    """Convert layer indices, which may count from -1 backwards, to indices from 0; `None` selects the last block.

    Raises:
        SpecError: An index is out of range or given twice, or there are none.
    """
    if layers is None:
        return (depth - 1,)
    found = tuple(layer % depth for layer in layers)
    if not found or not all(-depth <= layer < depth for layer in layers) or len(set(found)) < len(found):
        raise SpecError(
            f"Expected layers from 0 to {depth - 1}, or from -1 to -{depth}, each once, got {list(layers)}.",
            fix="leave `layers` out to use the last one",
        )
    return found


def run_blocks(
    blocks: nn.ModuleList, x: Float[Tensor, "batch token dim"], layers: Sequence[int], *beside: object
) -> list[Float[Tensor, "batch token dim"]]:
    """Run blocks up to the deepest requested one, and return the outputs of the requested ones.

    Args:
        blocks: All blocks.
        x: Input of the first block.
        layers: Indices of blocks from 0, each once; the outputs are in this order.
        beside: Further arguments of every block.
    """
    behind: dict[int, Tensor] = {}
    for number, block in enumerate(blocks[: max(layers) + 1]):
        x = block(x, *beside)
        if number in layers:
            behind[number] = x
    return [behind[number] for number in layers]


def side_by_side(states: Sequence[Float[Tensor, "batch token dim"]]) -> Float[Tensor, "batch token wide"]:
    """Concatenate outputs along the token width; return a single one as it is."""
    return states[0] if len(states) == 1 else torch.cat(list(states), dim=-1)


def sincos_1d(position: float, dim: int) -> Float[Tensor, " dim"]:
    """Encode a number as sines, then cosines, at `dim / 2` frequencies from 1 down to almost 1/10000.

    Computed in float64 on the CPU, as positions reach 192, where float32 sines are off by 1e-5; returned as float32.

    Args:
        position: Any real number.
        dim: Even length of the code.

    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.5, with sines and cosines not interleaved.
    """
    index = torch.arange(dim // 2, dtype=torch.float64, device="cpu")
    angle = position * 10000.0 ** (-index / (dim // 2))
    return torch.cat([angle.sin(), angle.cos()]).float()
