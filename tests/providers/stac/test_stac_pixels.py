"""The pixels of a STAC catalogue are those of the world, at every place where grids go wrong."""

from dataclasses import replace

import numpy as np
import pytest
import rasterio
from gee_server import PLACES, EarthEngineServer, default_world
from stac_asking import S2, SUMMER, ask, equal, expected, frames_of, pixels_of, scenes_of, stac

from rs_embed.core.geo import geobox_for, subgrid
from rs_embed.core.specs import PointBuffer, Series, TemporalSpec
from rs_embed.providers.common.checked import Checked
from rs_embed.providers.common.composite import composite

pytestmark = pytest.mark.slow

WORLD = default_world()


QUICK = ("antimeridian", "zone_edge")
"""Of the places, those where most can go wrong."""


@pytest.mark.parametrize(
    "place",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in PLACES if name != "iowa"],
)
def test_every_pixel_is_the_nearest_native_one_of_every_scene(stac_server, place):
    query = ask(place, ("B2", "B11"), cloudy_pct=60)
    chip = stac(stac_server.site("earth-search", applied=True)).fetch(query)
    ties = 1 if place == "antimeridian_east" else 0  # one pixel centre lies 6 micrometres from an edge
    equal(chip, expected(WORLD, query), ties)
    assert set(chip.source.scene_ids) <= {scene.index for scene in scenes_of(WORLD, query)}


@pytest.mark.parametrize("quirks", [{"epsg": True}, {"bare": True}, {"page": 2}, {"duplicates": True}])
def test_items_come_in_several_styles_on_several_pages_and_twice(stac_server, quirks):
    query = ask("tile_edge", ("B3",))
    chip = stac(stac_server.site("earth-search", applied=True, **quirks)).fetch(query)
    equal(chip, expected(WORLD, query))


@pytest.mark.parametrize("how", ["median", "mean"])
def test_masked_scenes_are_composited_as_files_are(stac_server, how):
    query = ask("toulouse", ("B2", "B8"), composite=how, cloud_mask="scl", cloudy_pct=70)
    chip = stac(stac_server.site("earth-search", applied=True)).fetch(query)
    np.testing.assert_allclose(chip.values[0], expected(WORLD, query), rtol=1e-6)
    clear = [np.isfinite(frame[0]).mean() for frame in frames_of(WORLD, query)]
    assert chip.source.clear_observations == pytest.approx(sum(clear))


@pytest.mark.parametrize("how", ["median", "mean", "mosaic", "first"])
@pytest.mark.parametrize(("place", "mask"), [("toulouse", "scl"), ("tile_edge", "none"), ("zone_edge", "scl")])
def test_both_backends_make_the_same_chip_of_one_world(stac_server, gee, how, place, mask):
    query = ask(place, ("B2", "B11"), composite=how, cloud_mask=mask, cloudy_pct=70)
    ours = stac(stac_server.site("earth-search", applied=True)).fetch(query)
    theirs = gee.fetch(query)
    np.testing.assert_allclose(ours.values, theirs.values, atol=0.5)  # Earth Engine's medians travel as whole numbers
    if how == "first":
        assert ours.source.scene_ids == theirs.source.scene_ids


@pytest.mark.parametrize("sampling", ["composite", "scenes"])
def test_both_backends_make_the_same_series(stac_server, gee, sampling):
    query = ask("toulouse", ("B4",), series=Series(3, sampling), cloud_mask="scl", cloudy_pct=80)
    ours, theirs = (one.fetch(query) for one in (stac(stac_server.site("earth-search", applied=True)), gee))
    assert len(ours.times) == 3
    np.testing.assert_allclose(ours.values, theirs.values, atol=0.5)
    assert set(ours.source.scene_ids) <= set(theirs.source.scene_ids)  # ours are those with a clear pixel


@pytest.fixture(scope="module")
def gee():
    from earth import earth_engine

    with EarthEngineServer(WORLD) as server:
        yield earth_engine(server)


def test_the_last_day_of_a_window_does_not_count(stac_server):
    provider = stac(stac_server.site("earth-search", applied=True))
    june = ask("toulouse", ("B4",), TemporalSpec.range("2022-06-02", "2022-06-12"), cloudy_pct=100)
    days = {f"{time:%m-%d}" for time in provider.fetch(june).source.scene_times}
    assert days <= {"06-02", "06-07"} and "06-02" in days


