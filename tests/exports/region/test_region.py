"""A region becomes one map: seamless, in its place, whatever was interrupted."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
import xarray as xr
from echo import CARD as ECHO
from tiny import card_of

from rs_embed import (
    BBox,
    GridBlock,
    OutputSpec,
    PointBuffer,
    Region,
    TemporalSpec,
    embed_region,
    geobox_for,
    get_embedding,
    retry_export,
    run_status,
    verify_run,
)
from rs_embed.core.geo import pixel_centres
from rs_embed.errors import NoImagery, SpecError, StorageError
from rs_embed.exports.region.grid import MapGrid
from rs_embed.formats.base import RunHeader
from rs_embed.testing import FieldProvider, hills

pytestmark = pytest.mark.slow

HERE = PointBuffer(12.94, 47.77, 1500)
CRS = "EPSG:32633"
YEAR = TemporalSpec.year(2022)
RAW = {"debias": "none", "progress": False}


def ramp(lon, lat, band):
    """DN that rise to the east (B2) or to the north (B3), and say where a pixel lies to a metre or so."""
    return 1000 + (lon - 12.5) * 4000 if band == "B2" else 1000 + (lat - 47.5) * 8000


def opened(run: Path, group: str = "") -> xr.Dataset:
    (path,) = run.glob("*/map.zarr")
    return xr.open_zarr(path, group=group or None, consolidated=False, chunks=None)


def grid_of(run: Path) -> MapGrid:
    return MapGrid.model_validate(json.loads((run / "run.json").read_text())["command"]["region"])


def everything(grid: MapGrid) -> GridBlock:
    """All windows of a map as one place."""
    step_m = grid.step_cells * grid.cell_m
    height_m, width_m = (-(-side // grid.step_cells) * step_m for side in grid.shape)
    west, north = grid.west + grid.shift_m, grid.north - grid.shift_m
    return GridBlock(west, north - height_m, west + width_m, north, grid.crs, grid.before_m, grid.after_m)


def tokens(run: Path) -> np.ndarray:
    return opened(run).embedding.values


def same_as_one_call(run: Path, card, backend, *, tolerance: float = 0, debias="none", **options):
    """Compare a map of several blocks with one tiled call over all of its windows, and return that call's result.

    Args:
        tolerance: Largest difference, as a share of the largest number.
    """
    grid = grid_of(run)
    assert grid.rows * grid.columns > 1
    output = OutputSpec.grid(debias=debias)
    whole = get_embedding(card, everything(grid), YEAR, output, backend, input_prep="tile", **options)
    assert whole.geobox[: grid.height, : grid.width] == grid.geobox
    found = tokens(run)[0]
    inside = np.isfinite(found[0])
    expected = whole.data[:, : grid.height, : grid.width][:, inside]
    np.testing.assert_allclose(found[:, inside], expected, rtol=0, atol=tolerance * np.abs(expected).max())
    return whole


def echo_map(out: Path, region=HERE, temporal=YEAR, *, backend=None, **options):
    provider = FieldProvider(ramp) if backend is None else backend
    return embed_region(ECHO, region, temporal, out, backend=provider, **{**RAW, "block_cells": 10, **options})


class Counting(FieldProvider):
    """Counts what is asked for, and fails where it is told to."""

    def __init__(self, fails=lambda query: False) -> None:
        super().__init__(ramp)
        self.asked: list[tuple[float, ...]] = []
        self.fails = fails

    def fetch(self, query):
        corner = tuple(query.geobox.boundingbox.bbox)
        self.asked.append(corner)
        if self.fails(query):
            raise NoImagery("Expected a scene, got none.", fix="other days")
        return super().fetch(query)


@pytest.mark.parametrize("crs", [CRS, "EPSG:3035"])
@pytest.mark.slow
def test_every_token_lies_where_its_pixels_lie(tmp_path, crs):
    echo_map(tmp_path / "run", crs=crs)
    grid, found = grid_of(tmp_path / "run"), opened(tmp_path / "run")
    lon, lat = pixel_centres(grid.geobox)
    inside = np.isfinite(found.embedding.values[0, 0])
    assert 0.2 < inside.mean() < 1
    for channel, band in enumerate(("B2", "B3")):
        expected = ramp(lon, lat, band)
        np.testing.assert_allclose(found.embedding.values[0, channel][inside], expected[inside], atol=0.05)
    left, top = grid.geobox.affine.c, grid.geobox.affine.f
    np.testing.assert_allclose([found.x.values[0], found.y.values[0]], [left + 40, top - 40])
    assert found.embedding.dims == ("time", "band", "y", "x")
    assert found.attrs["proj:code"] == crs
    assert found.attrs["spatial:shape"] == list(grid.shape)
    assert found.attrs["rs_embed:block"] == {"cells": 10, "cell_m": 80, "rows": grid.rows, "columns": grid.columns}
    assert RunHeader.from_json(json.dumps(found.attrs["rs_embed:header"])).model_id == "echo"
    assert (found.valid.values[0][inside] == 1).all()
    assert (found.valid.values[0][~inside] == 0).all()


def test_a_map_is_what_one_tiled_call_over_everything_gives(tmp_path):
    echo_map(tmp_path / "run")
    same_as_one_call(tmp_path / "run", ECHO, FieldProvider(ramp))


MODELS = {
    "thor_1_0_tiny": {"img": 96, "patch_size": 8, "pretrained": False},
    "terramind_1_0_tiny": {"img": 96, "pretrained": False, "modality": "S2L2A"},
    "anysat_tiny": {"pretrained": False, "modality": "s2", "frames": 2},
    "galileo_1_0_nano": {"pretrained": False, "modality": "s2", "patch_size": 8},
    "mosaiks_rcf": {"img": 64},
}


@pytest.mark.slow
@pytest.mark.parametrize("model_id", MODELS)
def test_no_seam_shows_between_blocks_of_any_family(tmp_path, model_id):
    card = card_of(model_id) if model_id != "mosaiks_rcf" else model_id
    options = MODELS[model_id]
    smallest = _smallest(card, options)
    block = {"block_cells": smallest * math.ceil(8 / smallest)}
    embed_region(card, HERE, YEAR, tmp_path / "run", backend=FieldProvider(hills), **RAW, **block, **options)
    same_as_one_call(tmp_path / "run", card, FieldProvider(hills), tolerance=2e-5, **options)


def _smallest(card, options) -> int:
    """The fewest cells of a block: what the refusal of one cell tells."""
    try:
        embed_region(card, HERE, YEAR, "never", backend=FieldProvider(hills), **RAW, block_cells=0, **options)
    except SpecError as error:
        return int(error.fix.split("=")[1])
    raise AssertionError


@pytest.mark.slow
def test_regions_that_meet_have_the_same_tokens_where_they_meet(tmp_path):
    echo_map(tmp_path / "one", BBox(329_000, 5_292_000, 331_500, 5_294_000, CRS), crs=CRS)
    echo_map(tmp_path / "other", BBox(330_900, 5_292_500, 333_000, 5_295_000, CRS), crs=CRS)
    one, other = (opened(tmp_path / name).embedding[0] for name in ("one", "other"))
    shared = xr.align(one, other, join="inner")
    both = np.isfinite(shared[0].values[0]) & np.isfinite(shared[1].values[0])
    assert both.sum() > 50
    np.testing.assert_array_equal(shared[0].values[:, both], shared[1].values[:, both])


@pytest.mark.slow
def test_only_what_the_region_touches_has_values_and_only_its_blocks_are_fetched(tmp_path):
    hole = [
        (330_800, 5_292_800),
        (331_600, 5_292_800),
        (331_600, 5_293_600),
        (330_800, 5_293_600),
        (330_800, 5_292_800),
    ]
    ring = [
        (329_000, 5_291_000),
        (333_000, 5_291_000),
        (333_000, 5_291_900),
        (331_900, 5_295_000),
        (329_000, 5_295_000),
    ]
    region, provider = Region([ring + ring[:1], hole], CRS), Counting()
    echo_map(tmp_path / "run", region, backend=provider)
    grid = grid_of(tmp_path / "run")
    assert len(provider.asked) < grid.rows * grid.columns
    polygon = shapely.Polygon(ring, [hole])
    rows, cols = np.mgrid[: grid.shape[0], : grid.shape[1]]
    x, y = grid.geobox.affine @ (cols, rows)
    cells = shapely.box(x, y - grid.cell_m, x + grid.cell_m, y)
    finite = np.isfinite(tokens(tmp_path / "run")[0, 0])
    surely = shapely.area(shapely.intersection(polygon, cells)) > 1
    never = ~shapely.intersects(polygon, shapely.buffer(cells, 1))
    assert finite[surely].all()
    assert not finite[never].any()
    assert (surely | never).mean() > 0.9


def test_a_map_may_be_a_geotiff_for_each_block(tmp_path):
    corners = [(343_210, 5_291_630), (345_950, 5_291_630), (343_210, 5_293_970)]
    triangle = Region([[*corners, corners[0]]], CRS)
    echo_map(tmp_path / "zarr", triangle)
    echo_map(tmp_path / "cog", triangle, format="cog")
    whole, files = opened(tmp_path / "zarr").embedding[0], sorted(tmp_path.glob("cog/echo/grids/*/*.tif"))
    assert len(files) > 1
    count = 0
    for path in files:
        with rasterio.open(path) as file:
            assert file.crs.to_epsg() == 32633
            x, y = file.transform @ (0.5, 0.5)
            part = whole.sel(x=slice(x, x + 80 * (file.width - 1)), y=slice(y, y - 80 * (file.height - 1)))
            rows, cols = part.shape[1:]  # the store ends where the region ends
            np.testing.assert_array_equal(file.read()[:2, :rows, :cols], part.values)
            assert np.isnan(file.read(1)[rows:]).all()
            assert np.isnan(file.read(1)[:, cols:]).all()
            count += int(np.isfinite(part.values[0]).sum())
    assert count == int(np.isfinite(whole.values[0]).sum())
    assert (tmp_path / "cog/echo/collection.json").is_file()


def test_the_geotiffs_of_blocks_are_one_raster_for_each_time_that_can_be_moved(tmp_path):
    corners = [(343_210, 5_291_630), (345_950, 5_291_630), (343_210, 5_293_970)]
    triangle = Region([[*corners, corners[0]]], CRS)
    months = TemporalSpec.range("2022-05-01", "2022-07-01").months()
    echo_map(tmp_path / "zarr", triangle, months)
    echo_map(tmp_path / "cog", triangle, months, format="cog")
    (tmp_path / "cog").rename(tmp_path / "moved")
    whole, grid = tokens(tmp_path / "zarr"), grid_of(tmp_path / "zarr")
    assert grid.columns > 1 < grid.rows
    for time, month in enumerate(months):
        with rasterio.open(tmp_path / f"moved/echo/mosaic-{month.start}.vrt") as file:
            assert (file.crs.to_epsg(), file.shape, file.transform) == (32633, grid.shape, grid.geobox.affine)
            assert np.isnan(file.nodata)
            across = rasterio.windows.Window(7, 6, 9, 8)  # a block has 10 tokens
            np.testing.assert_array_equal(file.read([1, 2], window=across), whole[time, :, 6:14, 7:16])
            assert np.isfinite(whole[time, 0, 6:14, 7:16]).any()
            np.testing.assert_array_equal(file.read([1, 2]), whole[time])


@pytest.mark.slow
def test_several_windows_are_the_time_axis(tmp_path):
    months = TemporalSpec.range("2022-05-01", "2022-08-01").months()
    report = echo_map(tmp_path / "run", temporal=[months[1], months[0], months[2]])
    found = opened(tmp_path / "run")
    assert found.time.values.astype("datetime64[D]").tolist() == [one.start for one in months]
    assert found.time_end.values.astype("datetime64[D]").tolist() == [one.end for one in months]
    assert np.isfinite(found.embedding.values[:, 0]).sum() == 3 * np.isfinite(found.embedding.values[0, 0]).sum()
    assert report.failed == 0


def test_overviews_are_means_of_tokens_with_a_value(tmp_path):
    echo_map(tmp_path / "run", block_cells=20)
    fine, coarse = (opened(tmp_path / "run", group).embedding for group in ("", "1"))
    with np.errstate(invalid="ignore"):
        blocks = fine.values[0].reshape(2, coarse.shape[2], 2, coarse.shape[3], 2)
    there = np.isfinite(blocks)
    counts = there.sum(axis=(2, 4))
    expected = np.divide(np.nansum(blocks, axis=(2, 4)), counts, out=np.full(counts.shape, np.nan), where=counts > 0)
    np.testing.assert_allclose(coarse.values[0], expected, rtol=1e-6)
    np.testing.assert_allclose(coarse.x.values, fine.x.values.reshape(-1, 2).mean(axis=1))


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "cosine"), [("float16", 0.99999), ("int8", 0.9995)])
def test_smaller_types_keep_the_direction_of_every_token(tmp_path, dtype, cosine):
    options = {"backend": FieldProvider(hills), "region": PointBuffer(12.94, 47.77, 700)}
    provider = options.pop("backend")
    for name, kind in (("whole", "float32"), ("small", dtype)):
        embed_region("mosaiks_rcf", options["region"], YEAR, tmp_path / name, backend=provider, dtype=kind, **RAW)
    whole, small = opened(tmp_path / "whole"), opened(tmp_path / "small")
    raw = small.embedding.values
    values = raw.astype(np.float32)
    if dtype == "int8":
        grid = grid_of(tmp_path / "small")
        factors = np.repeat(np.repeat(small["scale"].values, grid.cells, axis=2), grid.cells, axis=3)
        factors = factors[:, :, : grid.height, : grid.width]
        values = np.where(raw == -128, np.nan, values * factors)
    expected = whole.embedding.values
    np.testing.assert_array_equal(np.isnan(values), np.isnan(expected))
    there = np.isfinite(expected[0, 0])
    one, other = expected[0][:, there], values[0][:, there]
    cosines = (one * other).sum(axis=0) / np.linalg.norm(one, axis=0) / np.linalg.norm(other, axis=0)
    assert cosines.min() > cosine
    assert _bytes(tmp_path / "small") < 0.6 * _bytes(tmp_path / "whole")


def _bytes(run: Path) -> int:
    return sum(path.stat().st_size for path in run.glob("*/map.zarr/embedding/c/**/*") if path.is_file())


def test_a_region_in_two_zones_becomes_a_map_in_each(tmp_path):
    report = echo_map(tmp_path / "run", PointBuffer(12.0, 47.77, 1500))
    assert sorted(report.maps) == ["EPSG:32632", "EPSG:32633"]
    west, east = (tokens(tmp_path / "run" / name) for name in ("epsg32632", "epsg32633"))
    for found, epsg in ((west, 32632), (east, 32633)):
        grid = grid_of(tmp_path / "run" / f"epsg{epsg}")
        lon, lat = pixel_centres(grid.geobox)
        inside = np.isfinite(found[0, 0])
        np.testing.assert_allclose(found[0, 1][inside], ramp(lon, lat, "B3")[inside], atol=0.05)
        assert (lon[inside] < 12.002).all() if epsg == 32632 else (lon[inside] > 11.998).all()


def test_what_is_finished_is_not_done_again_and_what_failed_is_tried_again(tmp_path):
    provider = Counting(fails=lambda query: query.geobox.boundingbox.left < 345_000)
    report = echo_map(tmp_path / "run", backend=provider)
    first = len(provider.asked)
    assert 0 < report.failed < first
    assert "run the same again" in str(report)
    before = tokens(tmp_path / "run")
    provider.fails, provider.asked = (lambda query: False), []
    again = echo_map(tmp_path / "run", backend=provider)
    assert (len(provider.asked), again.failed) == (report.failed, 0)
    after = tokens(tmp_path / "run")
    there = np.isfinite(before)
    assert (before[there] == after[there]).all()
    assert np.isfinite(after).sum() > there.sum()
    assert verify_run(tmp_path / "run", progress=False).ok


def test_a_block_that_is_gone_or_damaged_is_made_again(tmp_path):
    echo_map(tmp_path / "run")
    whole = tokens(tmp_path / "run")
    shards = sorted(path for path in tmp_path.glob("run/*/map.zarr/embedding/c/**/*") if path.is_file())
    shards[0].unlink()
    content = bytearray(shards[1].read_bytes())
    content[5] ^= 255
    shards[1].write_bytes(content)
    assert {damage.found for damage in verify_run(tmp_path / "run", progress=False).damaged} == {
        "missing",
        "of another content",
    }
    provider = Counting()
    echo_map(tmp_path / "run", backend=provider, verify=True)
    assert len(provider.asked) == 2
    np.testing.assert_array_equal(tokens(tmp_path / "run"), whole)


@pytest.mark.parametrize("damage", ["missing", "of another content"])
def test_metadata_that_are_gone_or_damaged_at_any_level_are_found_and_written_again(tmp_path, damage):
    run, region = tmp_path / "run", PointBuffer(12.94, 47.77, 700)
    echo_map(run, region, block_cells=20)
    store, whole = run / "echo/map.zarr", tokens(run)
    names = ["1/valid/zarr.json", "1/x/c/0", "1/zarr.json", "embedding/zarr.json", "zarr.json"]
    before = {name: (store / name).read_bytes() for name in names}
    for name, content in before.items():
        (store / name).unlink()
        if damage != "missing":
            (store / name).write_bytes(content[:5] + bytes([content[5] ^ 1]) + content[6:])
    found = verify_run(run, progress=False).damaged
    assert sorted((one.path, one.found) for one in found) == [(f"echo/map.zarr/{name}", damage) for name in names]
    provider = Counting()
    echo_map(run, region, backend=provider, block_cells=20, verify=True)
    assert {name: (store / name).read_bytes() for name in names} == before
    assert verify_run(run, progress=False).ok
    assert not provider.asked
    np.testing.assert_array_equal(tokens(run), whole)


def test_a_damaged_record_of_the_metadata_is_found_and_written_again(tmp_path):
    region = PointBuffer(12.94, 47.77, 700)
    echo_map(tmp_path / "run", region)
    path = tmp_path / "run/echo/records/map.json"
    path.write_text(path.read_text().replace('"bytes"', '"byte"', 1))
    assert [one.path for one in verify_run(tmp_path / "run", progress=False).damaged] == ["echo/records/map.json"]
    echo_map(tmp_path / "run", region)
    assert verify_run(tmp_path / "run", progress=False).ok


@pytest.mark.slow
def test_shards_fill_one_map_and_a_retry_needs_only_the_folder(tmp_path):
    echo_map(tmp_path / "whole", unit_blocks=2)
    sample = {"backend": "sample", "region": PointBuffer(12.94, 47.77, 500), "unit_blocks": 1}
    for index in range(2):
        echo_map(tmp_path / "parts", unit_blocks=2, shard=(index, 2))
    np.testing.assert_array_equal(tokens(tmp_path / "parts"), tokens(tmp_path / "whole"))
    options = {**RAW, **sample, "block_cells": 7, "model": "mosaiks_rcf", "temporal": None}
    embed_region(out=tmp_path / "sample", shard="0/2", img=64, **options)
    assert run_status(tmp_path / "sample").models[0].missing > 0
    retry_export(tmp_path / "sample", progress=False)
    assert run_status(tmp_path / "sample").models[0].missing == 0
    embed_region(out=tmp_path / "again", img=64, **options)
    np.testing.assert_array_equal(tokens(tmp_path / "sample"), tokens(tmp_path / "again"))


def test_a_folder_takes_one_request_only(tmp_path):
    echo_map(tmp_path / "run")
    with pytest.raises(StorageError) as caught:
        echo_map(tmp_path / "run", PointBuffer(12.94, 47.77, 1400))
    assert "region" in caught.value.facts["changed"]


@pytest.mark.slow
def test_position_is_taken_out_alike_in_every_block(tmp_path):
    card, options = card_of("terramind_1_0_tiny"), {"img": 96, "pretrained": False, "modality": "S2L2A"}
    embed_region(
        card, PointBuffer(12.94, 47.77, 600), YEAR, tmp_path / "run", backend=FieldProvider(hills), progress=False,
        block_cells=_smallest(card, options), **options,
    )  # fmt: skip
    whole = same_as_one_call(tmp_path / "run", card, FieldProvider(hills), tolerance=2e-5, debias="position", **options)
    assert whole.meta.debias.estimated_on == "sample scene"


def test_a_dry_run_says_how_many_blocks_it_would_take_and_writes_nothing(tmp_path):
    provider = Counting()
    planned = echo_map(tmp_path / "run", backend=provider, dry_run=True, rate=2.0)
    assert not (tmp_path / "run").exists()
    assert not provider.asked
    made = str(echo_map(tmp_path / "run", backend=provider))
    blocks, lines = len(provider.asked), str(planned).splitlines()
    assert lines[0] == f"EPSG:32633: echo: {blocks} blocks in {-(-blocks // 8)} units of up to 8"
    assert f"{blocks} chips via" in str(planned)
    assert "one worker at 2 blocks/s (declared)" in lines[-1]
    assert made.startswith(f"EPSG:32633: {blocks} blocks in {str(tmp_path / 'run')!r}, 0 failed")
    assert "rows" not in str(planned) + made


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"crs": "EPSG:4326"}, "metres"),
        ({"crs": "EPSG:2263"}, "metres"),  # feet
        ({"crs": "Mars"}, "CRS"),
        ({"block_cells": 7}, "block_cells"),
        ({"format": "png"}, "format"),
        ({"temporal": []}, "TemporalSpec"),
        ({"temporal": [YEAR, YEAR]}, "different days"),
        ({"region": {"type": "Point", "coordinates": [12, 47]}}, "point"),
        ({"out": "s3://bucket/map"}, "s3://bucket/map"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_fetched(tmp_path, options, words):
    provider = Counting()
    given = {"region": HERE, "temporal": YEAR, "out": tmp_path / "run", "backend": provider, **RAW, **options}
    with pytest.raises(SpecError, match=words):
        embed_region(ECHO, **given)
    assert not provider.asked
    assert not (tmp_path / "run").exists()


def test_a_block_has_exactly_its_edges_in_its_own_crs():
    block = GridBlock(4_400_000, 2_700_000, 4_400_960, 2_700_960, "EPSG:3035", before_m=80, after_m=160)
    grid = geobox_for(block, 10)
    assert grid.shape == (120, 120)
    assert str(grid.crs) == "EPSG:3035"
    assert grid.boundingbox.bbox == (4_399_920, 2_699_840, 4_401_120, 2_701_040)
    with pytest.raises(SpecError, match="whole pixels"):
        geobox_for(block, 7)
    found = get_embedding(ECHO, block, YEAR, OutputSpec.grid(), FieldProvider(ramp), input_prep="tile")
    assert found.geobox.boundingbox.bbox == (4_400_000, 2_700_000, 4_400_960, 2_700_960)
    with pytest.raises(SpecError, match="west below east"):
        GridBlock(1, 0, 0, 1, "EPSG:3035")
