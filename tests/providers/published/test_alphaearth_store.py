"""AlphaEarth's mosaic: exact values, exact places, and only the bytes that a chip needs."""

import numpy as np
import pytest
import zarr
from odc.geo.geobox import GeoBox
from published_stores import STEP, TOP, YEARS, dequantised, mosaic, mosaic_pixel, paint, put_time

from rs_embed import PointBuffer, TemporalSpec, geobox_for
from rs_embed.core.geo import pixel_centres
from rs_embed.embedders.cards.alphaearth import COLLECTION
from rs_embed.embedders.catalog import get_card
from rs_embed.errors import NoImagery, NoValidPixels, OutsideCoverage, ReadError, SensorNotOffered, SpecError
from rs_embed.providers.base import Query
from rs_embed.providers.published.alphaearth import decoding_table

SENSOR = get_card("alphaearth_v1").modalities[0].sensor
PLACE = PointBuffer(lon=12.943, lat=47.765, buffer_m=400)
"""Where four shards meet."""
YEAR = TemporalSpec.year(2022)
ROW, COL = mosaic_pixel(PLACE.lon, PLACE.lat)
TINY = PointBuffer(PLACE.lon, PLACE.lat, 10)
ROWS, COLS = slice(ROW - 100, ROW + 100), slice(COL - 150, COL + 150)


@pytest.fixture(scope="module")
def painted(world):
    """The values of 2022 around the place, as stored."""
    array = mosaic(world.folder / "aef-mosaic")
    paint(array, 2017, slice(ROW, ROW + 4), slice(COL, COL + 4))
    return paint(array, 2022, ROWS, COLS)


def query(place=PLACE, window=YEAR, geobox=None) -> Query:
    return Query("embedding", SENSOR, geobox or geobox_for(place), window)


def expected(geobox: GeoBox, painted: np.ndarray) -> np.ndarray:
    """The stored pixel under the centre of each pixel of a grid."""
    lon, lat = pixel_centres(geobox)
    rows, cols = ((TOP - lat) // STEP).astype(int) - ROWS.start, ((lon + 180) // STEP).astype(int) - COLS.start
    return dequantised(painted[:, rows, cols])


def test_a_byte_has_the_value_of_the_formula():
    table = decoding_table()
    for q, value in ((127, 0.992172), (64, 0.251965), (12, 0.008858), (-7, -0.003014), (0, 0)):
        assert table[q % 256] == pytest.approx(value, abs=5e-7)
    q = np.arange(-127, 128)
    exact = np.sign(q) * (q / 127.5) ** 2
    assert (table[q % 256] == exact.astype(np.float32)).all()
    assert np.isnan(table[128])


def test_a_chip_has_the_nearest_pixels_in_place_and_decoded(provider, painted):
    chip = provider().fetch(query())
    assert chip.values.shape == (1, 64, 80, 80)
    np.testing.assert_array_equal(chip.values[0], expected(geobox_for(PLACE), painted))
    assert chip.geobox == geobox_for(PLACE)
    assert chip.times[0].isoformat() == "2022-01-01T00:00:00+00:00"
    source = chip.source
    assert (source.provider, source.collection, source.scene_ids) == ("published", COLLECTION, ("embeddings 2022",))
    assert any("resampled from the original UTM images" in note for note in source.notes)
    assert any("nearest" in note for note in source.notes)


def test_the_stores_own_grid_has_every_stored_pixel_once(provider, painted):
    backend = provider()
    grid = backend.own_grid(COLLECTION, PLACE)
    assert grid.crs == "EPSG:4326"
    chip = backend.fetch(query(geobox=grid))
    col, row = (round(one) for one in ~grid.affine @ (-180 + COLS.start * STEP, TOP - ROWS.start * STEP))
    height, width = grid.shape
    np.testing.assert_array_equal(chip.values[0], dequantised(painted[:, -row : height - row, -col : width - col]))
    assert width > 1.4 * height  # degrees of longitude are short there
    assert not any("nearest" in note for note in chip.source.notes)


def test_only_the_chunks_under_the_chip_are_read_and_kept(provider, world, painted):
    backend = provider()
    backend.fetch(query())
    indexes = [one for one in world.data if one.span.startswith("bytes=-")]
    chunks = [one for one in world.data if not one.span.startswith("bytes=-")]
    files = {one.path for one in indexes}
    assert len(indexes) == len(files) == len(chunks) == 4
    assert all(one.size == 16 * 16 + 4 and one.status == 206 for one in indexes)
    stored = sum((world.folder / file).stat().st_size for file in files)
    assert sum(one.size for one in chunks) < 0.75 * stored
    assert len(world.asked) - len(world.data) == 3  # the group, the array, and the years, which are not there
    before = len(world.asked)
    backend.fetch(query(PointBuffer(PLACE.lon, PLACE.lat, 300)))
    assert len(world.asked) == before  # nothing is read twice


def test_the_index_of_the_year_is_by_the_stated_years_else_by_the_documented_first(provider, world, painted):
    small = query(TINY, TemporalSpec.year(2017))
    chip = provider().fetch(small)
    assert any("its first is 2017, as documented" in note for note in chip.source.notes)
    group = zarr.open_group(world.folder / "aef-mosaic", mode="r+")
    try:
        put_time(group, [*YEARS][::-1])
        turned = provider().fetch(query(TINY, TemporalSpec.year(2025)))
        np.testing.assert_array_equal(turned.values, chip.values)
        assert not any("as documented" in note for note in turned.source.notes)
        put_time(group, [2017 + i for i in range(3)], overwrite=True)
        assert provider().fetch(small).values.shape == chip.values.shape  # not as many years as positions
        put_time(group, [365 * i for i in range(9)], overwrite=True, attributes={"units": "days since 2017-06-01"})
        np.testing.assert_array_equal(provider().fetch(small).values, chip.values)
    finally:
        del group["time"]


def test_masked_pixels_are_nodata_in_all_bands(provider, world, painted):
    array = zarr.open_array(world.folder / "aef-mosaic/embeddings", mode="r+")
    row, col = ROW + 40, COL + 40
    kept = array[3, :, row : row + 8, col : col + 8]
    values = paint(array, 2020, slice(row, row + 8), slice(col, col + 8))
    array[3, :, row + 2, col + 3] = -128
    array[3, 5, row + 4, col + 4] = -128  # never seen in the product; no vector without all its numbers
    grid = GeoBox((8, 8), GeoBox.from_bbox((0, 0, 1, 1), resolution=1).affine, "EPSG:4326")
    affine = type(grid.affine)(STEP, 0, -180 + col * STEP, 0, -STEP, TOP - row * STEP)
    chip = provider().fetch(query(window=TemporalSpec.year(2020), geobox=GeoBox((8, 8), affine, "EPSG:4326")))
    lost = np.zeros((8, 8), bool)
    lost[2, 3] = lost[4, 4] = True
    assert np.isnan(chip.values[0][:, lost]).all()
    np.testing.assert_array_equal(chip.values[0][:, ~lost], dequantised(values)[:, ~lost])
    assert (kept == -128).all()


def test_the_antimeridian_is_crossed_pixel_by_pixel(provider, world, painted):
    array = zarr.open_array(world.folder / "aef-mosaic/embeddings", mode="r+")
    row, _ = mosaic_pixel(0, -16.5)
    last = int(360 / STEP)  # the column that 180 degrees falls into; the array goes on to 180.22
    rows = slice(row - 40, row + 40)
    west = paint(array, 2022, rows, slice(last - 60, last + 1))
    east = paint(array, 2022, rows, slice(0, 60))
    box = geobox_for(PointBuffer(lon=180, lat=-16.5, buffer_m=300))
    chip = provider().fetch(query(geobox=box))
    lon, lat = pixel_centres(box)
    assert (lon > 0).any() and (lon < 0).any()
    rows_, cols = ((TOP - lat) // STEP).astype(int) - rows.start, ((lon + 180) // STEP).astype(int)
    beyond = cols < 1000
    truth = np.where(
        beyond, east[:, rows_, np.where(beyond, cols, 0)], west[:, rows_, np.where(beyond, 0, cols - last + 60)]
    )
    np.testing.assert_array_equal(chip.values[0], dequantised(truth))
    assert sum(one.size for one in world.data) < 2_000_000  # not everything between the two ends


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"window": None}, SpecError, "Expected a window of days"),
        ({"window": TemporalSpec.range("2022-06-01", "2022-09-01")}, SpecError, "one calendar year"),
        ({"window": TemporalSpec.year(2026)}, NoImagery, "got 2026"),
        ({"place": PointBuffer(lon=10, lat=83.9, buffer_m=100)}, OutsideCoverage, "got one outside"),
        ({"place": PointBuffer(lon=-40, lat=10, buffer_m=100)}, NoValidPixels, "got only nodata"),
    ],
)
def test_what_there_is_not_is_said(provider, painted, change, error, says):
    with pytest.raises(error, match=says) as caught:
        provider().fetch(query(**change))
    assert caught.value.fix


