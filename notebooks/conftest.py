"""Notebooks run with trained weights where these lie beside the checkout."""

from collections.abc import Generator

import pytest
from shared_data import trained


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Name the weights to the kernel, which has its own process, and to nothing else."""
    with pytest.MonkeyPatch.context() as patch:
        try:
            patch.setenv("RS_EMBED_GALILEO_CKPT", str(trained("galileo_nano/encoder.pt")))
        except pytest.skip.Exception:
            pass  # the notebooks say what they do without
        return (yield)
