"""Pixels on their way to the device, and tokens on their way back.

Inputs are made where the network runs, by the threads that fetch: each copies its chip through pinned memory and
standardises and resizes it on a stream beside that of the network, so that both hide behind the batch before. The
code is the same on the CPU: what differs is the device that is in force (`torch.get_default_device()`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@contextmanager
def beside_the_network(device: torch.device) -> Iterator[None]:
    """Put `device` in force for this thread; at the end, wait for what the thread has queued there.

    After that the tensors are as good as any on the device: the network's stream need not wait for this one.
    """
    if device.type != "cuda":
        yield
        return
    side = _side_stream(device)
    with device, torch.cuda.stream(side):
        yield
    side.synchronize()


@lru_cache(maxsize=8)
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all threads, since blocks of memory belong to the stream that they were made on."""
    return torch.cuda.Stream(device)


def placed(values: NDArray[np.float32]) -> Tensor:
    """The values on the device in force; on the CPU they are not copied."""
    tensor, device = torch.from_numpy(values), torch.get_default_device()
    if device.type == "cpu":
        return tensor
    return _host_buffer(tensor, device).copy_(tensor).to(device, non_blocking=True)


def brought_back(values: Tensor) -> Tensor:
    """Float32 on the CPU; from a GPU into pinned memory, which is several times as fast."""
    values = values.float()
    return values if values.device.type == "cpu" else _host_buffer(values, values.device).copy_(values)


def _host_buffer(like: Tensor, device: torch.device) -> Tensor:
    """Memory that CUDA copies from and to by itself; torch keeps what is freed for the next one."""
    pinned = device.type == "cuda" and torch.cuda.is_available()
    return torch.empty(like.shape, dtype=like.dtype, device="cpu", pin_memory=pinned)
