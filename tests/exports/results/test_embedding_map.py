"""A map of a region gives what was written, at the place where it was written, and reads no more than that takes."""

import json
import tracemalloc
from collections import Counter
from dataclasses import replace

import geopandas
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
import xarray as xr
import zarr
from made_map import CELL_M, HEADER, LEFT, TOP, MadeMap, halved
from made_rows import embedding
from pyproj import Transformer
from rasterio.enums import ColorInterp
from zarr.storage import LocalStore, WrapperStore

from rs_embed import BBox, EmbeddingMap, PointBuffer, TemporalSpec, open_region
from rs_embed.embedding.components import pca_rgb
from rs_embed.embedding.similarity import cosine
from rs_embed.errors import NoValidPixels, OutsideCoverage, SpecError, StorageError
from rs_embed.exports.results.map_level import WINDOW_BYTES
from rs_embed.formats.base import RunHeader

TRIANGLE = shapely.Polygon([(LEFT, TOP), (LEFT + 29 * CELL_M, TOP), (LEFT, TOP - 22 * CELL_M)])
"""Half of the grid of `MadeMap`."""
HOLED = MadeMap(missing=((0, 1, 1), (1, 0, 2)), nodata=((3, 3),), outline=TRIANGLE)
TOLERANCE = {"float32": 0, "float16": 0, "int8": 0.12}
"""int8: half a step of the largest value, 29."""


class Counting(WrapperStore):
    """Counts what is read: a key and a range."""

    def __init__(self, store):
        super().__init__(store)
        self.reads: list[tuple[str, str, int]] = []

    async def get(self, key, prototype, byte_range=None):
        found = await self._store.get(key, prototype, byte_range)
        self.reads.append((key, str(byte_range), 0 if found is None else len(found)))
        return found

    def values(self, of="embedding"):
        """Ranges of files with values, without the indices of shards."""
        return Counter(one[:2] for one in self.reads if f"{of}/c/" in one[0] and "Suffix" not in one[1])


def counted(path):
    store = Counting(LocalStore(path, read_only=True))
    return EmbeddingMap(path, store), store


def lon_lat(row, col, made=None, epsg=32633):
    """Of a place on the grid; whole numbers are corners of tokens."""
    back = Transformer.from_crs(epsg, 4326, always_xy=True)
    return back.transform(LEFT + col * CELL_M, TOP - row * CELL_M)


def middle(row, col):
    return lon_lat(row + 0.5, col + 0.5)


@pytest.fixture
def plain(tmp_path):
    made = MadeMap(nodata=((3, 3),), days=(("2021-01-01", "2022-01-01"),))
    made.write(tmp_path)
    return made, open_region(tmp_path)


@pytest.fixture
def holed(tmp_path):
    return open_region(HOLED.write(tmp_path))


@pytest.mark.slow
def test_a_map_is_found_by_its_run_its_model_and_its_own_path(tmp_path):
    path = MadeMap().write(tmp_path)
    for given in (tmp_path, str(tmp_path), path.parent, path):
        assert open_region(given).path == path


@pytest.mark.slow
def test_opening_a_map_reads_metadata_alone(tmp_path):
    one, store = counted(MadeMap(missing=((0, 1, 1),)).write(tmp_path))
    text = repr(one)
    assert one.done == pytest.approx(23 / 24) and "22 x 29 tokens of 80 m" in text
    assert not any("/c/" in key and not key.startswith("time") for key, _, _ in store.reads)


def test_a_map_says_what_it_is(tmp_path):
    header = replace(HEADER, licence="<b>made up</b>")
    one = open_region(replace(HOLED, header=header).write(tmp_path))
    assert one.crs.to_epsg() == 32633 and one.shape == (22, 29) and one.cell_m == CELL_M and one.dim == 4
    assert one.bounds == (LEFT, TOP - 22 * CELL_M, LEFT + 29 * CELL_M, TOP)
    assert one.times == (TemporalSpec.year(2021), TemporalSpec.year(2022))
    assert isinstance(one.header, RunHeader) and one.header.weights == "random:7"
    assert shapely.equals(one.region, TRIANGLE) and len(one.levels) == 3
    assert "random weights, seed 7" in repr(one)
    assert "&lt;b&gt;made up" in one._repr_html_() and "<b>made up" not in one._repr_html_()


