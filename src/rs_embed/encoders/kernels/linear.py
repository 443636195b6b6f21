"""Linear layers that are fast on the CPU: results equal torch's up to rounding, at more than twice the speed."""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

Kernels = Literal["auto", "packed", "torch"]
"""Implementation of matrix products: oneDNN with packed weights, torch's own choice, or the choice of `packs`."""
Activation = Literal["none", "gelu", "silu"]
"""Activation after a linear layer, in the same pass over memory. GELU is exact."""
PACKED = (torch.float32, torch.bfloat16)
"""Types that oneDNN multiplies fast."""
Ready = tuple[Tensor, Tensor | None]
"""Weight, perhaps packed, and bias."""
HEAP_BYTES = 31 << 20
"""Just under the largest array that glibc's malloc can be made to keep."""
_KERNELS: ContextVar[Kernels] = ContextVar("kernels", default="auto")
_AFTER: dict[Activation, tuple[str, str]] = {"none": ("none", ""), "gelu": ("gelu", "none"), "silu": ("swish", "")}
"""Name and algorithm of each activation in oneDNN's operators; the algorithm of exact GELU is called "none"."""


@contextmanager
def using(kernels: Kernels) -> Iterator[None]:
    """Select the implementation of matrix products for the block, in this thread; "auto" keeps the outer selection."""
    token = _KERNELS.set(_KERNELS.get() if kernels == "auto" else kernels)
    try:
        yield
    finally:
        _KERNELS.reset(token)


def packs(dtype: torch.dtype, device_type: str) -> bool:
    """Return whether linear layers without gradients use packed weights and oneDNN.

    Unless `using` selects otherwise, they do on a CPU with at least AVX2, for types that oneDNN multiplies fast. The
    exception is float32 on Intel processors, where torch's own choice (MKL) is as fast without a second copy of the
    weights. Measured only on an EPYC with AVX-512.
    """
    choice = _KERNELS.get()
    if choice == "torch" or device_type != "cpu" or dtype not in PACKED or torch.is_grad_enabled():
        return False
    if not _has_operators() or (choice == "auto" and not _pays(dtype)):
        return False
    return dtype == torch.float32 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@lru_cache
def _has_operators() -> bool:
    """Return whether this build of torch has the operators used here, which are not public."""
    try:
        torch.ops.mkldnn._linear_pointwise, torch.ops.mkldnn._reorder_linear_weight  # noqa: B018
    except AttributeError:
        return False
    return bool(torch.backends.mkldnn.is_available())


@lru_cache
def _pays(dtype: torch.dtype) -> bool:
    if torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        return False
    cpu = Path("/proc/cpuinfo")  # Linux only; elsewhere torch's own product, as on Intel
    return dtype == torch.bfloat16 or (cpu.exists() and "GenuineIntel" not in cpu.read_text(encoding="utf-8"))


def multiply(
    x: Float[Tensor, "*batch inputs"],
    weight: Float[Tensor, "outputs inputs"],
    bias: Float[Tensor, " outputs"] | None = None,
    after: Activation = "none",
) -> Float[Tensor, "*batch outputs"]:
    """Compute `after(x @ weight.T + bias)` by oneDNN; `weight` may be packed."""
    kind, variant = _AFTER[after]
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, kind, [], variant)
    return product


def linear(
    x: Float[Tensor, "*batch inputs"],
    weight: Float[Tensor, "outputs inputs"],
    bias: Float[Tensor, " outputs"] | None = None,
) -> Float[Tensor, "*batch outputs"]:
    """Compute `x @ weight.T + bias` for weights that are not packed, with the faster of torch and oneDNN."""
    dtype = working_dtype(x.device.type)
    if not packs(dtype, x.device.type) or x.dtype == torch.float64:
        return F.linear(x, weight, bias)
    return multiply(x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype))


def working_dtype(device_type: str) -> torch.dtype:
    """Return the type in which products of float32 values are computed: float32, or that of autocast."""
    return torch.get_autocast_dtype(device_type) if torch.is_autocast_enabled(device_type) else torch.float32


