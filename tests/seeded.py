"""Weights that depend only on the name and the shape of a tensor: two implementations of a network get the same."""

from collections.abc import Mapping
from zlib import crc32

import torch
from torch import Tensor


def seeded_state(like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Small random values for every tensor, and factors about 1 where a layer scales."""
    state = {}
    for name, tensor in like.items():
        noise = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(crc32(name.encode()))) * 0.04
        scales = "gamma" in name or (name.endswith("weight") and tensor.ndim == 1)
        state[name] = noise + 1 if scales else noise
    return state
