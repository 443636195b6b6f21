"""Weights: found, fetched, checked, read and loaded, or refused with the reason."""

import argparse
import functools
import hashlib
import os
import pickle
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
import warm
from canary import CANARY, QUOTED, told
from hub_server import Fault, HubServer, commit_of
from safetensors.torch import save_file
from torch import Tensor, nn

from rs_embed.embedders.card import Weights
from rs_embed.embedders.weights.hub import Patience
from rs_embed.embedders.weights.load import WeightsFile, load_strict, locate
from rs_embed.embedders.weights.reading import read_state_dict
from rs_embed.errors import (
    WeightsCorrupt,
    WeightsError,
    WeightsMismatch,
    WeightsNotFound,
    WeightsUnreachable,
)

Method = Literal["HEAD", "GET"]
REPO, FILE = "FM4CS/tiny", "sub/model.pt"
BODY = bytes(range(256)) * 40
SHA256 = hashlib.sha256(BODY).hexdigest()
COMMIT = commit_of({FILE: BODY})
WEIGHTS = Weights(hub=REPO, file=FILE, licence="MIT")
PINNED = replace(WEIGHTS, revision=COMMIT, sha256=SHA256, size_bytes=len(BODY))


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer({REPO: {"main": {FILE: BODY}}}) as server:
        yield server


class Asking:
    """`locate` against one hub and one cache; keeps what it slept."""

    def __init__(self, hub: HubServer, cache_dir: Path) -> None:
        self.hub = hub
        self.cache_dir = cache_dir
        self.slept: list[float] = []

    def __call__(
        self, weights: Weights = WEIGHTS, *, offline: bool = False, timeout_s: float = 10.0, tries: int = 4
    ) -> WeightsFile:
        retry = Patience((0.5, 2.0, 5.0)[: tries - 1], timeout_s=timeout_s, sleep=self.slept.append)
        return locate(
            weights,
            ckpt=None,
            offline=offline,
            cache_dir=self.cache_dir,
            endpoint=self.hub.endpoint,
            retry=retry,
        )

    def gets(self) -> int:
        return sum(line.startswith("GET") for line in self.hub.requests)


@pytest.fixture
def ask(hub: HubServer, tmp_path: Path) -> Asking:
    return Asking(hub, tmp_path / "cache")


def child(code: str, **environment: str) -> str:
    """What `code` prints in a process of its own, where sleeping takes no time."""
    head = """
        import sys, time, warnings
        warnings.simplefilter("error")
        time.sleep = lambda seconds: None
        from pathlib import Path
        from rs_embed.embedders.weights.load import *
    """
    done = warm.run(textwrap.dedent(head) + textwrap.dedent(code), env={**os.environ, **environment})
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# --- Where the file comes from ---------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [WEIGHTS, PINNED], ids=["newest", "pinned"])
def test_the_first_call_downloads_and_records_commit_and_hash(ask: Asking, weights: Weights) -> None:
    found = ask(weights)
    assert found.path.read_bytes() == BODY
    assert (found.origin, found.hub, found.revision, found.sha256) == ("hub", REPO, COMMIT, SHA256)
    assert found.id == f"hub:{REPO}@{COMMIT}:{FILE}#sha256:{SHA256}"


@pytest.mark.parametrize("weights", [WEIGHTS, PINNED], ids=["newest", "pinned"])
@pytest.mark.parametrize("offline", [False, True])
def test_a_warm_cache_contacts_nobody(ask: Asking, weights: Weights, offline: bool) -> None:
    first = ask(weights)
    ask.hub.requests.clear()
    assert ask(weights, offline=offline) == first
    assert ask.hub.requests == []


def test_a_checkpoint_path_comes_before_the_cache_and_is_hashed(ask: Asking, tmp_path: Path) -> None:
    ask()
    mine = tmp_path / "mine.pt"
    torch.save({"a": torch.ones(1)}, mine)
    found = locate(PINNED, ckpt=str(mine), offline=False, cache_dir=ask.cache_dir)
    assert (found.path, found.origin, found.hub, found.revision) == (mine, "ckpt", None, None)
    assert found.id == f"ckpt:mine.pt#sha256:{hashlib.sha256(mine.read_bytes()).hexdigest()}"


