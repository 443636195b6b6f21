"""Select device and precision, and copy pixels to the device and tokens back.

The fetching threads prepare inputs on the device of the network. Each copies its chip through pinned memory, then
standardises and resizes it on a separate CUDA stream, in parallel with the batch that the network encodes. The code is
the same on the CPU; only the current device differs (`torch.get_default_device()`).
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
    """Return the device with a name; "auto" selects CUDA if available.

    Raises:
        DeviceError: The name is invalid or the device does not exist.
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
    if chosen.type == "cpu":
        return chosen
    if chosen.type != "cuda":
        raise DeviceError(f"Expected 'cpu' or 'cuda', got {device!r}.", fix='use device="auto"')
    count = torch.cuda.device_count()  # looks for a driver, for 0.04 ms
    if (chosen.index or 0) >= count:
        raise DeviceError(
            f"Expected {device!r}, got {count} CUDA devices.",
            torch=torch.__version__,
            fix='use device="cpu" or "auto", or install a driver that this torch build supports',
        )
    return chosen


def pick_precision(precision: Precision, device: torch.device) -> WorkingPrecision:
    """Return the precision; for "auto", bf16 if the device multiplies it faster than float32, else fp32."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        quick = torch.cuda.get_device_capability(device) >= (8, 0)  # matrix units for bf16 since Ampere
    else:
        # oneDNN's own check will not do: it also emulates bf16, slowly, on processors without it.
        quick = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16" if quick else "fp32"


@contextmanager
def beside_the_network(device: torch.device) -> Iterator[None]:
    """Make `device` the current device of this thread, on a side stream; on exit, wait for the stream.

    Its tensors are then complete, and the network's stream need not wait for the side stream.
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
    """Return the side stream, shared by all threads because memory blocks belong to the stream of their allocation."""
    return torch.cuda.Stream(device)


def placed(values: NDArray[np.float32]) -> Tensor:
    """Return the values as a tensor on the current device; on the CPU they are not copied."""
    tensor, device = torch.from_numpy(values), torch.get_default_device()
    if device.type == "cpu":
        return tensor
    return _host_buffer(tensor, device).copy_(tensor).to(device, non_blocking=True)


def to_host(values: Tensor) -> Tensor:
    """Return a tensor as float32 on the CPU; from a GPU through pinned memory, which is several times as fast."""
    values = values.float()
    return values if values.device.type == "cpu" else _host_buffer(values, values.device).copy_(values)


def _host_buffer(like: Tensor, device: torch.device) -> Tensor:
    """Allocate host memory, pinned for CUDA; torch reuses freed pinned memory."""
    pinned = device.type == "cuda" and torch.cuda.is_available()
    return torch.empty(like.shape, dtype=like.dtype, device="cpu", pin_memory=pinned)
