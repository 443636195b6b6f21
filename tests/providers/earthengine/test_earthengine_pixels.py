"""Pixels, against the scenes themselves, through the unmodified client over HTTP."""

from collections.abc import Iterator
from datetime import date

import numpy as np
import pytest
from earth import L1C, PLACES, S2, SUMMER, ask, day_of, earth_engine, expected, frames_of, pixels_of, routes, scenes_of
from gee_server import EarthEngineServer, default_world
from pyproj import Geod

from rs_embed.core.specs import Composite, TemporalSpec
from rs_embed.providers.earthengine.provider import EarthEngine


@pytest.fixture(scope="module")
def server() -> Iterator[EarthEngineServer]:
    with EarthEngineServer(default_world()) as server:
        yield server


@pytest.fixture
def provider(server) -> EarthEngine:
    server.reset()
    return earth_engine(server)


def clear_day(server: EarthEngineServer, place: str) -> TemporalSpec:
    """A day on which every scene over a place counts and shows all of it."""
    for scene in scenes_of(server.world, ask(place, window=TemporalSpec.year(2022))):
        query = ask(place, window=day_of(scene.when.date()))
        frames = frames_of(server.world, query)
        if np.isfinite(frames).any(axis=0).all():
            return query.window
    raise AssertionError(place)


QUICK = ("antimeridian",)
"""Of the places, that where most can go wrong."""


@pytest.mark.parametrize(
    "place",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in PLACES if name != "iowa"],
)
def test_the_pixels_of_a_day_are_those_of_its_scenes_on_exactly_the_grid_asked_for(server, provider, place):
    query = ask(place, window=clear_day(server, place))
    chip = provider.fetch(query)
    assert chip.geobox == query.geobox
    assert chip.valid_fraction == 1
    np.testing.assert_allclose(chip.values[0], expected(server.world, query), atol=0.5)


@pytest.mark.parametrize("place", PLACES)
def test_the_side_on_the_ground_is_right_within_half_a_percent_everywhere(place):
    geobox = ask(place, side_m=4000).geobox
    height, width = geobox.shape
    corners = [geobox.affine @ corner for corner in ((0, height / 2), (width, height / 2), (width / 2, 0))]
    from pyproj import Transformer

    to_degrees = Transformer.from_crs(str(geobox.crs), "EPSG:4326", always_xy=True)
    (west, south), (east, north), _ = (to_degrees.transform(*corner) for corner in corners)
    _, _, metres = Geod(ellps="WGS84").inv(west, south, east, north)
    assert metres == pytest.approx(4000, rel=0.005)


@pytest.mark.slow
def test_rows_go_from_north_to_south_and_columns_from_west_to_east(server, provider):
    query = ask(window=clear_day(server, "toulouse"))
    whole = provider.fetch(query).values[0]
    part = ask(window=query.window)
    corner = part.geobox[3:10, 5:20]
    cut = provider.fetch(type(part)(part.modality, part.sensor, corner, part.window)).values[0]
    np.testing.assert_array_equal(cut, whole[:, 3:10, 5:20])


@pytest.mark.parametrize("mask", ["none", "scl", "cs+"])
@pytest.mark.parametrize("how", ["median", "mean"])
@pytest.mark.parametrize("place", ["toulouse", "tile_edge"])
def test_median_and_mean_are_those_of_the_scenes_that_pass_the_filters(server, provider, place, how, mask):
    query = ask(place, composite=how, cloud_mask=mask)
    chip = provider.fetch(query)
    np.testing.assert_allclose(chip.values[0], expected(server.world, query), atol=0.5)
    counted = np.isfinite(frames_of(server.world, query))[:, 0].sum(axis=0).mean()
    assert chip.source.clear_observations == pytest.approx(counted)


@pytest.mark.parametrize("mask", ["none", "cs+"])
def test_level_1c_is_composited_alike_with_its_cirrus_band(server, provider, mask):
    query = ask(bands=("B2", "B10"), collection=L1C, cloud_mask=mask)
    np.testing.assert_allclose(provider.fetch(query).values[0], expected(server.world, query), atol=0.5)