def test_enough_clear_scenes_are_enough_and_those_with_least_cloud_are_taken(stac_server):
    query = ask("toulouse", ("B4",), TemporalSpec.range("2022-04-01", "2022-09-01"), cloudy_pct=60)
    site = stac_server.site("earth-search", applied=True)
    chip = stac(site, max_scenes=3).fetch(query)
    by_cloud = sorted(scenes_of(WORLD, query), key=lambda scene: scene.cloud_pct)
    whole = [scene for scene in by_cloud if np.isfinite(pixels_of(scene, ["B4"], query.geobox)).all()][:3]
    equal(chip, composite([pixels_of(scene, ["B4"], query.geobox) for scene in whole], "median"))
    assert "passes with more cloud were not read" in " ".join(chip.source.notes)
    assert len({one["path"] for one in site.log if one["route"] == "range"}) <= 4


def test_a_chip_made_in_strips_is_the_same_chip(stac_server):
    from rs_embed.core.stopping import Threads
    from rs_embed.providers.stac.frames import Frames
    from rs_embed.providers.stac.scenes import SceneReader
    from rs_embed.providers.stac.selection import Selection

    query = ask("tile_edge", ("B4", "B11"))
    provider = stac(stac_server.site("earth-search", applied=True))
    held = provider._catalog.collection_for(query.sensor)
    selection = Selection(provider._catalog, provider._finder(), skip=True)
    passes = [(item,) for item in selection.selected(query, query.geobox, held).items]
    reader = SceneReader(provider._links.files, Threads(4, "test"), query.sensor, held, None)
    strips = Frames(reader, query.sensor, held, 100, memory_b=4 * 2 * 64 * len(passes) * 10)
    frame = strips.frame(passes, "median", query.geobox)
    np.testing.assert_array_equal(frame.values, expected(WORLD, query))


def test_overviews_are_never_read(stac_server):
    site = stac_server.site("earth-search", applied=True, overviews=True)
    fine = ask("toulouse", ("B4",), TemporalSpec.range("2022-06-02", "2022-06-03"))
    coarse = replace(fine, geobox=subgrid(fine.geobox, (0, 0), 4, (16, 16)))
    chip = stac(site).fetch(coarse)
    (scene,) = scenes_of(WORLD, fine)
    means = pixels_of(scene, ["B4"], fine.geobox)[0].reshape(16, 4, 16, 4).mean(axis=(1, 3))
    np.testing.assert_allclose(chip.values[0, 0], means, atol=0.51)
    (path,) = {one["path"] for one in site.log if one["route"] == "range"}
    with rasterio.open(f"/vsicurl/{site.url}/{path}", overview_level=0) as overview:  # had they been, it would show
        assert overview.read(1, window=((0, 9), (0, 9))).min() == 60_000


@pytest.mark.parametrize(
    ("lon", "boxes"),
    [
        (12.3, [(12.25, 47.5, 12.5, 47.75)]),
        (179.9999, [(179.75, 47.5, 180.0, 47.75), (-180.0, 47.5, -179.75, 47.75)]),
        (-179.9999, [(179.75, 47.5, 180.0, 47.75), (-180.0, 47.5, -179.75, 47.75)]),
        (-179.9, [(-180.0, 47.5, -179.75, 47.75)]),
    ],
)
def test_areas_are_boxes_that_every_api_takes(lon, boxes):
    from rs_embed.providers.stac.search import areas

    assert areas(geobox_for(PointBuffer(lon, 47.6, 320))) == boxes


def test_the_sensor_collection_is_the_shared_one(stac_server):
    chip = stac(stac_server.site("earth-search", applied=True)).fetch(ask(window=SUMMER))
    assert chip.source.collection == S2 and chip.source.provider == "stac"


def test_both_backends_keep_the_same_empty_frames_of_a_series_by_month(stac_server, gee):
    window = TemporalSpec.range("2022-05-20", "2022-08-05")
    query = ask("toulouse", ("B4",), window, series=Series(4, "month", keep_empty=True), cloud_mask="scl", cloudy_pct=5)
    chips = [Checked(one).fetch(query) for one in (gee, stac(stac_server.site("earth-search", applied=True)))]
    empty = [np.isnan(chip.values).all(axis=(1, 2, 3)).tolist() for chip in chips]
    assert empty[0] == empty[1] and True in empty[0] and False in empty[0]
    np.testing.assert_allclose(*(chip.values for chip in chips), atol=0.5)
    for chip in chips:
        assert [count == 0 for count in chip.source.scenes_per_frame] == empty[0] and len(chip.times) == 4
        middles = [part.middle for part in query.series.windows(window)]
        assert all(time == middle for time, middle, one in zip(chip.times, middles, empty[0], strict=True) if one)