def test_a_header_may_be_written_as_text(tmp_path):
    path = MadeMap().write(tmp_path)
    told = json.loads((path / "zarr.json").read_text())
    told["attributes"]["rs_embed:header"] = json.dumps(told["attributes"]["rs_embed:header"])
    (path / "zarr.json").write_text(json.dumps(told))
    assert open_region(path).header.model_id == "made_up"


@pytest.mark.slow
def test_done_counts_blocks_that_hold_a_part_of_the_region(holed, tmp_path):
    blocks = 2 * 8  # of 12 a time, 4 lie outside of the triangle
    assert holed.done == pytest.approx((blocks - 2) / blocks)
    assert open_region(replace(HOLED, missing=()).write(tmp_path / "whole")).done == 1


@pytest.mark.slow
def test_several_zones_are_listed_and_chosen(tmp_path):
    for zone in (32632, 32633):
        MadeMap(epsg=zone).write(tmp_path / f"epsg{zone}")
    with pytest.raises(SpecError, match="one map") as caught:
        open_region(tmp_path)
    assert "EPSG:32632 in" in caught.value.facts["maps"] and "EPSG:32633 in" in caught.value.facts["maps"]
    assert 'crs="EPSG:32632"' in caught.value.fix
    assert open_region(tmp_path, crs="EPSG:32633").crs.to_epsg() == 32633
    assert open_region(tmp_path / "epsg32632").crs.to_epsg() == 32632
    with pytest.raises(SpecError, match="in EPSG:32634, got 0"):
        open_region(tmp_path, crs="EPSG:32634")
    with pytest.raises(SpecError, match="pyproj knows"):
        open_region(tmp_path, crs="EPSG:1")


def test_what_is_no_map_says_so(tmp_path):
    with pytest.raises(StorageError, match="got none"):
        open_region(tmp_path)
    with pytest.raises(StorageError, match="got none"):
        open_region(tmp_path / "nothing.zarr")
    zarr.create_group(tmp_path / "other.zarr", zarr_format=3)
    with pytest.raises(StorageError, match="KeyError"):
        open_region(tmp_path / "other.zarr")
    path = MadeMap().write(tmp_path)
    told = json.loads((path / "zarr.json").read_text())
    told["attributes"]["rs_embed:region"] = "nonsense"
    (path / "zarr.json").write_text(json.dumps(told))
    with pytest.raises(StorageError, match="damaged"):
        open_region(path)
    with pytest.raises(SpecError):
        open_region("s3://bucket/map")


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_an_array_has_every_token_in_its_place(tmp_path, dtype):
    made = replace(HOLED, dtype=dtype)
    array = open_region(made.write(tmp_path)).to_xarray()
    assert array.dims == ("time", "band", "y", "x") and array.dtype == np.float32
    np.testing.assert_allclose(array.to_numpy(), made.expected(), atol=TOLERANCE[dtype])
    north_west = array.isel(time=0).sel(x=LEFT + CELL_M / 2, y=TOP - CELL_M / 2)
    np.testing.assert_allclose(north_west, [1, 1, 1, 1], atol=TOLERANCE[dtype])
    assert np.all(np.diff(array["y"]) < 0) and array.attrs["grid_mapping"] == "spatial_ref"
    assert pd.Timestamp(array["time"].values[1]) == pd.Timestamp("2022-01-01")
    np.testing.assert_array_equal(array["valid_fraction"] > 0, np.isfinite(made.expected()).all(axis=1))


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_parts_of_an_array_are_those_of_the_whole(tmp_path, dtype):
    made = replace(HOLED, dtype=dtype)
    array = open_region(made.write(tmp_path)).to_xarray(time="2021")
    expected = made.expected()[0]
    for part in (
        (slice(1, 3), slice(6, 10), slice(7, 9)),
        (0, slice(None, None, -1), slice(20, 3, -3)),
        (slice(None), 8, 7),
        (slice(None), [8, 0, 7], [1, 16]),
        (slice(None), slice(3, 3), slice(None)),
    ):
        bands, rows, cols = part
        wanted = expected[bands][..., rows, :][..., cols] if isinstance(rows, list) else expected[part]
        np.testing.assert_allclose(array[part].to_numpy(), wanted, atol=TOLERANCE[dtype])


