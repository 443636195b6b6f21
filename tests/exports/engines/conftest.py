"""A cluster for each file of tests of the engines."""

import signal
from collections.abc import Iterator

import pytest
from engines_help import Nodes


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    """One for all tests of a file, as it takes long to start; gone before those of the next begin."""
    handler = signal.getsignal(signal.SIGTERM)
    made = Nodes()
    signal.signal(signal.SIGTERM, handler)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def one_thread():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
