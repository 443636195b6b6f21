"""A run that was exported is given back in the user's order, failures included, without reading more than is asked."""

import hashlib
import json
from dataclasses import replace

import geopandas
import numpy as np
import pytest
from made_rows import DIM, HEADER, YEAR, embedding, failed, row

from rs_embed import OutputSpec, PointBuffer, get_embedding
from rs_embed.errors import SpecError, StorageError
from rs_embed.exports.call import export_embeddings
from rs_embed.exports.results.run import open_run, read
from rs_embed.formats.table import write_index, write_table
from rs_embed.testing import FieldProvider


def record(units, name, rows):
    """The record of a unit, as older versions wrote it."""
    folder = units.parent / "records"
    folder.mkdir(exist_ok=True)
    table = units / f"{name}.parquet"
    stamp = {"bytes": table.stat().st_size, "sha256": hashlib.sha256(table.read_bytes()).hexdigest()}
    counts = {"rows": len(rows), "ok": len(rows), "failed": []}
    facts = {"unit": int(name[1:]), "fingerprint": "f", "versions": {}, "finished": "2026-01-01T00:00:00+00:00"}
    (folder / f"{name}.json").write_text(json.dumps({**facts, **counts, "files": {f"units/{table.name}": stamp}}))


def pooled_run(folder, units, model="mosaiks_rcf", dtype="float32"):
    """A run folder with a table a unit."""
    place = folder / model / "units"
    place.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"models": [model]}))
    for number, rows in enumerate(units):
        write_table(place / f"u{number:06}.parquet", rows, replace(HEADER, model_id=model), dtype=dtype)
        record(place, f"u{number:06}", rows)
    return folder


UNITS = [[row(5), row(0), failed(3)], [row(4), row(2, "æøå 🌍"), row(1)]]


@pytest.fixture
def run(tmp_path):
    return open_run(pooled_run(tmp_path / "run", UNITS))


def test_rows_come_in_the_order_of_the_user_s_table(run):
    frame = run.to_frame()
    assert isinstance(frame, geopandas.GeoDataFrame)
    assert frame["row"].tolist() == [0, 1, 2, 3, 4, 5]
    assert frame["id"].tolist() == ["plot 0", "plot 1", "æøå 🌍", "plot 3", "plot 4", "plot 5"]
    assert frame.crs.to_epsg() == 4326
    np.testing.assert_array_equal(frame["embedding"][4], row(4).embedding.data)
    assert frame["embedding"][3] is None


def test_failures_say_where_and_why(run):
    (failure,) = run.failures().to_dict("records")
    assert (failure["row"], failure["stage"]) == (3, "fetch")
    assert failure["error"].startswith("NoImagery: ")
    assert failure["geometry"].area > 0


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 0), ("float16", 1e-3), ("int8", 5e-2)])
def test_the_matrix_goes_with_the_frame(tmp_path, dtype, tolerance):
    run = open_run(pooled_run(tmp_path / "run", UNITS, dtype=dtype))
    matrix = run.matrix()
    assert matrix.shape == (6, DIM) and matrix.dtype == np.float32
    assert np.isnan(matrix[3]).all()
    for i in (0, 1, 2, 4, 5):
        assert np.abs(matrix[i] - row(i).embedding.data).max() <= tolerance


def test_embeddings_come_back_whole(run):
    again = list(run.embeddings())
    assert len(again) == 5
    first = row(5).embedding
    np.testing.assert_array_equal(again[0].data, first.data)
    assert (again[0].meta, again[0].geobox) == (first.meta, first.geobox)


def test_a_unit_without_its_record_does_not_count(run):
    (run.path / "mosaiks_rcf" / "records" / "u000001.json").unlink()
    assert run.to_frame(columns=["row"])["row"].tolist() == [0, 3, 5]


def test_the_header_travels_with_every_file(run):
    assert run.header() == HEADER
    table = read(run.path / "mosaiks_rcf" / "units" / "u000000.parquet")
    assert table.meta == HEADER and len(table) == 3
    assert run.manifest == {"models": ["mosaiks_rcf"]}
    assert repr(run).startswith("Run(") and "3 rows" in repr(table)


