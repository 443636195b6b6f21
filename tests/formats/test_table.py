"""The table of an export is read by other libraries, with every row, its place and its numbers."""

import json
from dataclasses import replace

import duckdb
import geopandas
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import rasterio.warp
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from made_rows import DIM, HEADER, YEAR, failed, row

from rs_embed.core.specs import PointBuffer
from rs_embed.errors import SpecError, StorageError
from rs_embed.formats.base import Row, RunHeader
from rs_embed.formats.quantize import dequantize, quantize
from rs_embed.formats.reading import TableFile
from rs_embed.formats.table import write_index, write_table

ROWS = [row(0, "plot/../0"), failed(1, 'a,b\n"c"'), row(2, "čeština 🌍 भारत"), row(3, "")]
TYPES = ["float32", "float16", "int8"]
DONE = [0, 2, 3]


@pytest.fixture(params=TYPES)
def table(request, tmp_path):
    path = tmp_path / "table.parquet"
    write_table(path, ROWS, HEADER, dtype=request.param)
    assert [file.name for file in tmp_path.iterdir()] == ["table.parquet"]
    return path


def vector(i):
    return ROWS[i].embedding.data


def test_geopandas_reads_every_row_with_its_footprint(table):
    frame = geopandas.read_parquet(table)
    assert frame["id"].tolist() == [one.id for one in ROWS]
    assert frame["status"].tolist() == ["ok", "failed", "ok", "ok"]
    assert frame.crs.to_epsg() == 4326 and frame.geometry.is_valid.all()
    for i in DONE:
        box = ROWS[i].embedding.geobox.boundingbox
        xs, ys = rasterio.warp.transform("EPSG:4326", "EPSG:32633", *frame.geometry[i].exterior.xy)
        found = min(xs), min(ys), max(xs), max(ys)
        assert np.abs(np.subtract(found, tuple(box))).max() < 0.1 * 10, "within a tenth of a pixel"
    assert frame.geometry[1].contains(frame.geometry[1].centroid), "a failed row lies where it was asked for"
    assert len(geopandas.read_parquet(table, bbox=(12.93, 47.7, 12.945, 47.8))) == 1, "the covering finds the first"


def test_the_columns_are_those_of_the_schema(table):
    frame = geopandas.read_parquet(table)
    first, second = frame.iloc[0], frame.iloc[1]
    assert first["start_datetime"] == pd.Timestamp("2020-01-01T00:00:00Z")
    assert first["end_datetime"] == pd.Timestamp("2020-12-31T23:59:59Z")
    assert first["datetime"] == pd.Timestamp("2020-06-02T10:00:00Z")
    assert (first["model_id"], first["weights_id"], first["proj_code"]) == ("mosaiks_rcf", "bundled:abc", "EPSG:32633")
    assert list(first["source_ids"]) == ["S2A_0", "S2B_0"]
    assert tuple(first["transform"]) == tuple(ROWS[0].embedding.geobox.affine)[:6]
    assert (first["valid_fraction"], first["row"]) == (0.75, 0) and pd.isna(first["cloud_fraction"])
    assert (first["center_lon"], first["center_lat"]) == pytest.approx((12.94, 47.77), abs=1e-4)
    assert first["fingerprint"] == ROWS[0].embedding.meta.fingerprint
    assert json.loads(first["meta"])["knobs"] == {"pool_px": 8}
    assert (second["stage"], second["error"]) == ("fetch", ROWS[1].error)
    assert second["embedding"] is None and second["model_id"] == "mosaiks_rcf"


def test_pyarrow_finds_a_list_of_fixed_size_and_the_header(table):
    schema = pq.read_schema(table)
    dtype = pq.read_table(table)["embedding"].type.value_type
    assert str(schema.field("embedding").type) == f"fixed_size_list<element: {dtype}>[{DIM}]"
    assert str(schema.field("model_id").type).startswith("dictionary")
    geo, emb = json.loads(schema.metadata[b"geo"]), json.loads(schema.metadata[b"emb"])
    assert geo["version"] == "1.1.0" and geo["columns"]["geometry"]["geometry_types"] == ["Polygon"]
    assert emb["emb:type"] == "chip" and emb["emb:dimensions"] == DIM
    assert emb["sci:publications"][1] == {"doi": "10.48550/arXiv.2504.11171", "citation": "arXiv:2504.11171"}
    assert emb["rs_embed:versions"] == {"rs_embed": "0.1.0"}
    assert ("emb:quantization" in emb) == (emb["data_type"] != "float32")
    assert TableFile(table).meta == replace(HEADER, dtype=emb["data_type"])


def test_duckdb_compares_vectors_in_sql(table):
    factor = "coalesce(scale, 1) * " if "scale" in pq.read_schema(table).names else ""
    found = duckdb.sql(f"""
        with v as (select id, list_transform(embedding, lambda x: {factor}x)::FLOAT[{DIM}] as e from '{table}'
                   where status = 'ok')
        select b.id, array_cosine_similarity(a.e, b.e) from v a, v b where a.id = 'plot/../0' order by b.id
    """).fetchall()
    expected = {ROWS[i].id: vector(0) @ vector(i) / np.linalg.norm(vector(0)) / np.linalg.norm(vector(i)) for i in DONE}
    assert dict(found) == pytest.approx(expected, abs=0.02)
    plain = duckdb.sql(
        f"select array_cosine_similarity(embedding::FLOAT[{DIM}], embedding::FLOAT[{DIM}]) from '{table}'"
    )
    assert [value for (value,) in plain.fetchall()] == [pytest.approx(1), None, pytest.approx(1), pytest.approx(1)]