def test_an_array_reads_only_what_is_used_of_it(tmp_path):
    one, store = counted(MadeMap().write(tmp_path))
    part = one.to_xarray(time=1)[:, 8:12, 4:8]
    assert not store.values()
    np.testing.assert_array_equal(part[:, 0, 0], [9, 5, 11, 1])
    assert len(store.values()) == 1, "one chunk"


def test_a_box_takes_the_tokens_that_it_touches(plain):
    made, one = plain
    edges = (LEFT + 8 * CELL_M, TOP - 16 * CELL_M, LEFT + 16 * CELL_M, TOP - 8 * CELL_M)
    array = one.to_xarray(BBox(*edges, crs="EPSG:32633"))
    assert array.dims == ("band", "y", "x"), "there is only one time"
    np.testing.assert_array_equal(array, made.expected()[0][:, 8:16, 8:16])
    west, south, east, north = edges
    wider = one.to_xarray(BBox(west - 1, south - 1, east + 1, north + 1, crs="EPSG:32633"))
    np.testing.assert_array_equal(wider, made.expected()[0][:, 7:17, 7:17])
    (lon, lat), (lon2, lat2) = middle(10, 10), middle(9, 12)
    assert one.to_xarray((lon, lat, lon2, lat2)).shape == (4, 2, 3)
    with pytest.raises(OutsideCoverage, match="overlaps the map"):
        one.to_xarray((0, 0, 1, 1))
    with pytest.raises(SpecError, match="Expected a box"):
        one.to_xarray((0, 0, 1))


def test_overviews_have_half_the_resolution_on_the_same_ground(plain):
    made, one = plain
    array = one.to_xarray(level=1)
    np.testing.assert_allclose(array, halved(made.expected())[0])
    assert float(array["x"][1] - array["x"][0]) == 2 * CELL_M and float(array["y"][0]) == TOP - CELL_M
    with pytest.raises(SpecError, match="level"):
        one.to_xarray(level=3)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("cell", [(0, 0), (7, 8), (8, 7), (15, 3), (16, 4), (21, 0), (0, 28), (1, 16)])
def test_a_point_gives_the_token_under_it(tmp_path, dtype, cell):
    made = MadeMap(dtype=dtype)
    one = open_region(made.write(tmp_path))
    for inside in ((0.5, 0.5), (0.01, 0.01), (0.99, 0.99), (0.99, 0.01)):
        found = one.at(*lon_lat(cell[0] + inside[0], cell[1] + inside[1]), time="2022")
        np.testing.assert_allclose(found.data, made.expected()[1][:, cell[0], cell[1]], atol=TOLERANCE[dtype])
    assert found.valid == 0.5 and found.window == TemporalSpec.year(2022) and found.header == one.header
    assert found.geobox.boundingbox.left == LEFT + cell[1] * CELL_M
    assert found.geobox.boundingbox.top == TOP - cell[0] * CELL_M
    np.testing.assert_array_equal(np.asarray(found), found.data)


def test_where_there_is_no_token_the_error_says_why(holed):
    with pytest.raises(OutsideCoverage, match="region of the map"):
        holed.at(*middle(20, 27), time=0)
    with pytest.raises(OutsideCoverage, match="region of the map"):
        holed.at(0, 0, time=0)
    with pytest.raises(OutsideCoverage, match="missing so far") as caught:
        holed.at(*middle(9, 9), time=0)
    assert "row 1, column 1" in caught.value.facts["block"]
    assert holed.at(*middle(9, 9), time=1).data[0] == 10
    with pytest.raises(NoValidPixels, match="nodata"):
        holed.at(*middle(3, 3), time=0)
    with pytest.raises(SpecError, match="swapped|lat"):
        holed.at(47.8, 112.9, time=0)


