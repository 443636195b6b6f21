"""Which scenes make which frame, and what is said where there are none."""

from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from earth import S2, ask, earth_engine, frames_of, routes, scenes_of
from gee_server import PLACES, EarthEngineServer, Scene, World, default_world
from gee_server.mgrs import TILE_M

from rs_embed.core.geo import geobox_for
from rs_embed.core.specs import BBox, SensorSpec, Series, TemporalSpec
from rs_embed.errors import NoImagery, NoValidPixels, OutsideCoverage, SpecError
from rs_embed.providers.base import Query
from rs_embed.providers.common.composite import composite

YEAR = TemporalSpec.year(2022)
LEFT = 300_000
"""Of the tile of Toulouse, 31TCJ."""
OVERLAP = BBox(LEFT + 99_000, 4_839_000, LEFT + 101_000, 4_840_000, crs="EPSG:32631")
"""2 x 1 km of which the next tile in the east holds the eastern half, and this one all."""


@pytest.fixture(scope="module")
def server():
    with EarthEngineServer(default_world()) as server:
        yield server


@contextmanager
def world_of(*scenes: Scene):
    with EarthEngineServer(World(scenes)) as server:
        yield server, earth_engine(server)


def granule(day: int, *, left=LEFT, swath=(-9.0, 9.0), cloud=0.0, minute=50, tile="31TCJ", **properties) -> Scene:
    when = datetime(2022, 6, 1, 10, minute, tzinfo=UTC) + timedelta(days=day - 1)
    index = f"202206{day:02d}T10{minute}_{tile}"
    told = {"CLOUDY_PIXEL_PERCENTAGE": cloud, "PROCESSING_BASELINE": "04.00", **properties}
    told = {name: value for name, value in told.items() if value is not None}
    return Scene(S2, index, when, "EPSG:32631", left, 4_900_020, TILE_M, TILE_M, told, cloud, swath)


def over_the_edge(how: str = "first", series: Series | None = None, scale_m: float = 10, **sensor) -> Query:
    june = TemporalSpec.range("2022-06-01", "2022-07-01")
    return Query(
        "M", SensorSpec(S2, ("B2",), scale_m, composite=how, **sensor), geobox_for(OVERLAP, scale_m), june, series
    )


WEST, EAST = {"swath": (-9.0, 0.8)}, {"left": LEFT + 99_960, "tile": "31TDJ"}
"""A granule that ends within the box, and one that begins within it."""


def test_granules_of_one_pass_are_put_together_and_preferred_to_half_a_picture():
    west, east = granule(2, **WEST), granule(2, minute=51, **EAST)
    lone = granule(9, **WEST)
    query = over_the_edge()
    with world_of(west, east, lone) as (server, provider):
        chip = provider.fetch(query)
        frames = frames_of(server.world, query, [west, east])
    assert set(chip.source.scene_ids) == {west.index, east.index}
    assert chip.source.scenes_per_frame == (2,)
    np.testing.assert_array_equal(chip.values[0], np.where(np.isfinite(frames[0]), frames[0], frames[1]))
    assert chip.source.clear_observations == pytest.approx(np.isfinite(chip.values).mean())


def test_of_passes_that_show_as_much_the_less_cloudy_scene_is_taken_then_the_later():
    with world_of(granule(2, cloud=20.0), granule(5, cloud=3.0), granule(9, cloud=8.0)) as (_, provider):
        assert provider.fetch(over_the_edge()).source.scene_ids[0].startswith("20220605")
    with world_of(granule(2), granule(5)) as (_, provider):
        assert provider.fetch(over_the_edge()).source.scene_ids[0].startswith("20220605")


def test_clearest_means_the_chip_and_not_the_whole_scene():
    half, whole = granule(2, cloud=0.0, **WEST), granule(5, cloud=15.0)
    with world_of(half, whole) as (_, provider):
        assert provider.fetch(over_the_edge()).source.scene_ids == (whole.index,)


def test_a_pixel_that_a_scene_shows_in_some_bands_only_is_not_mixed_from_two_scenes():
    west, east = granule(2, **WEST), granule(9, swath=(0.799, 9.0))
    asked = over_the_edge("mosaic")
    query = Query("M", SensorSpec(S2, ("B2", "B1"), composite="mosaic"), asked.geobox, asked.window)
    with world_of(west, east) as (server, provider):
        chip = provider.fetch(query)
        frames = sorted(frames_of(server.world, query, [west, east]), key=lambda frame: np.isfinite(frame[0]).sum())
    wanted = np.full(frames[0].shape, np.nan, np.float32)
    for frame in frames:
        whole = np.isfinite(frame).all(axis=0)
        assert (whole != np.isfinite(frame).any(axis=0)).any()
        wanted[:, whole] = frame[:, whole]
    np.testing.assert_array_equal(chip.values[0], wanted)


def test_a_scene_that_does_not_tell_its_cloud_is_left_out_of_pixels_and_provenance():
    told, silent = granule(2), granule(5, CLOUDY_PIXEL_PERCENTAGE=None)
    query = over_the_edge("median")
    with world_of(told, silent) as (server, provider):
        chip = provider.fetch(query)
        np.testing.assert_array_equal(chip.values[0], frames_of(server.world, query, [told])[0])
    assert chip.source.scene_ids == (told.index,)
    assert chip.source.clear_observations == 1