@pytest.mark.slow
def test_a_checkpoint_path_imports_no_hub_client(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1)}, tmp_path / "mine.pt")
    code = """
        locate(Weights("a/b", "c.pt", "MIT"), ckpt="mine.pt", offline=True, cache_dir=None)
        print("huggingface_hub" in sys.modules)
    """
    assert child(f"import os; os.chdir({str(tmp_path)!r})\n" + textwrap.dedent(code)) == "False"


def test_a_missing_checkpoint_path_names_itself_and_the_variable(tmp_path: Path) -> None:
    with pytest.raises(WeightsNotFound, match=r"nowhere\.pt") as caught:
        locate(WEIGHTS, ckpt=tmp_path / "nowhere.pt", offline=False, cache_dir=None)
    assert "CKPT" in str(caught.value)


def test_offline_with_a_cold_cache_says_what_to_do(ask: Asking) -> None:
    with pytest.raises(WeightsUnreachable) as caught:
        ask(offline=True)
    message = str(caught.value)
    for part in (
        REPO,
        FILE,
        str(ask.cache_dir),
        "CKPT",
        "RS_EMBED_OFFLINE",
        "a machine that reaches the hub",
    ):
        assert part in message
    assert ask.hub.requests == []


@pytest.mark.slow
def test_the_environment_alone_reaches_hub_and_cache(hub: HubServer, tmp_path: Path) -> None:
    code = f"""
        print(locate(Weights({REPO!r}, {FILE!r}, "MIT"), ckpt=None, offline=False, cache_dir=None).path)
    """
    path = child(code, HF_ENDPOINT=hub.endpoint, HF_HOME=str(tmp_path))
    assert Path(path).read_bytes() == BODY and tmp_path in Path(path).parents
    asked = [line.split()[0] for line in hub.requests if "/resolve/" in line]
    assert asked == ["HEAD", "HEAD", "GET"]


@pytest.mark.slow
def test_the_hub_clients_own_offline_variable_is_respected(hub: HubServer, tmp_path: Path) -> None:
    code = f"""
        try:
            locate(Weights({REPO!r}, {FILE!r}, "MIT"), ckpt=None, offline=False, cache_dir=None)
        except Exception as error:
            print(type(error).__name__, error)
    """
    said = child(code, HF_ENDPOINT=hub.endpoint, HF_HOME=str(tmp_path), HF_HUB_OFFLINE="1")
    assert said.startswith("WeightsUnreachable") and "HF_HUB_OFFLINE" in said
    assert hub.requests == []


# --- A hub with troubles that pass -----------------------------------------------------------------------


@pytest.mark.parametrize("method", ["HEAD", "GET"])
@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_server_error_is_waited_out(ask: Asking, method: Method, status: int) -> None:
    ask.hub.faults.append(Fault("status", status=status, times=2, method=method))
    assert ask().sha256 == SHA256
    assert ask.slept == [0.5, 2.0]


@pytest.mark.parametrize(("asked", "slept"), [("7", 7.0), ("3600", 30.0), ("Wed, 21 Oct 2026 07:28:00 GMT", 0.5)])
def test_retry_after_is_honoured_up_to_a_cap(ask: Asking, asked: str, slept: float) -> None:
    ask.hub.faults.append(Fault("status", status=429, times=1, headers={"Retry-After": asked}))
    assert ask().sha256 == SHA256
    assert ask.slept == [slept]


def test_a_connection_reset_before_the_answer_is_tried_again(ask: Asking) -> None:
    ask.hub.faults.append(Fault("reset", times=3, method="HEAD"))
    assert ask().sha256 == SHA256
    assert ask.slept == [0.5, 2.0, 5.0]


