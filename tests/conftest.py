"""Shared by the whole suite: array shapes in annotations are checked, and the environment is the tests' own."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import warm
from jaxtyping import install_import_hook

# Before anything imports these modules: from here on beartype checks every annotated shape.
install_import_hook(["rs_embed.encoders", "rs_embed.embedders._vit_mae_utils"], "beartype.beartype")

ALONE = "TEST_IS_ALONE"
ALONE_S = 300
"""For a test that forks: before the limit of all tests ends this process, its own tells where it hangs."""

# As wide as a pipe, whatever the tests run under: the command line measures its terminal when it is imported.
os.environ["COLUMNS"] = "120"

# A shell makes what it starts in the background deaf to Ctrl-C, and all processes started from there inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    """Register what also concerns notebooks, which lie outside of this folder."""
    import notebook_weights

    config.pluginmanager.register(notebook_weights)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """A test marked `alone` runs in a process of its own: to fork this one, with the threads of others, may hang."""
    if pyfuncitem.get_closest_marker("alone") is None or ALONE in os.environ:
        return None
    options = ["-o", "addopts=", "-p", "pytest_timeout", "-p", "no:cacheprovider", f"--timeout={ALONE_S}"]
    code = "import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))"
    root, variables = pyfuncitem.config.rootpath, {ALONE: "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    answer = warm.run(code, *options, pyfuncitem.nodeid, cwd=root, env=os.environ | variables)
    if answer.returncode != 0:
        pytest.fail(answer.stdout + answer.stderr, pytrace=False)
    return True


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own RS_EMBED_* variables must not decide a test."""
    for name in [name for name in os.environ if name.upper().startswith("RS_EMBED_")]:
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def registers_of_its_own() -> Iterator[None]:
    """Collections that a test registers are gone after it: another test may mean something else by the name."""
    from rs_embed.core import bands

    before = dict(bands._collections)
    yield
    bands._collections.clear()
    bands._collections.update(before)


@pytest.fixture(scope="session")
def thor_tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A seeded THOR tiny in the layout of the published file: `encoder.` prefix and a decoder beside it."""
    import torch

    from rs_embed.encoders.thor.encoder import ThorEncoder

    encoder = ThorEncoder(dim=192, depth=12, heads=3, band_dim=32)
    encoder.init_random(seed=7)
    state = {f"encoder.{name}": tensor for name, tensor in encoder.state_dict().items()}
    state["decoder_embed.weight"] = torch.zeros(4, 4)
    path = tmp_path_factory.mktemp("weights") / "thor_v1_vit_tiny.pt"
    torch.save({"state_dict": state}, path)
    return path