@pytest.mark.slow
def test_eight_frames_are_two_requests_and_each_is_the_composite_of_its_sub_window(server):
    server.reset()
    query = ask(window=YEAR, series=Series(8, "composite"), cloud_mask="scl")
    chip = earth_engine(server).fetch(query)
    assert routes(server) == ["value", "pixels"]
    assert chip.values.shape == (8, 3, 64, 64)
    for values, time, part in zip(chip.values, chip.times, YEAR.split(8), strict=True):
        one = ask(window=part, cloud_mask="scl")
        np.testing.assert_allclose(values, composite(frames_of(server.world, one), "median"), atol=0.5)
        seconds = [scene.when.timestamp() for scene in scenes_of(server.world, one)]
        assert time.timestamp() == pytest.approx(np.mean(seconds))
    assert sum(chip.source.scenes_per_frame) == len(chip.source.scene_ids)


def test_a_sub_window_without_scenes_is_dropped():
    with world_of(granule(2), granule(3), granule(28)) as (server, provider):
        chip = provider.fetch(over_the_edge("median", Series(4, "composite")))
        assert routes(server) == ["value", "pixels"]
    assert [f"{time:%d}" for time in chip.times] == ["02", "28"]  # the mean of 2 and 3 June, 10:50, is on the 2nd
    assert chip.source.scenes_per_frame == (2, 1)


def test_a_series_of_scenes_has_every_day_or_the_clearest_of_each_sub_window():
    days = [granule(day, cloud=float(30 - day)) for day in (2, 5, 9, 16, 23, 28)]
    with world_of(*days) as (server, provider):
        every = provider.fetch(over_the_edge("median", Series(8, "scenes")))
        chosen = provider.fetch(over_the_edge("median", Series(2, "scenes")))
        for chip in (every, chosen):
            for values, scene_id in zip(chip.values, chip.source.scene_ids, strict=True):
                scene = next(one for one in days if one.index == scene_id)
                np.testing.assert_array_equal(values, frames_of(server.world, over_the_edge(), [scene])[0])
        assert routes(server) == ["value", "pixels", "pixels"]
    assert every.times == tuple(scene.when for scene in days)
    assert [f"{time:%d}" for time in chosen.times] == ["09", "28"]


def test_frames_without_a_valid_pixel_are_left_out():
    overcast, clear = granule(16, cloud=100.0), granule(20)
    with world_of(granule(2), overcast, clear) as (_, provider):
        chip = provider.fetch(over_the_edge("median", Series(5, "scenes"), cloud_mask="scl", cloudy_pct=100))
    assert [f"{time:%d}" for time in chip.times] == ["02", "20"]
    assert len(chip.source.scene_ids) == 2


def test_a_swath_edge_is_nodata_and_is_counted():
    scene = granule(2, **WEST)
    query = over_the_edge("median")
    with world_of(scene) as (server, provider):
        chip = provider.fetch(query)
        (wanted,) = frames_of(server.world, query, [scene])
    np.testing.assert_array_equal(chip.values[0], wanted)
    assert 0.05 < chip.valid_fraction < 0.95
    assert chip.valid_fraction == np.isfinite(wanted).mean()


@pytest.mark.parametrize("how", ["median", "first", "mosaic"])
@pytest.mark.parametrize("provenance", [True, False])
def test_no_imagery_names_what_each_filter_left(how, provenance):
    scenes = [granule(2, cloud=40.0), granule(5, cloud=60.0), granule(9, CLOUDY_PIXEL_PERCENTAGE=None)]
    with world_of(*scenes) as (server, _), pytest.raises(NoImagery) as caught:
        earth_engine(server, provenance=provenance).fetch(over_the_edge(how, cloudy_pct=35))
    text = str(caught.value)
    assert f"Expected {S2} from 2022-06-01 up to 2022-07-01" in text
    assert "3 in the window, of these 0 with at most 35 % cloud" in text
    assert "lon 1." in text and "lat 43." in text and "raise cloudy_pct" in text
    assert routes(server).count("pixels") <= 1


def test_an_empty_window_is_told_from_a_place_that_is_never_seen(server):
    provider = earth_engine(server)
    with pytest.raises(NoImagery, match="up to 1999"):
        provider.fetch(ask(window=TemporalSpec.range("1998-01-01", "1999-01-01")))
    lon, lat = PLACES["toulouse"][0], 10.0
    place = geobox_for(BBox(lon, lat, lon + 0.01, lat + 0.01), 10)
    with pytest.raises(OutsideCoverage, match="has none there"):
        provider.fetch(Query("M", SensorSpec(S2, ("B2",)), place, YEAR))
    with pytest.raises(OutsideCoverage, match="GLO30"):
        provider.fetch(Query("M", SensorSpec("COPERNICUS/DEM/GLO30", ("DEM",)), place, None))


def test_scenes_that_are_all_cloud_are_told_from_no_scenes():
    with (
        world_of(granule(2, cloud=100.0)) as (_, provider),
        pytest.raises(NoValidPixels, match="only nodata") as caught,
    ):
        provider.fetch(over_the_edge("median", cloud_mask="scl", cloudy_pct=100))
    assert "cloud_mask" in str(caught.value)


def test_a_place_and_days_must_be_given(server):
    provider, query = earth_engine(server), ask()
    with pytest.raises(SpecError, match="Earth Engine covers the Earth"):
        provider.fetch(Query("M", query.sensor, None, query.window))
    with pytest.raises(SpecError, match="Expected a window of days"):
        provider.fetch(ask(window=None))