def test_a_hub_that_hangs_once_is_asked_again(ask: Asking) -> None:
    ask.hub.faults.append(Fault("hang", times=1, method="HEAD"))
    assert ask(timeout_s=0.3).sha256 == SHA256


@pytest.mark.slow
def test_a_body_that_is_cut_is_continued(ask: Asking) -> None:
    ask.hub.faults.append(Fault("cut", times=1))
    assert ask().sha256 == SHA256


def test_a_body_that_is_spoilt_once_is_fetched_again(ask: Asking) -> None:
    ask.hub.faults.append(Fault("corrupt", times=1))
    assert ask().path.read_bytes() == BODY
    assert ask.gets() == 2


# --- A hub with troubles that stay -----------------------------------------------------------------------


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_a_hub_that_is_down_is_unreachable_after_four_tries(ask: Asking, method: Method) -> None:
    ask.hub.faults.append(Fault("status", status=503, method=method))
    with pytest.raises(WeightsUnreachable, match="503") as caught:
        ask()
    assert ask.slept == [0.5, 2.0, 5.0]
    assert REPO in str(caught.value) and str(ask.cache_dir) in str(caught.value)


def test_a_hub_that_always_hangs_is_unreachable(ask: Asking) -> None:
    ask.hub.faults.append(Fault("hang", method="HEAD"))
    with pytest.raises(WeightsUnreachable, match="Timeout"):
        ask(timeout_s=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "said"), [("hang", "Timeout"), ("cut", "ProtocolError")])
def test_a_body_that_never_comes_is_unreachable(
    hub: HubServer, tmp_path: Path, kind: Literal["hang", "cut"], said: str
) -> None:
    hub.faults.append(Fault(kind, method="GET"))
    code = f"""
        try:
            locate(Weights({REPO!r}, {FILE!r}, "MIT"), ckpt=None, offline=False, cache_dir=None)
        except Exception as error:
            print(type(error).__name__, error)
    """
    environment = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path), "HF_HUB_DOWNLOAD_TIMEOUT": "1"}
    message = child(code, **environment)
    assert message.startswith("WeightsUnreachable") and said in message
    assert not list(tmp_path.rglob("*.incomplete"))


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9", "http://no-such-host.invalid", "localhost:8000"])
def test_no_hub_at_the_endpoint_is_unreachable(tmp_path: Path, endpoint: str) -> None:
    with pytest.raises(WeightsUnreachable) as caught:
        locate(WEIGHTS, ckpt=None, offline=False, cache_dir=tmp_path, endpoint=endpoint, retry=Patience(waits_s=()))
    assert endpoint in str(caught.value) and "HF_ENDPOINT" in str(caught.value)


def test_a_server_that_is_no_hub_is_unreachable(ask: Asking) -> None:
    ask.hub.faults.append(Fault("status", status=200))
    with pytest.raises(WeightsUnreachable, match="HF_ENDPOINT"):
        ask()
    assert ask.slept == []


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("method", ["HEAD", "GET"])
@pytest.mark.parametrize("code", ["GatedRepo", ""])
def test_a_closed_door_names_the_page_and_the_login(ask: Asking, status: int, method: Method, code: str) -> None:
    headers = {"X-Error-Code": code} if code else {}
    ask.hub.faults.append(Fault("status", status=status, headers=headers, method=method))
    with pytest.raises(WeightsUnreachable) as caught:
        ask()
    message = str(caught.value)
    assert all(part in message for part in ("accept the licence", f"/{REPO}", "hf auth login", "HF_TOKEN"))
    assert ask.slept == []


@pytest.mark.parametrize("status", [400, 403, 404, 503])
def test_what_the_hub_quotes_is_told_without_its_secrets(ask: Asking, caplog, status: int) -> None:
    ask.hub.faults.append(Fault("status", status=status, headers={"X-Error-Message": QUOTED}))
    with caplog.at_level("DEBUG", "rs_embed"), pytest.raises(WeightsError) as caught:
        ask()
    assert "Refused" in told(caught.value)
    assert CANARY not in told(caught.value) + caplog.text


