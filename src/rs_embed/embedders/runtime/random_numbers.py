"""Random numbers of our own: whatever is drawn here leaves those of the process as they were."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_ONE_AT_A_TIME = threading.Lock()
"""The sampler draws from the random numbers of the process."""


@contextmanager
def own_random_numbers(seed: int | None = None) -> Iterator[None]:
    """Whatever the block draws or seeds, the random numbers of the process go on as if it had not been there."""
    devices = list(range(torch.cuda.device_count()))
    with _ONE_AT_A_TIME, torch.random.fork_rng(devices=devices):
        if seed is not None:
            torch.manual_seed(seed)
        yield
