"""Converted weights: the second start maps what the first one made, and nothing damaged or foreign is ever used."""

import logging
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hub_server import HubServer
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rs_embed import plan_embedding
from rs_embed.core.hashing import sha256_of
from rs_embed.core.settings import LibrarySettings
from rs_embed.embedders.base import Network
from rs_embed.embedders.card import Weights
from rs_embed.embedders.onthefly_thor import ThorEmbedder
from rs_embed.embedders.weights.converted import ABANDONED_S, Converted, digest_of
from rs_embed.embedders.weights.hashes import SETTLED_S
from rs_embed.embedders.weights.layout import Picked
from rs_embed.embedders.weights.load import load_strict, locate
from rs_embed.embedders.weights.reading import is_pickled
from rs_embed.errors import WeightsCorrupt, WeightsMismatch

pytestmark = pytest.mark.slow

SHA = "ab" * 32
LOGGER = "rs_embed.embedders.weights.converted"


def start(ckpt: Path, cache: Path | None, **settings: object) -> Network:
    """THOR tiny with this file, as a process loads it that has no network yet."""
    plan = plan_embedding("thor_1_0_tiny", backend="sample", ckpt=ckpt)
    return ThorEmbedder.build(plan.job.request, LibrarySettings.read({"cache_dir": cache, **settings}))


def kept(cache: Path) -> list[Path]:
    return sorted(cache.rglob("*.safetensors"))


def same(one: nn.Module, other: nn.Module) -> bool:
    mine, yours = one.state_dict(), other.state_dict()
    return mine.keys() == yours.keys() and all(torch.equal(mine[name], yours[name]) for name in mine)


def test_a_second_start_maps_what_the_first_one_converted(thor_tiny_checkpoint, tmp_path):
    first = start(thor_tiny_checkpoint, tmp_path)
    (file,) = kept(tmp_path)
    state = load_file(file)
    assert state.keys() == first.module.state_dict().keys()  # the decoder in the source is left out
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}
    second = start(thor_tiny_checkpoint, tmp_path)
    assert str(file) in Path("/proc/self/maps").read_text()
    assert same(first.module, second.module)
    assert first.weights_id == second.weights_id
    assert not second.module.training
    assert not any(parameter.requires_grad for parameter in second.module.parameters())


def test_what_is_kept_is_what_is_used(thor_tiny_checkpoint, tmp_path):
    first = start(thor_tiny_checkpoint, tmp_path)
    (file,) = kept(tmp_path)
    file.unlink()
    sha256 = sha256_of(thor_tiny_checkpoint)
    doubled = {name: 2 * tensor for name, tensor in first.module.state_dict().items()}
    Converted.of(first.module, sha256, file.parent).write(Picked(doubled, None))
    again = start(thor_tiny_checkpoint, tmp_path).module.state_dict()
    assert all(torch.equal(again[name], doubled[name]) for name in doubled)


@pytest.mark.parametrize("place", [3, 500, 4096 * 9 + 1, -1])
def test_one_damaged_byte_anywhere_is_found_warned_about_and_mended(thor_tiny_checkpoint, tmp_path, caplog, place):
    first = start(thor_tiny_checkpoint, tmp_path)
    (file,) = kept(tmp_path)
    content = bytearray(file.read_bytes())
    content[place] ^= 0x40
    file.write_bytes(content)
    with caplog.at_level(logging.WARNING, LOGGER):
        assert same(start(thor_tiny_checkpoint, tmp_path).module, first.module)
    assert f"Cannot use {file} (its digest differs" in caplog.text
    assert kept(tmp_path) == [file]
    caplog.clear()
    start(thor_tiny_checkpoint, tmp_path)
    assert not caplog.records


@pytest.mark.parametrize("spoil", [lambda body: b"", lambda body: body[:5000], lambda body: body + b"x"])
def test_a_file_that_was_cut_or_grew_is_not_used(thor_tiny_checkpoint, tmp_path, caplog, spoil):
    first = start(thor_tiny_checkpoint, tmp_path)
    (file,) = kept(tmp_path)
    file.write_bytes(spoil(file.read_bytes()))
    with caplog.at_level(logging.WARNING, LOGGER):
        assert same(start(thor_tiny_checkpoint, tmp_path).module, first.module)
    assert "Cannot use" in caplog.text


def test_pages_that_changed_places_are_found(tmp_path):
    content = bytearray(os.urandom(4096 * 4))
    file = tmp_path / "pages"
    file.write_bytes(content)
    before = digest_of(file)
    content[:4096], content[4096:8192] = content[4096:8192], content[:4096]
    file.write_bytes(content)
    assert digest_of(file) != before


def test_another_source_or_module_has_another_file(tmp_path):
    def key(width: int, sha256: str = SHA) -> str:
        return Converted.of(nn.Linear(width, 2), sha256, tmp_path).key

    assert key(3) == key(3)
    assert len({key(3), key(4), key(3, "cd" * 32)}) == 3