def test_vectors_come_back_as_they_were(table):
    dtype = TableFile(table).meta.dtype
    matrix = TableFile(table).matrix()
    assert np.isnan(matrix[1]).all()
    for i in DONE:
        cosine = matrix[i] @ vector(i) / np.linalg.norm(matrix[i]) / np.linalg.norm(vector(i))
        assert cosine > 0.9998
        if dtype == "float32":
            np.testing.assert_array_equal(matrix[i], vector(i))


@pytest.mark.parametrize("dtype", TYPES)
def test_equal_rows_give_equal_bytes(tmp_path, dtype):
    for name in ("once", "twice"):
        write_table(tmp_path / name, ROWS, HEADER, dtype=dtype)
    assert (tmp_path / "once").read_bytes() == (tmp_path / "twice").read_bytes()


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("rows", [[], [failed(0)]])
def test_a_unit_with_nothing_in_it_is_a_table(tmp_path, rows, dtype):
    write_table(tmp_path / "t.parquet", rows, HEADER, dtype=dtype)
    assert len(geopandas.read_parquet(tmp_path / "t.parquet")) == len(rows)
    assert TableFile(tmp_path / "t.parquet").matrix().shape == (len(rows), DIM)
    full = tmp_path / "full.parquet"
    write_table(full, ROWS, HEADER, dtype=dtype)
    assert pq.read_schema(full).equals(pq.read_schema(tmp_path / "t.parquet")), "so they can be read together"


def test_a_row_without_a_place_stays(tmp_path):
    bare = replace(row(0).embedding, geobox=None)
    write_table(tmp_path / "t.parquet", [Row(0, "array", None, None, bare)], HEADER)
    (one,) = geopandas.read_parquet(tmp_path / "t.parquet").to_dict("records")
    assert one["geometry"] is None and np.isnan(one["center_lon"]) and pd.isna(one["start_datetime"])


def test_across_the_antimeridian_no_reader_skips_the_row(tmp_path):
    write_table(tmp_path / "t.parquet", [row(0, place=PointBuffer(179.999, -17, 400))], HEADER)
    for west, east in ((179.99, 180), (-180, -179.99)):
        found = geopandas.read_parquet(tmp_path / "t.parquet", bbox=(west, -17.1, east, -16.9))
        assert len(found) == 1 and found.geometry[0].geom_type == "MultiPolygon"


def test_an_index_says_where_grids_lie(tmp_path):
    rows = [row(0, grid=True), failed(1)]
    write_index(tmp_path / "t.parquet", rows, replace(HEADER, output="grid"), ["../grids/a.tif", None])
    frame = geopandas.read_parquet(tmp_path / "t.parquet")
    assert frame["href"].tolist()[0] == "../grids/a.tif" and pd.isna(frame["href"][1])
    assert "embedding" not in frame and frame["status"].tolist() == ["ok", "failed"]


def test_what_cannot_be_stored_is_refused(tmp_path):
    wrong = row(0, dim=DIM + 1)
    with pytest.raises(StorageError, match=f"vector of {DIM} values"):
        write_table(tmp_path / "t.parquet", [wrong], HEADER)
    large = row(0)
    large.embedding.data[0] = 1e6
    with pytest.raises(StorageError, match="float16"):
        write_table(tmp_path / "t.parquet", [large], HEADER, dtype="float16")
    with pytest.raises(SpecError, match="dtype"):
        replace(HEADER, dtype="float64")
    assert list(tmp_path.iterdir()) == []


def test_the_header_is_text_and_back():
    assert RunHeader.from_json(HEADER.to_json()) == HEADER
    for text in ("", "{}", "[]", '{"model_id": 1}'):
        with pytest.raises(StorageError, match="header of an rs_embed export"):
            RunHeader.from_json(text)


VALUES = st.floats(-(2.0**99), 2.0**99, width=32, allow_subnormal=False)


@given(arrays(np.float32, st.tuples(st.integers(0, 4), st.just(32)), elements=VALUES))
@settings(deadline=None, max_examples=200)
def test_int8_is_within_half_a_step(vectors):
    stored, scale = quantize(vectors, "int8")
    assert stored.dtype == np.int8 and np.abs(stored.astype(int)).max(initial=0) <= 127
    error = np.abs(dequantize(stored, scale) - vectors).max(axis=1, initial=0)
    assert (error <= np.abs(vectors).max(axis=1, initial=0) / 127 * 0.501 + np.finfo(np.float32).tiny).all()


def test_int8_keeps_directions_and_does_not_invent_numbers():
    vectors = np.random.default_rng(0).standard_normal((200, 768)).astype(np.float32)
    again = dequantize(*quantize(vectors, "int8"))
    cosines = (again * vectors).sum(1) / np.linalg.norm(again, axis=1) / np.linalg.norm(vectors, axis=1)
    assert cosines.min() > 0.9998
    for bad in (np.nan, np.inf):
        vectors[3, 5] = bad
        again = dequantize(*quantize(vectors, "int8"))
        assert np.isnan(again[3]).all() and np.isfinite(again[4]).all()
    assert (dequantize(*quantize(np.zeros((1, 8), np.float32), "int8")) == 0).all()


def test_the_window_is_told_in_whole_days():
    assert (YEAR.end - YEAR.start).days == 366