def test_xarray_has_vectors_with_their_rows(run):
    dataset = run.to_xarray()
    assert dataset["embedding"].dims == ("row", "band")
    chosen = dataset.swap_dims(row="id").sel(id="plot 4")
    np.testing.assert_array_equal(chosen["embedding"], row(4).embedding.data)
    assert str(chosen["start_datetime"].to_numpy())[:10] == "2020-01-01"


def test_several_models_are_told_apart(tmp_path):
    pooled_run(tmp_path / "run", UNITS)
    pooled_run(tmp_path / "run", [[row(0)]], model="other")
    run = open_run(tmp_path / "run")
    assert run.models == ("mosaiks_rcf", "other")
    assert len(run.to_frame("other")) == 1
    with pytest.raises(SpecError, match="one of the models mosaiks_rcf, other"):
        run.to_frame()


def test_the_most_alike_come_first(tmp_path):
    near = replace(row(7, "near"), embedding=embedding(seed=1))
    near.embedding.data[:] = 2 * row(1).embedding.data + 0.01
    run = open_run(pooled_run(tmp_path / "run", [*UNITS, [near]]))
    found = run.similar("plot 1", top=3)
    assert found["id"].tolist()[0] == "near" and len(found) == 3
    assert found["similarity"].is_monotonic_decreasing and found["similarity"][0] > 0.999
    assert "plot 1" not in set(found["id"]) and "plot 3" not in set(run.similar("plot 1", top=99)["id"])
    for wrong in ("plot 3", "nobody"):
        with pytest.raises(SpecError, match=wrong):
            run.similar(wrong)


def test_a_row_is_named_by_its_id_and_a_number_means_the_id_of_that_text(tmp_path):
    numbered = [[row(5, "17"), row(0, "18")], [row(4, "3"), row(2, "4"), failed(1, "99"), row(3, "21")]]
    run = open_run(pooled_run(tmp_path / "run", numbered))
    for same in (3, np.int64(3)):
        assert run.similar(same)["id"].tolist() == run.similar("3")["id"].tolist()
    assert "3" not in run.similar(3)["id"].tolist(), "the row of that id is left out, not row 3 of the table"
    for wrong, says in ((0, "row 0 has the id '18'"), (99, "failures"), (1000, "to_frame"), ("21 ", "to_frame")):
        with pytest.raises(SpecError, match="and an embedding, got none among 6 rows") as caught:
            run.similar(wrong)
        assert says in caught.value.fix
    for wrong in (1.5, True, None, np.zeros(DIM, np.float32)):
        with pytest.raises(SpecError, match="Expected an id of the table or an Embedding"):
            run.similar(wrong)
    with pytest.raises(SpecError, match="top"):
        run.similar(3, top=0)


def test_an_embedding_of_your_own_is_compared_with_all_rows(run):
    found = run.similar(row(4).embedding, top=3)
    assert found["id"].tolist()[0] == "plot 4" and len(found) == 3, "nothing is left out"
    assert found["similarity"][0] == pytest.approx(1, abs=1e-6)
    assert len(run.similar(row(4).embedding, top=99)) == 5
    for other, says in (
        (embedding(dim=DIM + 1), "same model"),
        (
            replace(row(4).embedding, meta=row(4).embedding.meta.model_copy(update={"weights": "random:1"})),
            "same model",
        ),
        (replace(row(4).embedding, meta=row(4).embedding.meta.model_copy(update={"card_revision": 9})), "same model"),
        (embedding(grid=True), "Expected a vector, got a grid"),
    ):
        with pytest.raises(SpecError, match=says):
            run.similar(other)
    with pytest.raises(SpecError) as caught:
        run.similar(embedding(dim=DIM + 1))
    assert "65 dimensions" in str(caught.value) and "64 dimensions" in str(caught.value)