def test_a_file_of_another_model_under_the_right_name_is_refused_as_the_source_would_be(thor_tiny_checkpoint, tmp_path):
    first = start(thor_tiny_checkpoint, tmp_path)
    (file,) = kept(tmp_path)
    file.unlink()
    converted = Converted.of(first.module, sha256_of(thor_tiny_checkpoint), file.parent)
    state = first.module.state_dict()
    converted.write(Picked({name: tensor for name, tensor in state.items() if name != "norm.bias"}, None))
    with pytest.raises(WeightsMismatch, match="1 tensors missing"):
        start(thor_tiny_checkpoint, tmp_path)
    (file,) = kept(tmp_path)
    file.unlink()
    converted.write(Picked(state | {"norm.bias": torch.full_like(state["norm.bias"], torch.nan)}, None))
    with pytest.raises(WeightsCorrupt, match="finite values"):
        start(thor_tiny_checkpoint, tmp_path)


def test_a_folder_that_cannot_be_written_is_no_hindrance(thor_tiny_checkpoint, tmp_path):
    (tmp_path / ".rs_embed").write_text("a file where the folder should be")
    first = start(thor_tiny_checkpoint, tmp_path)
    assert same(first.module, start(thor_tiny_checkpoint, None).module)
    assert kept(tmp_path) == []


def test_nothing_is_kept_where_that_is_turned_off_or_no_folder_is_named(thor_tiny_checkpoint, tmp_path):
    start(thor_tiny_checkpoint, tmp_path, keep_converted=False)
    start(thor_tiny_checkpoint, None)
    assert kept(tmp_path) == kept(thor_tiny_checkpoint.parent) == []


def test_safetensors_are_used_as_they_are(thor_tiny_checkpoint, tmp_path):
    state = torch.load(thor_tiny_checkpoint, weights_only=True)["state_dict"]
    mine = tmp_path / "mine.safetensors"
    save_file(state, mine)
    assert is_pickled(thor_tiny_checkpoint)
    assert not is_pickled(mine)
    assert same(start(mine, tmp_path / "cache").module, start(thor_tiny_checkpoint, None).module)
    assert kept(tmp_path) == [mine]


def test_what_dead_processes_left_half_written_is_never_read_and_swept(tmp_path):
    module = nn.Linear(3, 2)
    converted = Converted.of(module, SHA, tmp_path)
    young, old = (tmp_path / f".part-{name}-{converted.key}.safetensors" for name in ("0123456", "789abcd"))
    for part in (young, old):
        part.write_bytes(b"half")
    os.utime(old, (0, time.time() - ABANDONED_S - 60))
    assert converted.read() is None
    converted.write(Picked(module.state_dict(), "a note"))
    assert (young.exists(), old.exists()) == (True, False)
    found = converted.read()
    assert found is not None and found.note == "a note"
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in module.state_dict().items())


def test_tensors_that_are_shared_out_of_one_block_are_kept_whole(tmp_path):
    class Split(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            whole = torch.arange(12.0).reshape(3, 4)
            self.register_buffer("left", whole.mT[:2])
            self.register_buffer("count", torch.tensor([3]))

    module = Split()
    converted = Converted.of(module, SHA, tmp_path)
    converted.write(Picked(module.state_dict(), None))
    found = converted.read()
    assert found is not None and found.note is None
    state: dict[str, Tensor] = found.tensors
    assert torch.equal(state["left"], module.get_buffer("left"))
    load_strict(Split(), state, source="kept", copy=False)


def test_the_hash_of_a_file_of_ones_own_is_remembered_until_the_file_changes(tmp_path):
    ours = tmp_path / "mine.pt"
    torch.save({"a": torch.ones(3)}, ours)

    def found(cache: Path | None = tmp_path / "cache") -> str:
        return locate(Weights("a/b", "c.pt", "MIT"), ckpt=ours, offline=True, cache_dir=cache).sha256

    first = found()
    assert not list(tmp_path.rglob(".rs_embed/*"))  # it changed a moment ago, and may again in the same tick
    time.sleep(max(0.0, ours.stat().st_ctime + SETTLED_S - time.time()) + 0.1)
    assert found() == first
    (note,) = tmp_path.rglob(".rs_embed/*")
    note.write_text("f" * 64)
    assert found() == "f" * 64  # the note was believed, nothing was read
    assert found(None) == first
    before = ours.stat()
    torch.save({"a": torch.zeros(3)}, ours)
    os.utime(ours, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert ours.stat().st_size == before.st_size
    assert found() == sha256_of(ours) != first


def test_beside_a_hub_file_it_lies_where_the_hub_s_client_does_not_mind(thor_tiny_checkpoint, tmp_path):
    from huggingface_hub import scan_cache_dir

    weights = Weights("FM4CS/tiny", "model.pt", "MIT")
    with HubServer({"FM4CS/tiny": {"main": {"model.pt": thor_tiny_checkpoint.read_bytes()}}}) as hub:
        found = locate(weights, ckpt=None, offline=False, cache_dir=tmp_path, endpoint=hub.endpoint)
    assert found.notes is not None
    Converted.of(nn.Linear(1, 1), found.sha256, found.notes).write(Picked(nn.Linear(1, 1).state_dict(), None))
    (file,) = kept(tmp_path)
    assert file.parent == tmp_path / "models--FM4CS--tiny" / ".rs_embed"
    report = scan_cache_dir(tmp_path)
    assert not report.warnings
    assert [repo.repo_id for repo in report.repos] == ["FM4CS/tiny"]
    assert replace(found, notes=None).id == found.id