def test_a_time_has_a_number_a_day_a_year_and_a_window(holed, tmp_path):
    for time in (
        1,
        np.int64(1),
        2022,
        "2022",
        "2022-01",
        "2022-06-15",
        pd.Timestamp("2022-06-15"),
        TemporalSpec.year(2022),
    ):
        assert holed.time_number(time) == 1
    for time in (None, "2023-01-01", 7, "20"):
        with pytest.raises(SpecError, match="one of the 2 times") as caught:
            holed.time_number(time)
        assert "2021-01-01" in caught.value.facts["times"]
    timeless = open_region(MadeMap(days=(None,)).write(tmp_path / "timeless"))
    assert timeless.times == (None,) and timeless.time_number(None) == 0
    assert "no days" in repr(timeless) and np.isnat(timeless.to_xarray()["time"])
    assert timeless.at(*middle(2, 1)).window is None


def test_a_table_of_points_gets_a_row_for_each(holed):
    cells = [(8, 0), (20, 27), (0, 0), (9, 9), (3, 3), (7, 7), (0, 1)]
    where = [shapely.Point(*middle(*cell)) for cell in cells]
    table = geopandas.GeoDataFrame({"id": list("abcdefg"), "crop": range(7)}, geometry=where, crs=4326).to_crs(32633)
    frame = holed.sample(table, time="2021")
    assert list(frame["id"]) == list("abcdefg") and list(frame["crop"]) == list(range(7))
    assert list(frame["status"]) == ["ok", "failed", "ok", "failed", "failed", "ok", "ok"]
    expected = HOLED.expected()[0]
    for cell, vector in zip(cells, frame["embedding"], strict=True):
        if vector is not None:
            np.testing.assert_array_equal(vector, expected[:, cell[0], cell[1]])
    assert frame["error"][1].startswith("OutsideCoverage") and "region" in frame["error"][1]
    assert "missing so far" in frame["error"][3] and frame["error"][4].startswith("NoValidPixels")
    assert frame["error"][0] is None and frame["valid_fraction"][0] == 1 and np.isnan(frame["valid_fraction"][1])
    assert frame.crs.to_epsg() == 4326
    assert shapely.distance(frame.geometry[2], where[2]) < 1e-8


def test_a_list_or_a_file_of_points_is_a_table_too(holed, tmp_path):
    lon, lat = middle(1, 2)
    pd.DataFrame({"plot_id": ["x", "y"], "lon": [lon, lon], "lat": [lat, 0.0]}).to_csv(tmp_path / "points.csv")
    for points in ([(lon, lat), (lon, 0.0)], np.array([(lon, lat), (lon, 0.0)]), tmp_path / "points.csv"):
        frame = holed.sample(points, time=1)
        np.testing.assert_array_equal(frame["embedding"][0], [2, 3, 11, 1])
        assert list(frame["status"]) == ["ok", "failed"]
    assert list(frame["id"]) == ["x", "y"]
    assert holed.sample([PointBuffer(lon, lat, 100)], time=1)["status"][0] == "ok"
    with pytest.raises(SpecError, match="Expected points"):
        holed.sample([BBox(12.9, 47.7, 12.95, 47.75)], time=0)


def test_points_of_one_chunk_are_one_read(tmp_path):
    one, store = counted(MadeMap().write(tmp_path))
    cells = [(row, col) for row in range(22) for col in range(29)]
    np.random.default_rng(0).shuffle(cells)
    frame = one.sample([middle(*cell) for cell in cells], time=0)
    np.testing.assert_array_equal(np.stack(frame["embedding"])[:, :2], np.array(cells) + 1)
    assert set(store.values().values()) == {1} and len(store.values()) == 6 * 8


