"""TESSERA's store: stored pixels on their own grid, in both hemispheres and across zones; nodata by the scale."""

import numpy as np
import pytest
from published_stores import LEFT_M, TOP_M, fill_zone, tessera, zone, zone_pixel
from pyproj import Transformer

from rs_embed import BBox, GridBlock, PointBuffer, TemporalSpec, geobox_for
from rs_embed.core.geo import pixel_centres
from rs_embed.embedders.cards.tessera import COLLECTION
from rs_embed.embedders.catalog import get_card
from rs_embed.errors import NoImagery, NoValidPixels, OutsideCoverage, ReadError
from rs_embed.providers.base import Query

SENSOR = get_card("tessera_v1_1").modalities[0].sensor
YEAR = TemporalSpec.year(2024)
NORTH, SOUTH = PointBuffer(lon=12.94, lat=47.77, buffer_m=200), PointBuffer(lon=35.1, lat=-3.4, buffer_m=200)
SEAM = PointBuffer(lon=36.0, lat=-3.4, buffer_m=200)
DATE_LINE = PointBuffer(lon=179.999, lat=-16.5, buffer_m=200)
REACH = 60


def around(number: int, lon: float, lat: float) -> tuple[slice, slice]:
    row, col = zone_pixel(number, lon, lat)
    return slice(row - REACH, row + REACH), slice(col - REACH, col + REACH)


@pytest.fixture(scope="module")
def groups(world):
    """Zones 1, 33, 36, 37 and 60, empty."""
    root = tessera(world.folder / "v1.1-dclimate")
    return {number: zone(root, number) for number in (1, 33, 36, 37, 60)}


@pytest.fixture(scope="module")
def painted(groups):
    """What is stored around the places: (zone, place) -> rows, columns, values."""
    spots = [(33, NORTH), (36, SOUTH), (36, SEAM), (37, SEAM), (60, DATE_LINE), (1, DATE_LINE)]
    made = {}
    for number, place in spots:
        rows, cols = around(number, place.lon, place.lat)
        if (number, place) == (36, SEAM):
            cols = slice(cols.start, zone_pixel(36, 36.0, -3.4)[1])  # the zone's own ground ends at its border
        made[number, place] = (rows, cols, fill_zone(groups[number], 2024, rows, cols, salt=number))
    return made


def query(place=NORTH, window=YEAR, geobox=None) -> Query:
    return Query("embedding", SENSOR, geobox or geobox_for(place), window)


def stored(part, number, geobox) -> np.ndarray:
    """The pixel of a zone under the centre of each pixel of a grid; NaN where nothing is stored."""
    rows, cols, values = part
    lon, lat = pixel_centres(geobox)
    x, y = Transformer.from_crs("EPSG:4326", f"EPSG:{32600 + number}", always_xy=True).transform(lon, lat)
    row = np.floor((TOP_M - y) / 10 + 1e-9).astype(int) - rows.start
    col = np.floor((x - LEFT_M) / 10 + 1e-9).astype(int) - cols.start
    inside = (row >= 0) & (row < values.shape[1]) & (col >= 0) & (col < values.shape[2])
    return np.where(inside, values[:, np.where(inside, row, 0), np.where(inside, col, 0)], np.nan)


@pytest.mark.slow
@pytest.mark.parametrize(("place", "number"), [(NORTH, 33), (SOUTH, 36)])
def test_a_chip_in_utm_has_the_stored_pixels_on_their_own_grid(provider, painted, place, number):
    chip = provider().fetch(query(place))
    box = geobox_for(place)
    assert chip.geobox == box
    assert str(box.crs) == f"EPSG:{32600 + number + (100 if place.lat < 0 else 0)}"
    row = round((TOP_M - (box.affine.f - (1e7 if place.lat < 0 else 0))) / 10)
    col = round((box.affine.c - LEFT_M) / 10)
    rows, cols, values = painted[number, place]
    there = values[:, row - rows.start :, col - cols.start :][:, :40, :40]
    np.testing.assert_array_equal(chip.values[0], there)
    assert chip.source.scene_ids == (f"utm{number} 2024",)
    assert not any("nearest" in note for note in chip.source.notes)
    assert chip.times[0].year == 2024


def test_the_own_grid_is_the_northern_zone(provider, painted):
    backend = provider()
    grid = backend.own_grid(COLLECTION, SOUTH)
    assert (str(grid.crs), tuple(grid.shape)) == ("EPSG:32636", (40, 40))
    own = backend.fetch(query(geobox=grid))
    np.testing.assert_array_equal(own.values, backend.fetch(query(SOUTH)).values)


@pytest.mark.slow
def test_nodata_is_told_by_the_scale_never_by_the_number(provider, groups, painted):
    group = groups[33]
    row, col = zone_pixel(33, 13.5, 47.77)
    rows, cols = slice(row - 30, row + 30), slice(col - 30, col + 30)
    values = fill_zone(group, 2024, rows, cols)
    bad = {(3, 4): np.nan, (5, 6): np.inf, (7, 8): 0.0, (9, 10): -0.05}
    for (i, j), scale in bad.items():
        group["scales"][7, row - 30 + i, col - 30 + j] = scale
    group["embeddings"][7:8, :, row - 28 : row - 27, col - 28 : col - 27] = 0  # zeros are an embedding like others
    values[:, 2, 2] = 0
    affine = geobox_for(PointBuffer(13.5, 47.77, 300)).affine
    block = GridBlock(
        LEFT_M + cols.start * 10, TOP_M - rows.stop * 10, LEFT_M + cols.stop * 10, TOP_M - rows.start * 10, "EPSG:32633"
    )
    chip = provider().fetch(query(block))
    assert affine.a == 10
    lost = np.isnan(chip.values[0]).any(axis=0)
    assert {tuple(one) for one in np.argwhere(lost)} == set(bad)
    np.testing.assert_array_equal(chip.values[0][:, ~lost], values[:, ~lost])


