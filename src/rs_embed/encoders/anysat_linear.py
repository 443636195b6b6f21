"""Linear maps that are quick on the CPU: the same numbers, up to rounding, at about twice the speed of torch's."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

SQUARE = 4
"""Rows are handed to the convolution as images of 4 x 4 pixels; of larger ones too many rows would be padding."""

FEWEST_ROWS = 512
"""From here on the convolution wins (measured: 190 against 99 GFLOP/s at 576 rows, 80 against 90 at 128)."""

FEWEST_INPUTS = 64
"""Narrower maps are bound by memory, where it does not win (measured for 10 inputs)."""


class Linear(nn.Linear):
    """`nn.Linear` for much work without gradients.

    In float32 it is a 1 x 1 convolution: torch computes that with oneDNN, and `F.linear` with MKL, which on AMD
    processors has half the speed (220 against 105 GFLOP/s on one core of an EPYC with AVX-512).
    """

    _cast: tuple[Tensor, Tensor] | None = None

    @classmethod
    def like(cls, linear: nn.Linear) -> "Linear":
        """Make one that holds the parameters of `linear`, which must have a bias."""
        made = cls(linear.in_features, linear.out_features, device="meta")
        made.weight, made.bias = linear.weight, linear.bias
        return made

    def forward(
        self, x: Float[Tensor, "*batch inputs"], outputs: slice | None = None
    ) -> Float[Tensor, "*batch outputs"]:
        """Map the last axis.

        Args:
            x: Any number of vectors.
            outputs: Which outputs to compute; all by default.
        """
        weight, bias = self._cast or (self.weight, self.bias)
        if outputs is not None:
            weight, bias = weight[outputs], bias[outputs]
        return _convolve(x, weight, bias) if _is_worth_it(x) else F.linear(x, weight, bias)


def quicken(module: nn.Module) -> None:
    """Put a `Linear` in the place of every `nn.Linear` below `module`; parameters and their names stay."""
    for parent in module.modules():
        for name, child in parent.named_children():
            if type(child) is nn.Linear:
                setattr(parent, name, Linear.like(child))


@contextmanager
def cast_once(module: nn.Module, device_type: str) -> Iterator[None]:
    """Under autocast, cast the weights of each `Linear` of `module` now, and not in each call.

    Autocast itself remembers casts of weights only if they want gradients, as those of a loaded network do not:
    casting 42 million weights for each chunk of patches would take as long as using them.
    """
    linears = [part for part in module.modules() if isinstance(part, Linear)]
    if torch.is_grad_enabled() or not torch.is_autocast_enabled(device_type):
        linears = []
    try:
        for linear in linears:
            dtype = torch.get_autocast_dtype(device_type)
            linear._cast = (linear.weight.to(dtype), linear.bias.to(dtype))
        yield
    finally:
        for linear in linears:
            linear._cast = None


def _is_worth_it(x: Float[Tensor, "*batch inputs"]) -> bool:
    """Tell whether `_convolve` is legal and quicker; gradients keep to torch's own way."""
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and x.numel() >= FEWEST_ROWS * x.shape[-1]
        and x.shape[-1] >= FEWEST_INPUTS
        and torch.backends.mkldnn.is_available()
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
    )


def _convolve(
    x: Float[Tensor, "*batch inputs"], weight: Float[Tensor, "outputs inputs"], bias: Float[Tensor, " outputs"]
) -> Float[Tensor, "*batch outputs"]:
    """Compute `F.linear` as a convolution over small channels-last images, so that no value moves."""
    vectors = x.reshape(-1, x.shape[-1])
    rows = len(vectors)
    padded = F.pad(vectors, (0, 0, 0, -rows % SQUARE**2))
    images = padded.view(-1, SQUARE, SQUARE, x.shape[-1]).permute(0, 3, 1, 2)
    mapped = F.conv2d(images, weight[:, :, None, None], bias).permute(0, 2, 3, 1)
    return mapped.reshape(-1, len(weight))[:rows].view(*x.shape[:-1], len(weight))