def test_a_damaged_block_fails_its_own_points_alone(tmp_path):
    path = MadeMap().write(tmp_path)
    block = path / "embedding/c/0/0/1/1"
    block.write_bytes(block.read_bytes()[:-3] + b"\0\0\0")
    one = open_region(path)
    with pytest.raises(StorageError, match="damaged"):
        one.at(*middle(9, 9), time=0)
    frame = one.sample([middle(9, 9), middle(0, 0)], time=0)
    assert list(frame["status"]) == ["failed", "ok"] and frame["error"][0].startswith("StorageError")


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_similarity_to_a_place_is_the_cosine_of_every_token(tmp_path, dtype):
    made = replace(HOLED, dtype=dtype)
    one = open_region(made.write(tmp_path))
    tokens = np.moveaxis(one.to_xarray(time=0).to_numpy(), 0, -1)
    expected = cosine(tokens, tokens[2, 5])
    array = one.similar(*middle(2, 5), time=0)
    np.testing.assert_allclose(array, expected, atol=1e-6)
    assert float(array[2, 5]) == pytest.approx(1) and np.isnan(array[3, 3]) and np.isnan(array[9, 9])
    assert array.name == "similarity" and array["spatial_ref"] == 32633

    small = one.similar(*middle(2, 5), time=0, out=tmp_path / "similar.tif")
    np.testing.assert_allclose(small, expected, atol=1e-6)
    with rasterio.open(tmp_path / "similar.tif") as file:
        np.testing.assert_allclose(file.read(1), expected, atol=1e-6)
        assert file.crs.to_epsg() == 32633 and file.transform.c == LEFT and file.transform.f == TOP
        assert np.isnan(file.nodata) and file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert RunHeader.from_json(file.tags()["RS_EMBED_HEADER"]) == one.header
        assert file.tags()["DAYS"] == "2021-01-01 to 2022-01-01" and file.tags()["NOTE"] == HEADER.weights_note
    assert sorted(file.name for file in tmp_path.glob("*.tif")) == ["similar.tif"]
    assert not list(tmp_path.glob(".part-*"))


def test_every_way_to_give_an_example_means_the_same(plain):
    _, one = plain
    place = middle(2, 5)
    expected = one.similar(*place)
    for like in (place, [place], one.at(*place), [one.at(*place)], one.at(*place).data, one.at(*place).data * 7):
        np.testing.assert_allclose(one.similar(like=like), expected, atol=1e-6)


def test_several_examples_are_their_mean_direction_less_that_of_the_others(plain):
    made, one = plain
    cells, others = [(0, 0), (2, 20)], [(20, 1)]
    tokens = np.moveaxis(made.expected()[0], 0, -1).astype(np.float64)
    units = tokens / np.linalg.norm(tokens, axis=-1, keepdims=True)
    wanted = np.mean([units[cell] for cell in cells], axis=0) - units[others[0]]
    array = one.similar(like=[middle(*cell) for cell in cells], unlike=[middle(*cell) for cell in others])
    np.testing.assert_allclose(array, cosine(tokens.astype(np.float32), wanted.astype(np.float32)), atol=1e-5)


def test_an_example_of_another_model_or_none_at_all_is_refused(plain):
    _, one = plain
    with pytest.raises(SpecError, match="same model"):
        one.similar(like=embedding(dim=4))
    with pytest.raises(SpecError, match="Expected a vector"):
        one.similar(like=np.ones(5))
    with pytest.raises(SpecError, match="direction"):
        one.similar(like=np.zeros(4))
    with pytest.raises(SpecError, match="at least one"):
        one.similar(like=[])
    with pytest.raises(SpecError, match="differ"):
        one.similar(like=np.ones(4), unlike=np.ones(4))
    with pytest.raises(SpecError, match="got neither"):
        one.similar()
    with pytest.raises(SpecError, match="got both"):
        one.similar(1, 2, like=np.ones(4))
    with pytest.raises(SpecError, match="examples"):
        one.similar(like="here")


