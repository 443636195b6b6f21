"""Weights and pixels that depend on names only, so that two programs can make them without a file."""

import zlib
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

LEAST_STD = 0.05


def values(name: str, shape: Sequence[int]) -> torch.Tensor:
    """Values that keep activations near 1, and leave nothing at its default."""
    drawn = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(tuple(shape), np.float32)
    if len(shape) < 2:
        around = 1.0 if name.endswith(("weight", "gamma", "scale")) else 0.0
        return torch.from_numpy(np.float32(around) + np.float32(0.1) * drawn)
    return torch.from_numpy(drawn * np.float32(max(LEAST_STD, 0.7 / np.sqrt(np.prod(shape[1:])))))


def state_of(module: torch.nn.Module, *, but: Sequence[str] = (), prefix: str = "") -> dict[str, torch.Tensor]:
    """A value for each tensor of a network; those named in `but` are its own. `prefix` is not part of a name."""
    return {
        name: tensor if name in but else values(name.removeprefix(prefix), tensor.shape)
        for name, tensor in module.state_dict().items()
    }


def pixels(name: str, *shape: int) -> NDArray[np.float32]:
    """Standard normal pixels."""
    return np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape, np.float32)
