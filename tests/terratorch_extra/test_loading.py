"""TerraTorch comes late, and leaves no trace."""

import json
import logging
import os
import subprocess
import sys
import threading
from importlib.util import find_spec

import pytest

from rs_embed.core.progress import announce
from rs_embed.embedders.runtime.terratorch import leaving_no_trace, load_terratorch
from rs_embed.errors import MissingDependency

INSTALLED = find_spec("terratorch") is not None
with_terratorch = pytest.mark.skipif(not INSTALLED, reason="terratorch is not installed here: `make parity`")

STATE = """
import json, logging, os, random, signal, sys, threading, warnings
import numpy as np, torch
from rs_embed.embedders.runtime.terratorch import OWN_PACKAGES, load_terratorch
for name in OWN_PACKAGES: __import__(name)
for name in ("urllib3", "mine"): logging.getLogger(name).addHandler(logging.NullHandler())
warnings.simplefilter("error", ResourceWarning)
torch.set_num_threads(1)

def state():
    loggers = {
        name: [one.level, one.propagate, one.disabled, str(one.handlers), str(one.filters)]
        for name, one in logging.root.manager.loggerDict.items() if isinstance(one, logging.Logger)
    }
    return {
        "environment": dict(os.environ),
        "warnings": [str(warnings.filters), str(warnings.showwarning), str(warnings.formatwarning)],
        "root logger": [logging.root.level, str(logging.root.handlers), logging.root.manager.disable],
        "kind of logger": [str(logging.getLoggerClass()), str(logging.getLogRecordFactory())],
        **{f"logger {name}": told for name, told in loggers.items() if name in KNOWN},
        "precision": torch.get_float32_matmul_precision(),
        "tf32": [torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32],
        "cudnn": [torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic],
        "torch": [str(torch.get_default_dtype()), torch.is_grad_enabled(), torch.get_num_threads()],
        "random": [hash(random.getstate()), str(np.random.get_state()), torch.get_rng_state().tolist()],
        "numpy": [np.geterr(), str(np.get_printoptions())],
        "signals": str({number: signal.getsignal(number) for number in signal.valid_signals()}),
        "hooks": [str(hook) for hook in (sys.excepthook, sys.displayhook, threading.excepthook, sys.unraisablehook)],
        "interpreter": [sys.path[:], sys.getrecursionlimit(), sys.getswitchinterval(), os.getcwd()],
        "streams": [str(sys.stdout), str(sys.stderr)],
        "threads": [thread.name for thread in threading.enumerate()],
    }

KNOWN = {name for name, one in logging.root.manager.loggerDict.items() if isinstance(one, logging.Logger)}
before = state()
loaded = load_terratorch()
after = state()
assert "terratorch" in sys.modules and "terramind_v1_tiny" in loaded.own_backbones
print(json.dumps({name: [before[name], after[name]] for name in before if before[name] != after[name]}))
"""


def run(code: str, *options: str, **variables: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, **variables}
    return subprocess.run(
        [sys.executable, *options, "-c", code], capture_output=True, text=True, env=environment, timeout=240
    )


@with_terratorch
def test_loading_terratorch_leaves_the_process_as_it_was_and_says_nothing_by_itself():
    done = run(STATE)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {}
    assert done.stderr == ""


def test_one_thread_puts_the_process_back_before_the_next_may_change_it():
    seen: list[bool] = []

    def other() -> None:
        with leaving_no_trace():
            seen.append("A_TRACE" in os.environ)

    second = threading.Thread(target=other)
    with leaving_no_trace():
        os.environ["A_TRACE"] = "1"
        second.start()
        second.join(0.3)
        assert seen == []
    second.join(20)
    assert seen == [False] and "A_TRACE" not in os.environ


@pytest.mark.slow
def test_a_torchvision_for_another_device_is_an_error_with_its_fix_each_time(tmp_path):
    for name in ("terratorch", "torchvision"):
        (tmp_path / f"{name}-1.2.11.dist-info").mkdir()
        (tmp_path / f"{name}-1.2.11.dist-info/METADATA").write_text(f"Name: {name}\nVersion: 1.2.11\n")
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    done = run(
        """
from rs_embed.embedders.runtime.terratorch import load_terratorch
from rs_embed.errors import MissingDependency
for _ in range(2):
    try:
        load_terratorch()
    except MissingDependency as error:
        print(error.facts["found"], error.fix, sep=" | ")
""",
        PYTHONPATH=str(tmp_path),
    )
    assert done.returncode == 0, done.stderr
    told = (
        "RuntimeError: operator torchvision::nms does not exist"
        " | uv pip install --reinstall --torch-backend=auto torch torchvision"
    )
    assert done.stdout.splitlines() == [told] * 2


@with_terratorch
def test_a_half_written_file_is_told_of_before_the_long_import(tmp_path):
    half = tmp_path / "half.pt"
    half.write_bytes(b"PK\x03\x04" + bytes(1000))
    done = run(f"""
import sys, numpy as np
from rs_embed import errors, generate, get_embedding, tokenize
x, file = np.full((12, 32, 32), 800, "float32"), {str(half)!r}
for ask in (
    lambda: generate("terramind_1_0_tiny", input_chw=x, output_modalities="LULC", ckpt=file),
    lambda: get_embedding("terramind_1_0_tiny", input_chw=x, tim_modalities="LULC", ckpt=file),
    lambda: tokenize("S2L2A", x, ckpt=file),
    lambda: get_embedding("clay", input_chw=x[:10], ckpt=file),
):
    try:
        ask()
    except errors.WeightsCorrupt as error:
        print("half.pt" in str(error), "terratorch" in sys.modules)
""")
    assert done.stdout.split("\n") == ["True False"] * 4 + [""], done.stderr


def test_a_long_wait_is_told_on_a_terminal_or_in_the_log_and_nowhere_else(monkeypatch, capsys, caplog):
    log = logging.getLogger("rs_embed.test_waits")
    announce(log, "wait")
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    announce(log, "wait")
    assert "wait" in capsys.readouterr().err
    with caplog.at_level(logging.INFO, log.name):
        announce(log, "wait")
    assert caplog.messages == ["wait"] and capsys.readouterr().err == ""


@pytest.mark.skipif(INSTALLED, reason="terratorch is installed here")
def test_a_folder_of_that_name_is_not_taken_for_the_package(tmp_path, monkeypatch):
    (tmp_path / "terratorch").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingDependency, match=r"eo-rs-embed\[terratorch\]"):
        load_terratorch()


@pytest.mark.skipif(INSTALLED, reason="terratorch is installed here")
def test_without_the_extra_the_error_says_how_to_get_it():
    with pytest.raises(MissingDependency, match=r"eo-rs-embed\[terratorch\]"):
        load_terratorch()


@pytest.mark.skipif(INSTALLED, reason="terratorch is installed here")
def test_without_the_extra_the_backbones_say_how_to_get_it():
    with pytest.raises(MissingDependency, match=r"eo-rs-embed\[terratorch\]"):
        import rs_embed.terratorch  # noqa: F401