def test_an_embedding_of_the_same_model_is_an_example(tmp_path):
    mine = embedding(dim=4)
    header = replace(HEADER, model_id=mine.meta.model_id, weights=mine.meta.weights, weights_note=None)
    one = open_region(MadeMap(header=header, days=(None,)).write(tmp_path))
    np.testing.assert_allclose(one.similar(like=mine), one.similar(like=mine.data), atol=1e-6)
    with pytest.raises(SpecError, match="got a grid"):
        one.similar(like=embedding(dim=4, grid=True))


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_the_most_similar_places_are_those_of_the_whole_map(tmp_path, dtype):
    one = open_region(replace(HOLED, dtype=dtype).write(tmp_path))
    likeness = one.similar(*middle(2, 5), time=0).to_numpy().astype(np.float64)
    likeness[2, 5] = np.nan
    rows, cols = np.nonzero(np.isfinite(likeness))
    order = np.lexsort((cols, rows, -likeness[rows, cols]))[:7]
    frame = one.most_similar(*middle(2, 5), time=0, top=7)
    np.testing.assert_array_equal(frame["row"], rows[order])
    np.testing.assert_array_equal(frame["column"], cols[order])
    np.testing.assert_allclose(frame["similarity"], likeness[rows[order], cols[order]], atol=1e-6)
    for point, row, col in zip(frame.geometry, frame["row"], frame["column"], strict=True):
        np.testing.assert_allclose((point.x, point.y), middle(row, col), atol=1e-9)
    everywhere = one.most_similar(like=one.at(*middle(2, 5), time=0), time=0, top=10_000)
    assert len(everywhere) == np.isfinite(likeness).sum() + 1
    assert tuple(everywhere.iloc[0][["row", "column"]]) == (2, 5)
    with pytest.raises(SpecError, match="top"):
        one.most_similar(*middle(2, 5), time=0, top=0)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_principal_components_are_those_of_a_grid(tmp_path, dtype):
    one = open_region(replace(HOLED, dtype=dtype).write(tmp_path))
    expected = pca_rgb(one.to_xarray(time=0).to_numpy())
    array = one.pca(time=0, level=0)
    np.testing.assert_allclose(
        np.moveaxis(array.to_numpy(), 0, -1)[expected[..., 3] == 1], expected[expected[..., 3] == 1], atol=1e-3
    )
    np.testing.assert_array_equal(array.sel(band="alpha"), expected[..., 3])

    one.pca(tmp_path / "pca.tif", time=0)
    with rasterio.open(tmp_path / "pca.tif") as file:
        values = file.read()
        assert file.colorinterp == (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)
        assert file.dtypes == ("uint8",) * 4 and file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        shares = [float(share) for share in file.tags()["PCA_VARIANCE_SHARES"].split(",")]
    np.testing.assert_array_equal(values[3], 255 * expected[..., 3])
    np.testing.assert_allclose(values[:3, 1, 1] / 255, expected[1, 1, :3], atol=0.01)
    assert sum(shares) == pytest.approx(1, abs=1e-3) and shares == sorted(shares, reverse=True)


@pytest.mark.slow
def test_the_sample_of_components_is_seeded_and_bounded(tmp_path):
    one, store = counted(MadeMap(rows=640, columns=640, block=128, chunk=32, days=(None,), overviews=0).write(tmp_path))
    first = one.pca(seed=1, level=0)
    np.testing.assert_array_equal(first, one.pca(seed=1, level=0))
    assert not np.array_equal(first, one.pca(seed=2, level=0))
    store.reads.clear()
    from rs_embed.exports.results.map_rasters import SAMPLE_PIECES, fit

    fit(one.levels[0], 0, 1)
    assert len(store.values()) <= 4 * SAMPLE_PIECES, "pieces of 2 x 2 chunks"
    assert one.pca().shape == (4, 640, 640), "there is no overview, and the map is small enough to return"