def test_across_a_zone_border_missing_pixels_come_from_the_zone_beside(provider, painted):
    chip = provider().fetch(query(SEAM))
    box = geobox_for(SEAM)
    own = stored(painted[37, SEAM], 37, box) if str(box.crs).endswith("37") else stored(painted[36, SEAM], 36, box)
    assert str(box.crs) == "EPSG:32737"
    np.testing.assert_array_equal(chip.values[0], own)
    west = GridBlock(*(v for v in west_of_seam()), "EPSG:32736")
    chip = provider().fetch(query(west))
    box = geobox_for(west)
    inside, beside = stored(painted[36, SEAM], 36, box), stored(painted[37, SEAM], 37, box)
    missing = np.isnan(inside[0])
    assert 0.2 < missing.mean() < 0.8
    np.testing.assert_array_equal(chip.values[0], np.where(missing, beside, inside))
    assert np.isfinite(chip.values).all()
    assert chip.source.scene_ids == ("utm36 2024", "utm37 2024")
    assert "Pixels from zone 37 are the nearest ones of its grid." in chip.source.notes


def west_of_seam():
    row, col = zone_pixel(36, 36.0, -3.4)
    left, top = LEFT_M + (col - 15) * 10, TOP_M - (row - 15) * 10 + 1e7
    return left, top - 300, left + 300, top


def test_the_antimeridian_joins_zones_60_and_1(provider, painted):
    box = geobox_for(DATE_LINE)
    chip = provider().fetch(query(DATE_LINE))
    own, beside = stored(painted[60, DATE_LINE], 60, box), stored(painted[1, DATE_LINE], 1, box)
    np.testing.assert_array_equal(chip.values[0], np.where(np.isnan(own[0]), beside, own))
    assert chip.source.scene_ids[0] == "utm60 2024"


def test_a_grid_in_another_crs_has_the_nearest_pixels(provider, painted):
    x, y = Transformer.from_crs("EPSG:4326", "EPSG:3035", always_xy=True).transform(NORTH.lon, NORTH.lat)
    block = GridBlock(x // 10 * 10 - 100, y // 10 * 10 - 100, x // 10 * 10 + 100, y // 10 * 10 + 100, "EPSG:3035")
    chip = provider().fetch(query(block))
    np.testing.assert_array_equal(chip.values[0], stored(painted[33, NORTH], 33, geobox_for(block)))
    assert "Pixels from zone 33 are the nearest ones of its grid." in chip.source.notes


def test_only_chunks_with_embeddings_are_read(provider, world, painted):
    provider().fetch(query(NORTH))
    sizes = {one.path.split("/")[2]: 0 for one in world.data}
    for one in world.data:
        sizes[one.path.split("/")[2]] += one.size
    assert set(sizes) == {"embeddings", "scales", "time"}
    first = {one.path: one.size for one in world.data if (one.span or "").startswith("bytes=-")}
    assert set(first.values()) == {64 * 16 + 4}
    assert len(world.data) == 1 + 2 * len(first)  # the years; an index and one run of chunks per shard
    world.asked.clear()
    with pytest.raises(NoValidPixels):
        provider().fetch(query(PointBuffer(lon=10.5 + 3, lat=20, buffer_m=100)))
    assert {one.status for one in world.data if "time" not in one.path} == {404}


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"window": TemporalSpec.year(2016)}, NoImagery, "got 2016"),
        ({"place": PointBuffer(lon=-100, lat=40, buffer_m=100)}, OutsideCoverage, "got one outside"),
        ({"place": PointBuffer(lon=15, lat=88, buffer_m=100)}, OutsideCoverage, "got one outside"),
    ],
)
def test_what_there_is_not_is_said(provider, painted, change, error, says):
    with pytest.raises(error, match=says) as caught:
        provider().fetch(query(**change))
    assert caught.value.fix


def test_a_year_that_is_not_complete_is_noted(provider, world, painted):
    root = tessera(world.folder / "partial")
    group = zone(root, 33, **{"geotessera:source_groups": {"33N": {"years_complete": [2018]}}})
    fill_zone(group, 2024, *around(33, NORTH.lon, NORTH.lat))
    chip = provider(tessera=f"{world.url}/partial").fetch(query())
    assert any("complete years of zone 33" in note for note in chip.source.notes)


def test_a_store_without_scales_or_groups_is_a_changed_layout(provider, world, painted):
    root = tessera(world.folder / "other")
    del zone(root, 33)["scales"]
    with pytest.raises(ReadError, match="the arrays 'embeddings' and 'scales'"):
        provider(tessera=f"{world.url}/other").fetch(query())
    with pytest.raises(ReadError, match="a group for each UTM zone"):
        provider(tessera=f"{world.url}/nothing").fetch(query())


def test_a_box_across_many_chunks_equals_its_parts(provider, painted):
    rows, cols, values = painted[33, NORTH]
    left, top = LEFT_M + (cols.start + 3) * 10, TOP_M - (rows.start + 5) * 10
    box = BBox(left, top - 1000, left + 1000, top, crs="EPSG:32633")
    chip = provider().fetch(query(box))
    np.testing.assert_array_equal(chip.values[0], values[:, 5:105, 3:103])
