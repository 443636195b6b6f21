"""A plugin: notebooks run with trained weights where these lie beside the checkout.

No `conftest.py` in their folder: pytest would look for modules there, and find `notebooks/terratorch`.
"""

from collections.abc import Generator
from contextlib import suppress

import pytest
from shared_data import trained


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Name the weights to the kernel, which has its own process, and to nothing else."""
    with pytest.MonkeyPatch.context() as patch:
        if item.path.suffix == ".ipynb":
            with suppress(pytest.skip.Exception):  # the notebooks say what they do without
                patch.setenv("RS_EMBED_GALILEO_CKPT", str(trained("galileo_nano/encoder.pt")))
        return (yield)