def test_a_map_without_a_token_has_no_components(tmp_path):
    missing = tuple((0, *block) for block in np.ndindex(3, 4))
    one = open_region(MadeMap(days=(None,), missing=missing, overviews=0).write(tmp_path))
    assert one.done == 0
    with pytest.raises(NoValidPixels, match="none"):
        one.pca(level=0)
    assert np.isnan(one.similar(like=np.ones(4))).all() and len(one.most_similar(like=np.ones(4))) == 0


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_a_geotiff_has_a_band_for_each_dimension(tmp_path, dtype):
    made = replace(HOLED, dtype=dtype)
    one = open_region(made.write(tmp_path))
    one.to_geotiff(tmp_path / "all.tif", time=1)
    with rasterio.open(tmp_path / "all.tif") as file:
        np.testing.assert_allclose(file.read(), made.expected()[1], atol=TOLERANCE[dtype])
        assert file.descriptions == tuple(f"made_up {band}" for band in range(4)) and set(file.dtypes) == {"float32"}
        assert file.tags()["WEIGHTS"] == "random:7" and file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
    box = BBox(LEFT + 6 * CELL_M, TOP - 13 * CELL_M, LEFT + 11 * CELL_M, TOP - 5 * CELL_M, crs="EPSG:32633")
    assert one.to_geotiff(tmp_path / "part.tif", box, time=1) == tmp_path / "part.tif"
    with rasterio.open(tmp_path / "part.tif") as file:
        np.testing.assert_allclose(file.read(), made.expected()[1][:, 5:13, 6:11], atol=TOLERANCE[dtype])
        assert file.bounds == (box.minlon, box.minlat, box.maxlon, box.maxlat)


def test_what_cannot_be_written_says_so_and_leaves_nothing(plain, tmp_path):
    _, one = plain
    for name in ("similar.png", "no/folder.tif"):
        with pytest.raises(StorageError, match=r"Expected a \.tif"):
            one.similar(*middle(0, 0), out=tmp_path / name)
    (tmp_path / "folder.tif").mkdir()
    with pytest.raises(StorageError, match="Expected to write"):
        one.to_geotiff(tmp_path / "folder.tif")
    assert not list(tmp_path.glob(".part-*"))


def test_change_between_two_times_is_one_less_the_cosine(holed, tmp_path):
    tokens = np.moveaxis(HOLED.expected(), 1, -1)
    expected = 1 - cosine(tokens[0], tokens[1])
    np.testing.assert_allclose(holed.change("2021", "2022"), expected, atol=1e-6)
    holed.change("2021", "2022", out=tmp_path / "change.tif")
    with rasterio.open(tmp_path / "change.tif") as file:
        np.testing.assert_allclose(file.read(1), expected, atol=1e-6)
        assert "2022" in file.tags()["COMPARED_WITH"]


@pytest.mark.slow
def test_change_between_two_maps_wants_one_grid_and_one_model(tmp_path):
    days = (("2021-01-01", "2022-01-01"),)
    first = open_region(MadeMap(days=days, nodata=((0, 0),)).write(tmp_path / "a"))
    second = open_region(MadeMap(days=days, block=16, chunk=8, nodata=((5, 5),)).write(tmp_path / "b"))
    array = first.change(second)
    assert np.isnan(array[0, 0]) and np.isnan(array[5, 5]) and np.nanmax(np.abs(array)) < 1e-6
    other = replace(HEADER, weights="random:8")
    for made, says in ((MadeMap(days=days, rows=21), "same grid"), (MadeMap(days=days, header=other), "same model")):
        with pytest.raises(SpecError, match=says):
            first.change(open_region(made.write(tmp_path / says)))


def test_a_picture_has_the_colours_of_an_overview(holed, tmp_path):
    figure = holed.plot(tmp_path / "map.png")
    assert (tmp_path / "map.png").stat().st_size > 0
    assert "made_up" in figure.axes[0].get_title() and "random weights" in figure.axes[0].get_title()
    assert "2021-01-01" in figure.axes[0].get_title() and "CC-BY-4.0" in figure._supxlabel.get_text()


