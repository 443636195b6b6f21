"""Which device and precision, pixels on their way there, and tokens on their way back.

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

from rs_embed.core.checks import short
from rs_embed.core.specs import Precision, WorkingPrecision
from rs_embed.errors import DeviceError


def pick_device(device: str) -> torch.device:
    """The device of that name; "auto" takes CUDA where there is one.

    Raises:
        DeviceError: There is no such device here.
    """
    if not isinstance(device, str):
        raise DeviceError(f"Expected the name of a device, got {short(device)}.", fix='use device="auto"')
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise DeviceError(
            f"Expected a device such as 'auto', 'cpu' or 'cuda:0', got {device!r}.", fix='use device="auto"'
        ) from error
    count = torch.cuda.device_count()
    if chosen.type == "cuda" and (chosen.index or 0) >= count:
        raise DeviceError(
            f"Expected {device!r}, got {count} CUDA devices.",
            torch=torch.__version__,
            fix='use device="cpu" or "auto", or install a driver that this torch build supports',
        )
    if chosen.type not in ("cpu", "cuda"):
        raise DeviceError(f"Expected 'cpu' or 'cuda', got {device!r}.", fix='use device="auto"')
    return chosen


def pick_precision(precision: Precision, device: torch.device) -> WorkingPrecision:
    """The precision itself; for "auto", bf16 where the device multiplies it faster than float32, else fp32."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        quick = torch.cuda.get_device_capability(device) >= (8, 0)  # Ampere has matrix units for it
    else:
        # Not what oneDNN supports: it also computes bf16 where the processor cannot, slowly.
        quick = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16" if quick else "fp32"


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