def test_without_a_place_or_for_imagery_the_error_says_so(provider):
    backend = provider()
    with pytest.raises(SpecError, match="Expected a place"):
        backend.native_geobox(query())
    with pytest.raises(SpecError, match="Expected a place"):
        backend.fetch(Query("embedding", SENSOR, None, YEAR))
    with pytest.raises(SensorNotOffered, match="S2_SR_HARMONIZED"):
        backend.require("s2", get_card("thor").modalities[0].sensor)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"attributes": {"spatial:transform": [STEP, 0.0]}}, "six numbers as spatial:transform"),
        ({"attributes": {"proj:code": "EPSG:32633"}}, "EPSG:4326"),
        ({"shape": (9, 32, 1000, 1000), "shards": (1, 32, 128, 128), "chunks": (1, 32, 32, 32)}, "64 bands of int8"),
        ({"dimension_names": ("time", "channel", "y", "x")}, "an axis 'band'"),
        ({"dtype": "float32", "fill_value": 0}, "64 bands of int8"),
    ],
)
def test_a_changed_layout_says_what_was_expected_and_found(provider, world, changes, says):
    mosaic(world.folder / "changed", **changes)
    with pytest.raises(ReadError, match=says) as caught:
        provider(alphaearth=f"{world.url}/changed").fetch(query())
    assert "layout may have changed" in caught.value.fix


def test_axes_in_another_order_and_other_chunks_are_read_as_stated(provider, world, painted):
    shape = (1_859_584, 4_009_984, 64, 9)
    array = mosaic(
        world.folder / "turned", shape=shape, shards=(32, 64, 64, 3), chunks=(16, 8, 32, 1),
        dimension_names=("y", "x", "band", "time"), compressors=None,
    )  # fmt: skip
    array[ROWS, COLS, :, 5] = painted.transpose(1, 2, 0)
    chip = provider(alphaearth=f"{world.url}/turned").fetch(query())
    np.testing.assert_array_equal(chip.values[0], expected(geobox_for(PLACE), painted))
