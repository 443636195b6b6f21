"""Batch sizes: as many inputs at once as the memory of the device holds."""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from logging import Logger
from typing import Protocol

import torch

from rs_embed.errors import OutOfMemory
from rs_embed.redact import logger

log: Logger = logger(__name__)
BATCH_CPU = 4
"""Batch size on a CPU; a larger one is not faster (MODELS.md, section 6)."""
FIRST_BATCH = 8
"""First batch size where memory is measured: the memory per input is taken from this batch."""
LARGEST_BATCH = 256
"""Upper limit of a batch. At this size even a small network fills a GPU, and larger batches only delay results."""
MARGIN = 0.8
"""Share of the free memory that a batch may take. The rest allows for fragmentation and the kernels' workspaces."""
_WORDS = (
    *("can't allocate memory", "out of memory", "bad_alloc", "could not create a primitive"),
    *("CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED"),
)
"""Parts of out-of-memory messages for which torch and its libraries (oneDNN: "primitive") raise a plain
RuntimeError."""


class Memory(Protocol):
    """The memory of one device."""

    def free_bytes(self) -> int:
        """Return how much may still be allocated."""
        ...

    def begin(self) -> None:
        """Start measuring."""
        ...

    def peak_bytes(self) -> int:
        """Return the peak since `begin`, less what was allocated at `begin`."""
        ...

    def release(self) -> None:
        """Release memory kept for reuse, after an allocation failed."""
        ...


class CudaMemory:
    """The memory of a CUDA device, from its driver and torch's allocator."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._before = 0

    def free_bytes(self) -> int:
        """Return the driver's free memory plus what the allocator holds unused."""
        free, _ = torch.cuda.mem_get_info(self._device)
        return free + torch.cuda.memory_reserved(self._device) - torch.cuda.memory_allocated(self._device)

    def begin(self) -> None:
        """Reset the allocator's peak. Allocations are made when kernels are queued, so nothing needs to be awaited."""
        torch.cuda.reset_peak_memory_stats(self._device)
        self._before = torch.cuda.memory_allocated(self._device)

    def peak_bytes(self) -> int:
        """Return the allocator's peak, less what was allocated at `begin`."""
        return torch.cuda.max_memory_allocated(self._device) - self._before

    def release(self) -> None:
        """Return unused blocks to the driver, because their sizes may not suit a smaller batch."""
        with torch.cuda.device(self._device):
            torch.cuda.empty_cache()


MemoryOf = Callable[[torch.device], Memory | None]


def memory_of(device: torch.device) -> Memory | None:
    """Return the memory that batches are sized by; `None` on a CPU, where the batch size is fixed."""
    return CudaMemory(device) if device.type == "cuda" else None


class BatchSizes:
    """The batch size of each signature, for one network on one device.

    On a CPU the size is `BATCH_CPU`. Where memory can be measured, the first batch of a signature has `FIRST_BATCH`
    inputs. The memory it takes gives the size of the next, and each larger batch improves the estimate. Sizes are
    powers of two, so that the kernels see few different shapes. A batch that does not fit is halved, and later batches
    of that signature are no larger.

    Args:
        memory: The memory to measure; `None` for a fixed size.
        fixed: A batch size set by the user, changed only if it does not fit.
    """

    def __init__(self, memory: Memory | None, fixed: int | None = None) -> None:
        self._memory = memory
        self._first = fixed or (BATCH_CPU if memory is None else FIRST_BATCH)
        self._measures = memory is not None and fixed is None
        self._costs: dict[Hashable, tuple[int, float]] = {}
        self._most: dict[Hashable, int] = {}
        self.goal: int = self._first
        """How many inputs to gather before encoding: the size for the most recent signature."""

    def of(self, signature: Hashable) -> int:
        """Return how many inputs of this signature to encode at once."""
        size = self._first
        if self._memory is not None and signature in self._costs:
            _, cost = self._costs[signature]
            fits = int(self._memory.free_bytes() * MARGIN / max(cost, 1.0))
            size = min(LARGEST_BATCH, 1 << max(0, fits.bit_length() - 1))
        self.goal = min(size, self._most.get(signature, size))
        return self.goal

    @contextmanager
    def measured(self, signature: Hashable, count: int) -> Iterator[None]:
        """Measure the memory of a batch of `count` inputs.

        The largest batch counts: costs that are the same for every batch distort its estimate per input least.
        """
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
        """Record that a batch of `count` inputs, at least two, did not fit."""
        self._most[signature] = count // 2
        log.warning("A batch of %d inputs did not fit into memory; continuing with at most %d", count, count // 2)
        if self._memory is not None:
            self._memory.release()
        self.of(signature)


def out_of_memory(error: Exception, what: str, device: torch.device) -> OutOfMemory | None:
    """Return an `OutOfMemory` error if that is what `error` means, else `None`.

    The original error is dropped, because its traceback holds the tensors that filled the memory.
    """
    message = (str(error) or type(error).__name__).splitlines()[0]
    plain = isinstance(error, RuntimeError) and any(word in message for word in _WORDS)
    if not plain and not isinstance(error, torch.OutOfMemoryError | MemoryError):
        return None
    return OutOfMemory(
        f"Expected memory to encode {what} at once, got too little on {device}.",
        found=message[:300],
        fix='set input_prep="tile" or precision="bf16", use a smaller image or place, a larger patch or another device',
    )
