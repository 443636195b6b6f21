"""Random numbers that leave the global generators unchanged."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_ONE_AT_A_TIME = threading.Lock()
"""The sampler draws from the global generators, so only one may run at a time."""


@contextmanager
def own_random_numbers(seed: int | None = None) -> Iterator[None]:
    """Restore the global random number generators after the block, whatever it draws or seeds."""
    devices = list(range(torch.cuda.device_count()))
    with _ONE_AT_A_TIME, torch.random.fork_rng(devices=devices):
        if seed is not None:
            torch.manual_seed(seed)
        yield