def test_grids_are_read_one_at_a_time(tmp_path):
    units, grids = tmp_path / "run" / "mosaiks_rcf" / "units", tmp_path / "run" / "mosaiks_rcf" / "grids"
    units.mkdir(parents=True), grids.mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    rows = [row(0, grid=True), failed(1), row(2, grid=True)]
    paths = [None if r.embedding is None else r.embedding.save(grids / f"g{r.index}.npz") for r in rows]
    header = replace(HEADER, output="grid")
    write_index(units / "u000000.parquet", rows, header, [path and f"../grids/{path.name}" for path in paths])
    record(units, "u000000", ["u000000.parquet", "../grids/g0.npz", "../grids/g2.npz"])
    run = open_run(tmp_path / "run")
    found = run.grids()
    assert list(found) == ["plot 0", "plot 2"] and len(found) == 2
    np.testing.assert_array_equal(found["plot 2"], rows[2].embedding.data)
    assert found["plot 0"].dims == ("band", "y", "x")
    assert found.embedding("plot 0").geobox == rows[0].embedding.geobox
    assert [one.is_grid for one in run.embeddings()] == [True, True]
    with pytest.raises(StorageError, match="index of grids"):
        run.matrix()
    with pytest.raises(KeyError):
        found["plot 1"]
    (grids / "g0.npz").unlink()
    with pytest.raises(StorageError, match="does not exist"):
        found["plot 0"]


def test_a_run_that_has_only_begun_is_empty(tmp_path):
    run = open_run(pooled_run(tmp_path / "run", []))
    assert run.to_frame().empty and run.failures().empty and list(run.embeddings()) == []
    assert run.header() is None and run.matrix().shape[0] == 0


def test_what_is_not_a_run_says_so(tmp_path, run):
    with pytest.raises(StorageError, match=r"run\.json"):
        open_run(tmp_path)
    table = run.path / "mosaiks_rcf" / "units" / "u000000.parquet"
    geopandas.GeoDataFrame(geometry=[None]).to_parquet(tmp_path / "other.parquet")
    with pytest.raises(StorageError, match="a Parquet file of another program"):
        read(tmp_path / "other.parquet")
    table.write_bytes(table.read_bytes()[:-300])
    with pytest.raises(StorageError, match="damaged"):
        run.to_frame()
    table.unlink()
    with pytest.raises(StorageError, match="does not exist"):
        run.to_frame()


def test_a_unit_that_failed_whole_may_know_less_than_the_others(tmp_path):
    run = open_run(pooled_run(tmp_path / "run", [[failed(0)], [row(1), failed(3)], [row(2)]]))
    units = run.path / "mosaiks_rcf" / "units"
    write_table(units / "u000000.parquet", [failed(0)], replace(HEADER, dim=3, weights=None))
    record(units, "u000000", [failed(0)])
    frame, matrix = run.to_frame(), run.matrix()
    assert matrix.shape == (4, DIM) and np.isnan(matrix[[0, 3]]).all()
    np.testing.assert_array_equal(frame["embedding"][2], row(2).embedding.data)
    assert frame["weights_id"].tolist()[1:] == ["bundled:abc"] * 3
    assert run.similar("plot 1")["id"].tolist() == ["plot 2"]
    assert run.similar(row(1).embedding)["id"].tolist() == ["plot 1", "plot 2"]
    with pytest.raises(StorageError, match="Expected the columns nothing"):
        run.to_frame(columns=["nothing"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pooled", "grid"])
def test_what_an_export_wrote_is_what_a_single_call_gives(tmp_path, kind):
    places = [PointBuffer(12 + i / 10, 47, 320) for i in (3, 0, 2)]
    output = OutputSpec.pooled() if kind == "pooled" else OutputSpec.grid()
    options = {"output": output, "backend": FieldProvider()}
    report = export_embeddings(
        "mosaiks_rcf", places, tmp_path / "run", temporal=YEAR, unit_rows=2, progress=False, **options
    )
    run, single = report.open(), get_embedding("mosaiks_rcf", places[1], YEAR, **options)
    frame = run.to_frame()
    assert len(frame) == 3 and run.failures().empty
    found = run.matrix()[1] if kind == "pooled" else run.grids()[frame["id"][1]]
    np.testing.assert_allclose(found, single.data, rtol=1e-5, atol=1e-5)
    again = next(one for one in run.embeddings() if one.meta.fingerprint == single.meta.fingerprint)
    assert again.geobox == single.geobox