@pytest.mark.parametrize(("block", "chunk", "dim"), [(256, 32, 4), (512, 64, 2048), (64, 64, 9)])
@pytest.mark.slow
def test_windows_are_small_whole_chunks_and_cover_every_token_once(tmp_path, block, chunk, dim):
    one = huge(tmp_path, block=block, chunk=chunk, dim=dim, side=block + 40, done=[(0, 0), (1, 0)])
    level = one.levels[0]
    seen = np.zeros(one.shape, int)
    for cells in level.windows(0):
        assert cells.row % chunk == 0 and cells.col % chunk == 0
        assert 4 * dim * cells.height * cells.width <= max(WINDOW_BYTES, 4 * dim * chunk**2)
        seen[cells.rows, cells.cols] += 1
    assert (seen[:, :block] == 1).all() and not seen[:, block:].any()
    box = level.crop(BBox(LEFT + 3 * CELL_M, TOP - 9 * CELL_M, LEFT + 5 * CELL_M, TOP - CELL_M, crs="EPSG:32633"))
    (only,) = level.windows(0, box)
    assert only == box and (box.row, box.col, box.height, box.width) == (1, 3, 8, 2)


def huge(folder, *, block, chunk, dim, side, done):
    """A map of which nothing is there but the metadata and some blocks."""
    made = MadeMap(rows=side, columns=side, block=block, chunk=chunk, header=replace(HEADER, dim=dim), days=(None,))
    path = folder / "made_up" / "map.zarr"
    path.parent.mkdir(parents=True)
    root = zarr.create_group(path, zarr_format=3, attributes=made.attributes())
    shape, shards, chunks = (1, dim, side, side), (1, dim, block, block), (1, dim, chunk, chunk)
    tokens = root.create_array(
        "embedding", shape=shape, dtype="float32", shards=shards, chunks=chunks, fill_value=np.nan
    )
    root.create_array("valid", shape=(1, side, side), dtype="float32", chunks=(1, block, block), fill_value=0.0)
    for name in ("time", "time_end"):
        array = root.create_array(name, data=np.array([np.iinfo(np.int64).min]))
        array.attrs.update({"units": "days since 1970-01-01", "calendar": "proleptic_gregorian"})
    for row, col in done:
        rows, cols = slice(row * block, min((row + 1) * block, side)), slice(col * block, min((col + 1) * block, side))
        field = np.arange(dim, dtype=np.float32)[:, None, None] + np.random.default_rng(row).random((dim, 1, 1), "f4")
        tokens[0, :, rows, cols] = np.broadcast_to(field, (dim, rows.stop - rows.start, cols.stop - cols.start))
    return EmbeddingMap(path)


@pytest.mark.slow
def test_memory_and_reads_are_those_of_the_blocks_that_are_there(tmp_path):
    """A map of 40 TB: whatever took all of it, or of a row of blocks, would show."""
    one = huge(tmp_path, block=128, chunk=32, dim=1024, side=100_000, done=[(0, 0), (300, 781)])
    store = Counting(LocalStore(one.path, read_only=True))
    one = EmbeddingMap(one.path, store)
    tracemalloc.start()
    assert one.done == pytest.approx(2 / 782**2)
    assert one.at(*middle(0, 127)).data.shape == (1024,)
    frame = one.sample([middle(0, 0), middle(38_400, 99_999), middle(50_000, 50_000)])
    assert list(frame["status"]) == ["ok", "ok", "failed"] and "missing so far" in frame["error"][2]
    assert len(store.values()) == 3, "a chunk for each place that is there"
    store.reads.clear()
    best = one.most_similar(like=one.at(*middle(38_400, 99_999)), top=3)
    assert list(best["row"]) == [38_400] * 3 and float(best["similarity"][0]) == pytest.approx(1)
    assert set(store.values().values()) <= {1, 2}, "each chunk once, that of the example twice"
    lazy = one.to_xarray()
    assert lazy.shape == (1024, 100_000, 100_000) and float(lazy[5, 0, 0]) == pytest.approx(
        one.at(*middle(0, 0)).data[5]
    )
    for call in (lambda: one.similar(like=np.ones(1024)), lambda: one.pca(level=0)):
        with pytest.raises(SpecError, match="64 MB to return"):
            call()
    with pytest.raises(SpecError, match="64 MB to return"):
        one.plot()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 250e6, f"{peak / 1e6:.0f} MB"
    assert isinstance(lazy, xr.DataArray)