@pytest.mark.parametrize("mask", ["none", "scl", "cs+"])
def test_a_mosaic_takes_each_pixel_whole_from_the_clearest_scene_that_has_it(server, provider, mask):
    query = ask(composite="mosaic", cloud_mask=mask)
    frames, scenes = frames_of(server.world, query), scenes_of(server.world, query)
    shown = [round(float(np.isfinite(frame[0]).mean()), 3) for frame in frames]
    cloud = [scene.properties["CLOUDY_PIXEL_PERCENTAGE"] for scene in scenes]
    wanted = np.full(frames[0].shape, np.nan, np.float32)
    for i in sorted(range(len(frames)), key=lambda i: (shown[i], -cloud[i])):
        whole = np.isfinite(frames[i]).all(axis=0)
        wanted[:, whole] = frames[i][:, whole]
    np.testing.assert_array_equal(provider.fetch(query).values[0], wanted)


def test_first_is_the_clearest_single_day_and_says_which(server, provider):
    query = ask(composite="first", cloud_mask="scl")
    chip = provider.fetch(query)
    chosen = next(scene for scene in server.world.scenes if scene.id == f"{S2}/{chip.source.scene_ids[0]}")
    (frame,) = frames_of(server.world, query, [chosen])
    np.testing.assert_array_equal(chip.values[0], frame)
    most = max(np.isfinite(one[0]).mean() for one in frames_of(server.world, query))
    assert np.isfinite(frame[0]).mean() == pytest.approx(most, abs=0.001)
    assert chip.times == chip.source.scene_times == (chosen.when,)


@pytest.mark.slow
@pytest.mark.parametrize(("scale_m", "bands"), [(10, ("B5", "B9")), (20, ("B8A", "B12")), (60, ("B1",))])
def test_coarser_bands_are_repeated_on_a_finer_grid(server, provider, scale_m, bands):
    query = ask(bands=bands, window=clear_day(server, "toulouse"), scale_m=scale_m)
    chip = provider.fetch(query)
    np.testing.assert_array_equal(chip.values[0], expected(server.world, query))
    (scene,) = scenes_of(server.world, query)
    np.testing.assert_array_equal(chip.values[0], pixels_of(scene, bands, query.geobox))


def test_a_window_ends_before_its_last_day(server, provider):
    days = sorted({scene.when.date() for scene in scenes_of(server.world, ask())})
    chip = provider.fetch(ask(window=TemporalSpec(days[0], days[-1])))
    assert {time.date() for time in chip.source.scene_times} == set(days[:-1])


def test_a_chip_is_one_request_without_provenance_and_two_with_it_the_list_being_kept(server):
    server.reset()
    assert earth_engine(server, provenance=False).fetch(ask()).times == (None,)
    assert routes(server) == ["pixels"]
    provider = earth_engine(server)
    provider.fetch(ask())
    assert routes(server)[1:] == ["value", "pixels"]
    provider.fetch(ask(bands=("B3",), composite="mean"))
    assert routes(server)[3:] == ["pixels"]


def test_the_source_tells_scenes_days_baseline_and_offset(server, provider):
    query = ask()
    source = provider.fetch(query).source
    scenes = scenes_of(server.world, query)
    assert source.scene_ids == tuple(scene.index for scene in scenes)
    assert source.scene_times == tuple(scene.when for scene in scenes)
    assert source.scenes_per_frame == (len(scenes),)
    assert source.offset_applied == 0
    assert "Processing baseline 04.00" in source.notes[0]
    assert (source.provider, source.collection) == ("gee", S2)


@pytest.mark.parametrize("how", ["median", "mosaic"])
def test_an_answer_holds_small_types(server, provider, how: Composite):
    provider.fetch(ask(composite=how, window=SUMMER))
    sent = server.pixel_requests[-1].sent_bytes
    assert sent < 64 * 64 * 4 * 2 + 500


def test_no_request_says_more_than_it_must(server, provider):
    provider.fetch(ask(window=day_of(date(2022, 6, 17)), cloudy_pct=100))
    graph = str(server.pixel_requests[-1].body["expression"])
    assert "getInfo" not in graph
    assert len(graph) < 20_000
