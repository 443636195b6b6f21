"""A cluster for all tests of the engines."""

import signal

import pytest
from engines_help import Nodes


@pytest.fixture(scope="session")
def nodes():
    handler = signal.getsignal(signal.SIGTERM)
    found = Nodes()
    yield found
    found.close()
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture(autouse=True)
def one_thread():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
