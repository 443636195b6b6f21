"""An index of vectors finds what an exact scan finds, in bounded memory, and never answers from damaged files."""

import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from rs_embed.errors import SpecError, StorageError
from rs_embed.exports.results.index import CENTRES, FACTS, LISTS, SIZES, IndexFacts, VectorIndex
from rs_embed.exports.results.index_build import build, lists_for, sample_for

N, D = 20_000, 16


def made(count=N, dim=D, seed=0):
    """Vectors around some centres, far from the origin, as those of trained models are."""
    centres, rng = 3 + np.random.default_rng(0).standard_normal((40, dim)), np.random.default_rng(seed)
    return (centres[rng.integers(0, 40, count)] + 0.3 * rng.standard_normal((count, dim))).astype(np.float32)


VECTORS = made()


def blocks(vectors, first=0, size=3000):
    for start in range(0, len(vectors), size):
        part = vectors[start : start + size]
        yield np.arange(first + start, first + start + len(part)), part


def built(folder, vectors=VECTORS, first=0, **options):
    build(
        blocks(vectors, first), folder, sample=vectors[:: max(1, len(vectors) // 5000)], count=len(vectors), **options
    )
    return VectorIndex(folder)


def exact(queries, vectors, top, only=None):
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = (queries / np.linalg.norm(queries, axis=1, keepdims=True)) @ unit.T
    if only is not None:
        scores[:, ~only] = -2
    ids = np.argsort(-scores, axis=1)[:, :top]
    return ids, np.take_along_axis(scores, ids, 1)


def recall(found, right):
    return np.mean([np.isin(right[i], found[i]).mean() for i in range(len(right))])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("index") / "model"
    built(folder, about={"of": "test"})
    return folder


@pytest.fixture
def copied(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    return tmp_path / "copy"


def test_it_finds_what_an_exact_scan_finds(folder):
    index, queries = VectorIndex(folder), made(100, seed=1)
    ids, cosines = index.search(queries, 10)
    right, scores = exact(queries, VECTORS, 10)
    assert recall(ids, right) > 0.95
    assert (np.diff(cosines, axis=1) <= 1e-6).all(), "best first"
    assert np.abs(cosines[:, 0] - scores[:, 0]).max() < 2e-3
    assert len(index) == N and index.facts.lists == 128 and 1 <= index.facts.probes < 128
    assert index.facts.recall >= 0.98 and index.facts.about == {"of": "test"}
    assert index.facts.library.startswith("faiss-cpu ")


def test_length_does_not_matter(folder):
    index, query = VectorIndex(folder), made(1, seed=2)
    one, other = index.search(query, 5), index.search(1e6 * query, 5)
    np.testing.assert_array_equal(one[0], other[0])
    np.testing.assert_allclose(one[1], other[1], atol=1e-6)


def test_only_those_asked_for_are_found_and_as_many_as_wanted(folder):
    index, queries = VectorIndex(folder), made(20, seed=1)
    rng = np.random.default_rng(5)
    for share, least in ((0.5, 0.93), (0.02, 0.97)):
        only = rng.random(N) < share
        ids, _ = index.search(queries, 10, only=only)
        assert (ids >= 0).all() and only[ids].all()
        assert recall(ids, exact(queries, VECTORS, 10, only)[0]) > least
    three = np.isin(np.arange(N), [3, 77, 19_999])
    ids, cosines = index.search(queries, 10, only=three)
    assert all(set(row.tolist()) == {3, 77, 19_999, -1} for row in ids)
    assert np.isnan(cosines[:, 3:]).all() and np.isfinite(cosines[:, :3]).all()
    assert (index.search(queries, 2, only=np.zeros(N, bool))[0] == -1).all()


def test_vectors_without_a_direction_are_never_found(tmp_path):
    vectors = made(3000)
    vectors[10], vectors[11, 3], vectors[12, 0] = 0, np.nan, np.inf
    index = built(tmp_path / "index", vectors)
    assert len(index) == 2997
    ids, cosines = index.search(vectors[:1], 3000)
    assert set(range(3000)) - set(ids[0].tolist()) == {10, 11, 12}
    assert np.isfinite(cosines[0][:2997]).all() and (ids[0][2997:] == -1).all()
    for wrong in (vectors[10:11], vectors[11:12]):
        with pytest.raises(SpecError, match="with a direction"):
            index.search(wrong, 1)
    with pytest.raises(SpecError, match=r"vectors \[n, 16\]"):
        index.search(vectors[:1, :5], 1)


def test_the_same_vector_many_times_is_found_many_times(tmp_path):
    vectors = np.concatenate([made(2000), np.repeat(made(1, seed=9), 50, axis=0)])
    ids, cosines = built(tmp_path / "index", vectors).search(vectors[-1:], 50)
    assert set(ids[0].tolist()) == set(range(2000, 2050))
    assert cosines[0] == pytest.approx(np.ones(50), abs=1e-3)


def test_ids_may_be_any_whole_numbers(tmp_path):
    vectors = made(500)
    index = built(tmp_path / "index", vectors, first=10**12)
    assert index.search(vectors[7:8], 1)[0].tolist() == [[10**12 + 7]]
    assert index.facts.lists == index.facts.probes == 1, "few are all compared"


@pytest.mark.slow
def test_many_shards_give_one_index(tmp_path, folder):
    """In a process of its own, with little memory for the lists."""
    code = (
        "import sys; sys.path.insert(0, 'tests/exports/results')\n"
        "from pathlib import Path\n"
        "from rs_embed.exports.results import index_build\n"
        "index_build._SHARD_BYTES = 100_000\n"
        "from test_index import built\n"
        f"built(Path({str(tmp_path / 'index')!r}), about={{'of': 'test'}})\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": "tests"})
    one, other = VectorIndex(folder), VectorIndex(tmp_path / "index")
    queries = made(20, seed=1)
    np.testing.assert_array_equal(one.search(queries, 10)[0], other.search(queries, 10)[0])
    assert sorted(path.name for path in (tmp_path / "index").iterdir()) == [CENTRES, FACTS, LISTS, SIZES]


@pytest.mark.parametrize("name", [CENTRES, LISTS, SIZES, FACTS])
def test_a_cut_file_is_never_answered_from(copied, name):
    path = copied / name
    os.truncate(path, path.stat().st_size - 10)
    with pytest.raises(StorageError, match=name) as caught:
        VectorIndex(copied)
    assert "rs-embed index" in caught.value.fix


@pytest.mark.parametrize("name", [CENTRES, SIZES, FACTS])
def test_a_changed_byte_of_a_small_file_shows_when_it_is_opened(copied, name):
    change(copied / name)
    with pytest.raises(StorageError, match=name):
        VectorIndex(copied)


def change(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_changed_byte_of_a_list_shows_before_it_is_searched(copied):
    change(copied / LISTS)
    index = VectorIndex(copied)
    with pytest.raises(StorageError, match="of another content"):
        index.search(VECTORS[:1], 5, probes=index.facts.lists)


def test_a_missing_file_or_index_is_named(copied, tmp_path):
    (copied / LISTS).unlink()
    with pytest.raises(StorageError, match="missing"):
        VectorIndex(copied)
    with pytest.raises(StorageError, match="got none"):
        VectorIndex(tmp_path / "nothing")
    assert IndexFacts.read(tmp_path / "nothing") is None
    with pytest.raises(SpecError, match="Expected vectors"):
        build(iter([]), tmp_path / "nothing", sample=np.full((5, D), np.nan, np.float32), count=0)
    assert not (tmp_path / "nothing").exists()


def test_a_new_index_replaces_the_one_that_is_there(tmp_path):
    built(tmp_path / "index", made(500))
    older = VectorIndex(tmp_path / "index")
    built(tmp_path / "index", made(700, seed=4))
    assert len(VectorIndex(tmp_path / "index")) == 700
    assert older.search(made(500)[3:4], 1)[0].tolist() == [[3]], "an open one goes on"
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


def failing(vectors):
    yield from blocks(vectors)
    raise OSError(28, "No space left on device")


def test_a_failed_build_leaves_the_index_that_is_there(tmp_path):
    built(tmp_path / "index", made(500))
    with pytest.raises(StorageError, match="No space left"):
        build(failing(made(700)), tmp_path / "index", sample=made(700), count=700)
    assert len(VectorIndex(tmp_path / "index")) == 500
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


@pytest.mark.slow
def test_a_killed_build_leaves_nothing_that_could_be_taken_for_an_index(tmp_path):
    code = (
        "import sys; sys.path.insert(0, 'tests/exports/results')\n"
        "import time\n"
        "from pathlib import Path\n"
        "from test_index import blocks, made\n"
        "from rs_embed.exports.results.index_build import build\n"
        "def slowly():\n"
        "    for block in blocks(made(9000), size=1000):\n"
        "        yield block\n"
        "        print('block', flush=True); time.sleep(0.3)\n"
        f"build(slowly(), Path({str(tmp_path / 'index')!r}), sample=made(5000), count=9000)\n"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": "tests"}) as process:
        for _ in range(3):
            assert process.stdout.readline() == b"block\n"
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (tmp_path / "index").exists()
    assert [path.name.startswith(".part-") for path in tmp_path.iterdir()] == [True]
    assert len(built(tmp_path / "index", made(500))) == 500
    assert [path.name for path in tmp_path.iterdir()] == ["index"], "what it left is gone"


def test_it_takes_a_sample_that_does_not_grow_with_the_vectors():
    assert sample_for(10**6) == 64 * 1024
    assert sample_for(10**8) == sample_for(10**9) == 64 * 4096
    assert sample_for(100) == 100
    assert [lists_for(count) for count in (0, 1, 1999, 2000, 10**6, 10**7, 10**9)] == [
        1, 1, 1, 32, 1024, 4096, 4096
    ]  # fmt: skip