def test_a_password_in_the_address_of_a_hub_is_not_told(tmp_path: Path) -> None:
    endpoint = f"http://user:{CANARY}@127.0.0.1:9"
    with pytest.raises(WeightsUnreachable) as caught:
        locate(WEIGHTS, ckpt=None, offline=False, cache_dir=tmp_path, endpoint=endpoint, retry=Patience(()))
    assert "127.0.0.1:9" in told(caught.value) and CANARY not in told(caught.value)


@pytest.mark.parametrize(
    ("weights", "what"),
    [
        (replace(WEIGHTS, hub="FM4CS/other"), "repository 'FM4CS/other'"),
        (replace(WEIGHTS, revision="f" * 40), f"revision '{'f' * 40}'"),
        (replace(WEIGHTS, file="other.pt"), "file 'other.pt'"),
    ],
)
def test_what_the_hub_does_not_have_is_told_apart(ask: Asking, weights: Weights, what: str) -> None:
    with pytest.raises(WeightsNotFound, match=f"no {what}"):
        ask(weights)
    assert ask.slept == []


def test_a_cache_that_cannot_be_written_is_named(ask: Asking) -> None:
    ask.cache_dir.write_text("a file where the folder should be")
    with pytest.raises(WeightsError, match="Cannot use the cache") as caught:
        ask()
    assert str(ask.cache_dir) in str(caught.value)
    assert ask.slept == []


def test_a_download_over_xet_that_fails_is_unreachable(ask: Asking) -> None:
    ask.hub.extra_headers |= {"X-Xet-Hash": "ab" * 32, "X-Xet-Refresh-Route": f"{ask.hub.endpoint}/nothing"}
    with pytest.raises(WeightsError, match=REPO):
        ask()


# --- The right bytes -------------------------------------------------------------------------------------


def test_a_body_that_is_always_spoilt_is_corrupt_and_leaves_nothing_behind(ask: Asking) -> None:
    ask.hub.faults.append(Fault("corrupt"))
    with pytest.raises(WeightsCorrupt, match="sha256"):
        ask(PINNED)
    assert ask.gets() == 2
    assert not [path for path in ask.cache_dir.rglob("*") if path.name in (SHA256, "model.pt")]


def test_another_file_on_the_hub_than_the_card_says_is_not_even_downloaded(ask: Asking) -> None:
    with pytest.raises(WeightsCorrupt, match="not the file that the card describes"):
        ask(replace(PINNED, sha256="0" * 64))
    assert ask.gets() == 0


def test_a_cached_file_that_the_card_does_not_mean_is_refused_but_kept(ask: Asking) -> None:
    path = ask().path
    with pytest.raises(WeightsCorrupt, match="not the file that the card describes"):
        ask(replace(PINNED, sha256="0" * 64))
    assert path.read_bytes() == BODY


@pytest.mark.parametrize("spoil", [lambda body: body[:-1] + b"!", lambda body: body[:100]])
def test_a_cached_file_that_was_damaged_is_replaced(ask: Asking, spoil: Callable[[bytes], bytes]) -> None:
    path = ask().path
    path.resolve().write_bytes(spoil(BODY))
    assert ask().path.read_bytes() == BODY


def test_a_damaged_cached_file_is_refused_offline(ask: Asking) -> None:
    ask().path.resolve().write_bytes(BODY[:-1])
    with pytest.raises(WeightsCorrupt, match=r"model\.pt"):
        ask(offline=True)


def test_a_file_without_a_hash_on_the_hub_is_held_to_the_size_on_the_card(ask: Asking) -> None:
    ask.hub.lfs = False
    assert ask(replace(WEIGHTS, size_bytes=len(BODY))).sha256 == SHA256
    with pytest.raises(WeightsCorrupt, match="size"):
        ask(replace(WEIGHTS, size_bytes=5), offline=True)


def test_a_file_without_a_hash_on_the_hub_is_held_to_the_hash_on_the_card(ask: Asking) -> None:
    ask.hub.lfs = False
    ask.hub.faults.append(Fault("corrupt", times=1))
    assert ask(PINNED).path.read_bytes() == BODY


