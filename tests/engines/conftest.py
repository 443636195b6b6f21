"""A cluster for all tests of the engines."""

import signal
from pathlib import Path

import pytest
from engines_help import Nodes

_RUNNING: list[Nodes] = []


@pytest.fixture(scope="session")
def nodes():
    """One for all, as it takes long to start."""
    handler = signal.getsignal(signal.SIGTERM)
    _RUNNING.append(Nodes())
    signal.signal(signal.SIGTERM, handler)
    return _RUNNING[-1]


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Tests of other things do not share the machine with a cluster."""
    if nextitem is None or Path(__file__).parent not in nextitem.path.parents:
        while _RUNNING:
            _RUNNING.pop().close()


@pytest.fixture(autouse=True)
def one_thread():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
