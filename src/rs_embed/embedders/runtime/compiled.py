"""`compile=True`: the blocks of a network as torch.compile makes them, for those who ask.

Blocks, not encoders: they are where the time goes, they are alike, so one of them is compiled for all, and what is
around them depends on the request. On a CPU it does not pay (docs/gpu.md has the figures), because compiled code cannot
hold packed weights. On CUDA the mode is "reduce-overhead": shapes that come again are played back as CUDA graphs.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from rs_embed.encoders.layers import Block
from rs_embed.errors import CompileError


def compile_blocks(module: nn.Module, device: torch.device) -> None:
    """Have each block compiled when it is first called with a new signature: tens of seconds on a CPU."""
    from rs_embed.encoders.anysat.attention import RelativeBlock  # of one family, and only where it is asked for

    mode = "reduce-overhead" if device.type == "cuda" else "default"
    for part in module.modules():
        if isinstance(part, Block | RelativeBlock):
            part.compile(mode=mode)


@contextmanager
def as_compiled(device: torch.device) -> Iterator[None]:
    """What compiled blocks are called in; inference mode is not for them.

    Raises:
        CompileError: torch.compile does not work here.
    """
    from torch._dynamo.exc import TorchDynamoException  # 1 s, which only those who compile pay

    if device.type == "cuda":
        torch.compiler.cudagraph_mark_step_begin()
    try:
        with torch.no_grad():
            yield
    except TorchDynamoException as error:
        said = next((line for line in str(error).splitlines() if line.strip()), "")
        raise CompileError(
            f"torch.compile could not compile the network for {device}.",
            found=f"{type(error).__name__}: {said[:300]}",
            torch=torch.__version__,
            fix="leave compile out; on a CPU torch.compile wants a C++ compiler (CXX), on CUDA Triton",
        ) from error
