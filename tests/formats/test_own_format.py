"""A format of one class, made of public names only, works wherever the built-in ones do."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rs_embed import (
    Embedding,
    FileFormat,
    OutputSpec,
    PointBuffer,
    export_embeddings,
    get_embedding,
    open_run,
    register_format,
)
from rs_embed.errors import SpecError, StorageError
from rs_embed.formats import from_parts, texts_of
from rs_embed.testing import FieldProvider

PLACE = PointBuffer(lon=12.94, lat=47.77, buffer_m=320)


class Pair:
    """A folder of two files: the values as `.npy`, what stands beside them as `.json`."""

    name, suffix, media_type, grids_only = "pair", ".pair", "application/x-pair", False

    def room(self, embedding: Embedding) -> int:
        return 2 * embedding.data.nbytes

    def write(self, embedding: Embedding, path: Path) -> None:
        path.mkdir()
        layers = [embedding.data] if embedding.valid is None else [embedding.data, embedding.valid[None]]
        np.save(path / "values.npy", np.concatenate(layers))
        (path / "meta.json").write_text(json.dumps([embedding.valid is not None, *texts_of(embedding).values()]))

    def read(self, path: Path) -> Embedding:
        has_valid, meta, checksum = json.loads((path / "meta.json").read_text())
        values = np.load(path / "values.npy")
        data, valid = (values[:-1], values[-1]) if has_valid else (values, None)
        return from_parts(data, meta, valid, checksum)


@pytest.fixture(autouse=True)
def pair():
    own: FileFormat = Pair()
    register_format(own)


@pytest.fixture
def grid():
    return get_embedding("mosaiks_rcf", PLACE, output=OutputSpec.grid(), backend=FieldProvider())


def test_an_embedding_is_saved_in_it_and_comes_back(grid, tmp_path):
    for one in (grid, get_embedding("mosaiks_rcf", PLACE, backend=FieldProvider())):
        path = one.save(tmp_path / f"{one.meta.output}.pair")
        assert sorted(file.name for file in path.iterdir()) == ["meta.json", "values.npy"]
        again = Embedding.load(path)
        np.testing.assert_array_equal(again.data, one.data)
        assert (again.meta, again.geobox) == (one.meta, one.geobox)


def test_a_run_is_exported_in_it_resumed_and_opened(grid, tmp_path):
    options = {"buffer_m": 320, "output": OutputSpec.grid(), "format": "pair", "progress": False}
    places = [(12.94, 47.77), (12.96, 47.77)]
    export_embeddings("mosaiks_rcf", places, tmp_path / "run", backend=FieldProvider(), **options)
    one = sorted((tmp_path / "run").rglob("*.pair"))[1]
    (one / "values.npy").write_bytes(b"damaged")
    report = export_embeddings("mosaiks_rcf", places, tmp_path / "run", backend=FieldProvider(), **options)
    assert (report.ok, report.failed) == (2, 0)
    run = open_run(tmp_path / "run")
    first, second = run.embeddings()
    np.testing.assert_allclose(first.data, grid.data, atol=1e-5)
    np.testing.assert_array_equal(run.grids().embedding("1").data, second.data)
    (item,) = sorted((tmp_path / "run" / "mosaiks_rcf" / "items").glob("000000000*.json"))
    assert json.loads(item.read_text())["assets"]["embeddings"]["type"] == "application/x-pair"


def test_damage_is_one_error_whatever_the_format_raises(grid, tmp_path):
    path = grid.save(tmp_path / "grid.pair")
    values = np.load(path / "values.npy")
    np.save(path / "values.npy", values + 1)
    with pytest.raises(StorageError, match="does not match its checksum"):
        Embedding.load(path)


def test_a_folder_that_is_there_is_not_replaced_and_half_a_one_is_gone(grid, tmp_path):
    path = grid.save(tmp_path / "grid.pair")
    before = (path / "values.npy").read_bytes()
    with pytest.raises(StorageError, match=r"grid\.pair"):
        replace(grid, data=grid.data + 1).save(path)
    assert [one.name for one in tmp_path.iterdir()] == ["grid.pair"]
    assert (path / "values.npy").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "suffix"),
    [("cog", ".pair2"), ("other", ".npz"), ("geoparquet", ".pair2"), ("other", ".parquet"), ("A b", ".x"), ("x", "x")],
)
def test_a_name_or_suffix_that_is_taken_or_none_is_refused(name, suffix):
    class Other(Pair):
        pass

    Other.name, Other.suffix = name, suffix
    with pytest.raises(SpecError):
        register_format(Other())


@pytest.mark.slow
def test_the_format_of_an_installed_package_needs_no_call(grid, tmp_path):
    package = tmp_path / "packages"
    (package / "named-1.0.dist-info").mkdir(parents=True)
    (package / "named-1.0.dist-info" / "METADATA").write_text("Name: named\nVersion: 1.0\n")
    (package / "named-1.0.dist-info" / "entry_points.txt").write_text(
        "[rs_embed.formats]\nnamed = named:Named\nbroken = no:Such\n"
    )
    (package / "named.py").write_text(
        "from rs_embed.formats.npz import Npz\nclass Named(Npz):\n    name, suffix = 'named', '.named'\n"
    )
    code = "import sys, rs_embed; rs_embed.Embedding.load(sys.argv[1]).save(sys.argv[2])"
    files = grid.save(tmp_path / "grid.npz"), tmp_path / "grid.named"
    environment = {**os.environ, "PYTHONPATH": str(package)}
    command = [sys.executable, "-W", "ignore", "-c", code, *files]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert "Cannot use the format broken of named 1.0: ModuleNotFoundError" in done.stderr
    assert files[0].read_bytes() == files[1].read_bytes()
