"""Linear maps that are quick on the CPU: the same numbers, up to rounding, at more than twice the speed of torch's."""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

PACKED = (torch.float32, torch.bfloat16)
"""What oneDNN multiplies quickly."""
Ready = tuple[Tensor, Tensor | None]
"""Weight, perhaps packed, and bias."""
HEAP_BYTES = 31 << 20
"""Just under the largest array that glibc's malloc can be brought to keep."""


class Linear(nn.Linear):
    """`nn.Linear` whose weights `prepared` may put in the order that the processor reads them in.

    Torch computes float32 with MKL, which on AMD processors has less than half the speed of oneDNN (105 against 240
    GFLOP/s on one core of an EPYC with AVX-512), and packs bfloat16 weights anew in each call (450 against 500).
    Packing itself costs 0.7 ns per weight, as much as 70 rows save, so packed weights are kept: as much memory again
    in float32, half of it in bfloat16.
    """

    _ready: "Ready | None" = None
    _kept: "tuple[Hashable, Ready] | None" = None

    def __init__(self, inputs: int, outputs: int, *, bias: bool = True, gelu: bool = False) -> None:
        """Make a map from `inputs` to `outputs` values, with an exact GELU after it or not."""
        super().__init__(inputs, outputs, bias=bias)
        self._gelu = gelu

    def forward(self, x: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch outputs"]:
        """Map the last axis."""
        weight, bias = self._ready or (self.weight, self.bias)
        if not weight.is_mkldnn:
            mapped = F.linear(x, weight, bias)
            return F.gelu(mapped) if self._gelu else mapped
        # GELU on the way out of the product: 3 % of the time of an MLP. "none" is what exact GELU is called here.
        after = ("gelu", "none") if self._gelu else ("none", "")
        packed: Tensor = torch.ops.mkldnn._linear_pointwise(x.to(weight.dtype), weight, bias, after[0], [], after[1])
        return packed

    def prepare(self, dtype: torch.dtype, *, pack: bool) -> None:
        """Cast the weights to `dtype` and pack them, or not; until `release`, changes of the weights go unseen."""
        key = (dtype, pack, *(_stamp(values) for values in (self.weight, self.bias)))
        if self._kept is None or self._kept[0] != key:
            self._kept = None  # first, so that two never exist at once
            weight, bias = self.weight.to(dtype), None if self.bias is None else self.bias.to(dtype)
            self._kept = key, ((torch.ops.mkldnn._reorder_linear_weight(weight) if pack else weight), bias)
        self._ready = self._kept[1]

    def release(self) -> None:
        """Go back to the parameters themselves."""
        self._ready = None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Linear":
        self._kept = None
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def __getstate__(self) -> dict[str, object]:
        """Copies and pickles go without what is packed."""
        return {name: value for name, value in vars(self).items() if name not in ("_kept", "_ready")}


def _stamp(values: Tensor | None) -> Hashable:
    """Where values lie and how often they were changed in place; inference tensors cannot be, outside of it."""
    if values is None:
        return None
    return values.data_ptr(), 0 if values.is_inference() else values._version


@contextmanager
def prepared(*modules: nn.Module, device_type: str) -> Iterator[None]:
    """Prepare each `Linear` below `modules` for work without gradients; where they are wanted, do nothing.

    Under autocast this also casts the weights once. Autocast itself remembers casts only of weights that want
    gradients, as those of a loaded network do not: casting 42 million weights for each chunk of patches would take
    as long as using them.

    Args:
        modules: Whose maps to prepare.
        device_type: Where they will work.
    """
    linears = [part for module in modules for part in module.modules() if isinstance(part, Linear)]
    autocast = torch.is_autocast_enabled(device_type)
    dtype = torch.get_autocast_dtype(device_type) if autocast else torch.float32
    pack = device_type == "cpu" and _can_pack(dtype)
    if torch.is_grad_enabled() or not (pack or autocast):
        linears = []
    if linears and device_type == "cpu":
        _keep_freed_memory()
    try:
        for linear in linears:
            linear.prepare(dtype, pack=pack)
        yield
    finally:
        for linear in linears:
            linear.release()


def _can_pack(dtype: torch.dtype) -> bool:
    """Tell whether this torch, on this processor, has packed maps of `dtype`."""
    if not torch.backends.mkldnn.is_available() or dtype not in PACKED:
        return False
    return dtype == torch.float32 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _keep_freed_memory() -> None:
    """Let malloc reuse what chunk after chunk of work frees, instead of giving it back to the system each time.

    Freeing a large array makes glibc keep arrays up to its size, and twice of that at the top of the heap; other
    allocators do not mind. Without, the temporal part met 13 page faults per pixel, which took 10 % of its time in
    bf16 and 20 % in float32. The array itself is never touched, so it costs nothing.
    """
    torch.empty(HEAP_BYTES, dtype=torch.uint8, device="cpu")