def test_the_hash_is_remembered_until_the_file_changes(ask: Asking) -> None:
    path = ask().path
    (note,) = ask.cache_dir.rglob(".rs_embed/*")
    assert note.read_text() == SHA256
    noted = note.stat().st_mtime_ns
    assert ask(offline=True).sha256 == SHA256
    assert note.stat().st_mtime_ns == noted  # believed, not written again
    before = path.stat()
    path.resolve().write_bytes(bytes(len(BODY)))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(WeightsCorrupt):  # the time of change of the entry is set by no tool
        ask(offline=True)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"not a hash", b"0" * 64])
def test_a_spoilt_note_is_ignored(ask: Asking, content: bytes) -> None:
    ask()
    (note,) = ask.cache_dir.rglob(".rs_embed/*")
    note.write_bytes(content)
    assert ask(offline=True).sha256 == SHA256


def test_the_cache_stays_one_that_the_hub_client_understands(ask: Asking) -> None:
    from huggingface_hub import scan_cache_dir

    ask()
    report = scan_cache_dir(ask.cache_dir)
    assert not report.warnings and [repo.repo_id for repo in report.repos] == [REPO]


# --- Reading ---------------------------------------------------------------------------------------------

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(1, dtype=torch.float16)}


def _write(path: Path, form: str) -> Path:
    if form == "safetensors":
        save_file(STATE, path)
    else:
        content = {"epoch": 3, "state_dict": STATE} if form == "nested" else STATE
        torch.save(content, path, _use_new_zipfile_serialization=form != "legacy")
    return path


@pytest.mark.parametrize("form", ["zip", "legacy", "nested", "safetensors"])
def test_every_format_reads_back_whatever_the_file_is_called(tmp_path: Path, form: str) -> None:
    state = read_state_dict(_write(tmp_path / "model.bin", form))
    wrapper = "state_dict." if form == "nested" else ""
    assert state.keys() == {wrapper + name for name in STATE}
    assert all(torch.equal(state[wrapper + name], STATE[name]) for name in STATE)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 376\n"


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "an empty file"),
        (b"<!DOCTYPE html><html>", "<!DOCTYPE html>"),
        (b"hello, world, this is text", "hello"),
        (POINTER, "git-LFS pointer"),
        (pickle.dumps([1, 2, 3], protocol=2), "Error"),
        (b"\x80\x02garbage", "Error"),
        (b"PK\x03\x04 but no archive follows", "not a zip file"),
        (b"\x10\0\0\0\0\0\0\0{ no header here", "Error"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_called_by_its_name(tmp_path: Path, content: bytes, found: str) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    with pytest.raises(WeightsCorrupt) as caught:
        read_state_dict(path)
    message = str(caught.value)
    assert found in message and str(path) in message and "fix:" in message


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("kept", [0.2, 0.6, 0.97])
def test_a_truncated_file_is_corrupt(tmp_path: Path, form: str, kept: float) -> None:
    path = _write(tmp_path / "model.pt", form)
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(WeightsCorrupt):
        read_state_dict(path)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ([torch.ones(1)], "list"),
        ({}, "dict"),
        ({"state_dict": {}}, "'state_dict' (dict)"),
        ({"optimizer": {"state": {0: {"exp_avg": torch.ones(1)}}}}, "'optimizer' (dict)"),
        ({"a": torch.ones(1), "lr": 0.1}, "'lr' (float)"),
        ({3: torch.ones(1)}, "3 (Tensor)"),
    ],
)
def test_anything_but_tensors_by_name_is_refused(tmp_path: Path, content: object, found: str) -> None:
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(WeightsCorrupt) as caught:
        read_state_dict(tmp_path / "model.pt")
    assert found in str(caught.value)


def test_a_folder_and_a_missing_file_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(WeightsCorrupt, match="folder"):
        read_state_dict(tmp_path)
    with pytest.raises(WeightsNotFound):
        read_state_dict(tmp_path / "nowhere.pt")


