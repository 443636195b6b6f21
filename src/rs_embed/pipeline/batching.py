"""How many inputs go through the network at once: as many as the memory of the device holds."""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from logging import Logger
from typing import Protocol

import torch

from rs_embed.errors import OutOfMemory
from rs_embed.redact import logger

log: Logger = logger(__name__)
BATCH_CPU = 4
"""On a CPU a larger batch buys nothing (MODELS.md, section 6)."""
FIRST_BATCH = 8
"""Where memory decides: the batch that the memory of an input is measured on."""
LARGEST_BATCH = 256
"""Beyond it the products of a small network fill a GPU; their results would only wait for each other on the host."""
MARGIN = 0.8
"""Share of the free memory that a batch may take: it lies in pieces, and kernels choose other workspaces."""
_WORDS = (
    *("can't allocate memory", "out of memory", "bad_alloc", "could not create a primitive"),
    *("CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED"),
)
"""What torch and its libraries (oneDNN: a primitive) say where they raise a plain RuntimeError."""


class Memory(Protocol):
    """The memory of one device."""

    def free_bytes(self) -> int:
        """What may still be allocated."""
        ...

    def begin(self) -> None:
        """Watch from here on."""
        ...

    def peak_bytes(self) -> int:
        """The most that was allocated since `begin`, above what was allocated then."""
        ...

    def release(self) -> None:
        """Give back what is kept for reuse, after memory ran out."""
        ...


class CudaMemory:
    """That of a CUDA device, as its driver and torch's allocator tell."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._before = 0

    def free_bytes(self) -> int:
        """What the driver has, and what the allocator keeps without using it."""
        free, _ = torch.cuda.mem_get_info(self._device)
        return free + torch.cuda.memory_reserved(self._device) - torch.cuda.memory_allocated(self._device)

    def begin(self) -> None:
        """Reset the allocator's peak. Allocations are made when kernels are queued, so nothing needs to be awaited."""
        torch.cuda.reset_peak_memory_stats(self._device)
        self._before = torch.cuda.memory_allocated(self._device)

    def peak_bytes(self) -> int:
        """By the allocator's peak."""
        return torch.cuda.max_memory_allocated(self._device) - self._before

    def release(self) -> None:
        """Give unused blocks back to the driver: they may be of the wrong sizes for a smaller batch."""
        with torch.cuda.device(self._device):
            torch.cuda.empty_cache()


MemoryOf = Callable[[torch.device], Memory | None]


def memory_of(device: torch.device) -> Memory | None:
    """The memory that batches are sized by; `None` on a CPU, where a declared number is as good."""
    return CudaMemory(device) if device.type == "cuda" else None


class BatchSizes:
    """The batch size of each signature, for one network on one device.

    On a CPU `BATCH_CPU`. Where memory can be measured, the first batch of a signature has `FIRST_BATCH` inputs; the
    memory that it took says how many fit, and each larger batch says so better. Sizes are powers of two, so that the
    shapes of the kernels repeat. A batch that did not fit is halved, and no later one of its signature is larger.

    Args:
        memory: `None` for the declared number.
        fixed: Set by hand; then only halved.
    """

    def __init__(self, memory: Memory | None, fixed: int | None = None) -> None:
        self._memory = memory
        self._first = fixed or (BATCH_CPU if memory is None else FIRST_BATCH)
        self._measures = memory is not None and fixed is None
        self._costs: dict[Hashable, tuple[int, float]] = {}
        self._most: dict[Hashable, int] = {}
        self.goal: int = self._first
        """How many inputs are worth gathering: the size of the signature that was asked for last."""

    def of(self, signature: Hashable) -> int:
        """How many inputs of this signature to encode at once."""
        size = self._first
        if self._memory is not None and signature in self._costs:
            _, cost = self._costs[signature]
            fits = int(self._memory.free_bytes() * MARGIN / max(cost, 1.0))
            size = min(LARGEST_BATCH, 1 << max(0, fits.bit_length() - 1))
        self.goal = min(size, self._most.get(signature, size))
        return self.goal

    @contextmanager
    def measured(self, signature: Hashable, count: int) -> Iterator[None]:
        """Watch what a batch of `count` inputs takes. What is the same for every batch weighs less in a larger one."""
        if self._memory is None or not self._measures:
            yield
            return
        self._memory.begin()
        yield
        known, _ = self._costs.get(signature, (0, 0.0))
        if count >= known:
            self._costs[signature] = count, self._memory.peak_bytes() / count
        self.of(signature)

    def ran_out(self, signature: Hashable, count: int) -> None:
        """A batch of `count` inputs, two or more, did not fit."""
        self._most[signature] = count // 2
        log.warning("%d inputs at once did not fit into memory; going on with %d at most", count, count // 2)
        if self._memory is not None:
            self._memory.release()
        self.of(signature)


def out_of_memory(error: Exception, what: str, device: torch.device) -> OutOfMemory | None:
    """A lack of memory in our words, `None` if it is another error.

    The error itself is not kept: its traceback holds the tensors that filled the memory.
    """
    said = (str(error) or type(error).__name__).splitlines()[0]
    plain = isinstance(error, RuntimeError) and any(word in said for word in _WORDS)
    if not plain and not isinstance(error, torch.OutOfMemoryError | MemoryError):
        return None
    return OutOfMemory(
        f"Expected to encode {what} at once, got too little memory on {device}.",
        found=said[:300],
        fix='input_prep="tile" or a smaller image or place, a larger patch, precision="bf16", or another device',
    )