class Linear(nn.Linear):
    """`nn.Linear` whose weights `prepared` can pack into the order in which the processor reads them.

    Torch computes float32 with MKL, which on AMD processors is less than half as fast as oneDNN (105 instead of 240
    GFLOP/s on one core of an EPYC with AVX-512), and packs bfloat16 weights again in each call (450 instead of 500).
    Packing costs 0.7 ns per weight, as much as 70 rows save, so packed weights are cached. They take as much memory
    again in float32, half as much in bfloat16.
    """

    _ready: "Ready | None" = None
    _kept: "tuple[Hashable, Ready] | None" = None

    def __init__(self, inputs: int, outputs: int, *, bias: bool = True, after: Activation = "none") -> None:
        """Create a layer from `inputs` to `outputs` values, with an activation."""
        super().__init__(inputs, outputs, bias=bias)
        self._after = after

    def forward(self, x: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch outputs"]:
        """Map the last axis."""
        weight, bias = self._ready or (self.weight, self.bias)
        if weight.is_mkldnn:
            return multiply(x.to(weight.dtype), weight, bias, self._after)
        mapped = F.linear(x, weight, bias)
        if self._after == "none":
            return mapped
        return F.gelu(mapped) if self._after == "gelu" else F.silu(mapped)

    def prepare(self, dtype: torch.dtype, *, pack: bool) -> None:
        """Cast the weights to `dtype` and optionally pack them; until `release`, changes of the weights are ignored."""
        key = (dtype, pack, *(_stamp(values) for values in (self.weight, self.bias)))
        if self._kept is None or self._kept[0] != key:
            self._kept = None  # first, so that two never exist at once
            weight, bias = self.weight.to(dtype), None if self.bias is None else self.bias.to(dtype)
            self._kept = key, ((torch.ops.mkldnn._reorder_linear_weight(weight) if pack else weight), bias)
        self._ready = self._kept[1]

    def release(self) -> None:
        """Use the parameters themselves again."""
        self._ready = None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Linear":
        self._kept = None
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def __getstate__(self) -> dict[str, object]:
        """Leave the packed weights out of copies and pickles."""
        return {name: value for name, value in vars(self).items() if name not in ("_kept", "_ready")}


def _stamp(values: Tensor | None) -> Hashable:
    """Return address and version of a tensor; inference tensors cannot change in place outside inference mode."""
    if values is None:
        return None
    return values.data_ptr(), 0 if values.is_inference() else values._version


@contextmanager
def prepared(*modules: nn.Module, device_type: str) -> Iterator[None]:
    """Prepare each `Linear` below `modules` for use without gradients; do nothing if gradients are enabled.

    Under autocast this also casts the weights once. Autocast itself caches casts only of weights that require
    gradients, which those of a loaded network do not: casting 42 million weights for each chunk of patches would take
    as long as using them.

    Args:
        modules: Modules whose layers to prepare.
        device_type: Type of the device on which they run.
    """
    linears = [part for module in modules for part in module.modules() if isinstance(part, Linear)]
    dtype = working_dtype(device_type)
    pack = packs(dtype, device_type)
    if torch.is_grad_enabled() or not (pack or torch.is_autocast_enabled(device_type)):
        linears = []
    if linears and device_type == "cpu":
        keep_freed_memory()
    try:
        for linear in linears:
            linear.prepare(dtype, pack=pack)
        yield
    finally:
        for linear in linears:
            linear.release()


def keep_freed_memory() -> None:
    """Make malloc reuse the memory freed by each chunk of work, instead of returning it to the system.

    Freeing a large array makes glibc keep arrays up to its size, and twice that at the top of the heap; it has no
    effect on other allocators. Otherwise the temporal part has 13 page faults per pixel, which take 10 % of its time in
    bf16 and 20 % in float32. The array itself is never touched, so it costs nothing.
    """
    torch.empty(HEAP_BYTES, dtype=torch.uint8, device="cpu")