class Trap:
    """A pickle of this makes a file when it is loaded carelessly."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.proof),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_malicious_pickle_never_runs(tmp_path: Path, zipped: bool) -> None:
    path, proof = tmp_path / "model.pt", tmp_path / "proof"
    content = {"state_dict": STATE, "callbacks": Trap(proof)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsCorrupt, match="safetensors"):
        read_state_dict(path)
    assert not proof.exists()
    torch.load(path, weights_only=False)
    assert proof.exists()  # the trap was armed


# --- Filtering and loading -------------------------------------------------------------------------------


class Small(nn.Module):
    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.first = nn.Linear(2, width)
        self.norm = nn.BatchNorm1d(width)


def small(width: int = 3) -> Small:
    with torch.device("meta"):
        return Small(width)


def random_state() -> dict[str, Tensor]:
    return {
        name: torch.rand(tensor.shape) if tensor.is_floating_point() else torch.tensor(7)
        for name, tensor in Small().state_dict().items()
    }


def test_loaded_weights_are_frozen_float32_in_eval_mode() -> None:
    module, state = small(), random_state()
    state["first.weight"] = state["first.weight"].to(torch.float16)
    load_strict(module, state, source="test")
    assert torch.equal(module.first.weight, state["first.weight"].float())
    assert int(module.norm.num_batches_tracked or 0) == 7
    assert {tensor.dtype for tensor in module.parameters()} == {torch.float32}
    assert not module.training and not module.norm.training
    assert not any(parameter.requires_grad for parameter in module.parameters())


def test_a_checkpoint_that_is_saved_over_does_not_reach_into_the_module(tmp_path: Path) -> None:
    module, state, path = small(), random_state(), tmp_path / "model.pt"
    torch.save(state, path)
    load_strict(module, read_state_dict(path), source="test")
    path.write_bytes(bytes(path.stat().st_size))
    assert torch.equal(module.first.weight, state["first.weight"])


def test_a_mismatch_lists_what_is_missing_unexpected_and_of_another_shape() -> None:
    state = random_state()
    del state["first.bias"]
    state["norm.weight"] = torch.rand(4)
    state["norm.num_batches_tracked"] = torch.tensor(1.5)
    state |= {f"head.{i}": torch.rand(1) for i in range(7)}
    with pytest.raises(WeightsMismatch) as caught:
        load_strict(small(), state, source="ckpt:mine.pt")
    message = str(caught.value)
    assert "1 tensors missing, 7 unexpected, 2 of another shape" in message
    assert "first.bias" in message and "head.4, ... and 2 more" in message and "head.5" not in message
    assert "norm.weight [4], expected [3]" in message and "[], expected [] int64" in message
    assert "ckpt:mine.pt" in message


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_value_that_is_not_finite_names_its_tensor(value: float) -> None:
    state = random_state()
    state["norm.running_mean"][1] = value
    with pytest.raises(WeightsCorrupt, match=r"norm\.running_mean") as caught:
        load_strict(small(), state, source="test")
    assert "1 of 3" in str(caught.value)


def test_large_finite_values_whose_sum_overflows_are_accepted() -> None:
    state = random_state()
    state["first.weight"].fill_(3e38)
    load_strict(small(), state, source="test")


def test_a_buffer_that_no_checkpoint_holds_is_refused_on_meta() -> None:
    with torch.device("meta"):
        module = Small()
        module.register_buffer("angles", torch.ones(2), persistent=False)
    with pytest.raises(WeightsMismatch, match="angles"):
        load_strict(module, random_state(), source="test")


# --- Damage that no reader notices by itself ---------------------------------------------------------------


def flip(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def test_no_flipped_bit_of_a_zip_gives_other_numbers(tmp_path: Path) -> None:
    """Every 97th bit of the whole file: contents, names, offsets, sums."""
    state = {"a.weight": torch.linspace(0, 1, 300), "b": torch.arange(40), "c.bias": torch.ones(1)}
    whole, path = tmp_path / "whole.pt", tmp_path / "model.pt"
    torch.save(state, whole)
    silent, refused = 0, 0
    for bit in range(0, 8 * whole.stat().st_size, 97):
        path.write_bytes(whole.read_bytes())
        flip(path, bit)
        try:
            found = read_state_dict(path)
        except WeightsCorrupt:
            refused += 1
        else:  # of what nobody reads: padding, dates
            silent += found.keys() != state.keys() or not all(torch.equal(found[name], state[name]) for name in state)
    assert silent == 0
    assert refused > 100


def test_the_entry_that_was_damaged_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"a.weight": torch.full((500,), 1.5)}, path)
    flip(path, 8 * path.read_bytes().index(torch.full((50,), 1.5).numpy().tobytes()) + 3)
    with pytest.raises(WeightsCorrupt, match="damaged: the CRC-32 of 'model/data/0' does not match") as caught:
        read_state_dict(path)
    assert "download the file again" in str(caught.value)


def test_a_zip_that_was_saved_without_sums_is_taken_as_it_is(tmp_path: Path) -> None:
    from torch.serialization import set_crc32_options

    set_crc32_options(False)
    try:
        torch.save(STATE, tmp_path / "model.pt")
    finally:
        set_crc32_options(True)
    assert read_state_dict(tmp_path / "model.pt").keys() == STATE.keys()


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("noted", [False, True])
def test_a_hash_beside_the_file_holds_it_to_every_bit(tmp_path: Path, form: str, noted: bool) -> None:
    path = _write(tmp_path / "model.bin", form)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    (tmp_path / "model.bin.sha256").write_text(f"{digest.upper()}  model.bin\n")

    def find() -> WeightsFile:
        cache = tmp_path / "cache" if noted else None
        return locate(WEIGHTS, ckpt=path, offline=True, cache_dir=cache)

    assert find().sha256 == digest
    flip(path, 8 * path.stat().st_size - 9)
    with pytest.raises(WeightsCorrupt, match=r"not the file that model\.bin\.sha256 describes") as caught:
        find()
    assert digest in str(caught.value)


@pytest.mark.parametrize("content", ["", "model.bin", "f" * 63, "g" * 64])
def test_a_hash_that_is_none_is_refused(tmp_path: Path, content: str) -> None:
    path = _write(tmp_path / "model.bin", "zip")
    (tmp_path / "model.bin.sha256").write_text(content)
    with pytest.raises(WeightsCorrupt, match="begin with a sha256") as caught:
        locate(WEIGHTS, ckpt=path, offline=True, cache_dir=None)
    assert "sha256sum model.bin > model.bin.sha256" in str(caught.value)


# --- Pickles that hold more than tensors -------------------------------------------------------------------


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("extra", "named"),
    [
        (argparse.Namespace(lr=0.1), "argparse.Namespace"),
        (Path("logs"), "pathlib."),
        (nn.Linear(1, 1), "torch.nn.modules.linear.Linear"),
        (functools.partial(print), "functools.partial"),
    ],
)
def test_a_file_with_python_objects_says_so_and_gives_no_advice_to_run_them(
    tmp_path: Path, extra: object, named: str, zipped: bool
) -> None:
    path = tmp_path / "model.pt"
    torch.save({"model": STATE, "args": extra}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsCorrupt, match="it holds Python objects other than tensors: ") as caught:
        read_state_dict(path)
    message = str(caught.value)
    assert named in message and "safetensors.torch.save_file" in message
    assert "weights_only" not in message and "Re-running" not in message and "\x1b" not in message
    assert caught.value.__cause__ is None and caught.value.__suppress_context__


def test_a_pickle_that_is_damaged_is_not_called_unsafe(tmp_path: Path) -> None:
    path = _write(tmp_path / "model.pt", "legacy")
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(WeightsCorrupt) as caught:
        read_state_dict(path)
    assert "Python objects" not in str(caught.value) and "weights_only" not in str(caught.value)
