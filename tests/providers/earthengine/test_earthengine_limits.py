"""Requests that would be too large are split, and put together again."""

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from earth import S2, ask, earth_engine, expected, pixels_of, routes
from gee_server import PLACES, EarthEngineServer, World
from gee_server.places import s2_scenes
from hypothesis import given, settings
from hypothesis import strategies as st

from rs_embed.core.bands import COLLECTIONS
from rs_embed.core.specs import SensorSpec, Series, TemporalSpec
from rs_embed.errors import ReadError
from rs_embed.providers.base import Query
from rs_embed.providers.earthengine.archives import ARCHIVES
from rs_embed.providers.earthengine.pixels import FLOOR_PX, MAX_BANDS, MAX_BYTES, MAX_SIDE_PX, Piece, decode, pieces

ALL_12 = tuple(COLLECTIONS[S2])


def sensor_of(collection: str, count: int) -> SensorSpec:
    return SensorSpec(collection, tuple(COLLECTIONS[collection])[:count])


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 400),
    st.tuples(st.integers(1, 33_000), st.integers(1, 33_000)),
    st.sampled_from(["COPERNICUS/S2_SR_HARMONIZED", "COPERNICUS/S1_GRD", "COPERNICUS/DEM/GLO30"]),
)
def test_pieces_cover_every_frame_and_pixel_once_and_keep_the_limits(frames, shape, collection):
    sensor = sensor_of(collection, 4 if "S1" in collection else 12)
    found = pieces(frames, shape, sensor, ARCHIVES[collection])
    assert sum(one.frames * one.height * one.width for one in found) == frames * shape[0] * shape[1]
    corners = {(one.first_frame, one.row, one.col) for one in found}
    assert len(corners) == len(found)
    value = 3 if "S2" in collection else 5
    for one in found:
        bands = one.frames * (len(sensor.bands) + 1)
        assert bands <= MAX_BANDS and max(one.height, one.width) <= MAX_SIDE_PX
        assert one.height * one.width * one.frames * (len(sensor.bands) * value + 3) <= MAX_BYTES
        assert one.row + one.height <= shape[0] and one.col + one.width <= shape[1]


def test_a_usual_chip_is_one_piece():
    for side, frames in ((288, 8), (1024, 1), (128, 70)):
        assert len(pieces(frames, (side, side), sensor_of(S2, 12), ARCHIVES[S2])) == 1


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 9), st.tuples(st.integers(1, 200), st.integers(1, 200)))
def test_what_a_piece_is_split_into_covers_it_once_and_ends_at_the_floor(frames, shape):
    covered = np.zeros((frames, *shape), int)
    waiting, depth = [(Piece(0, frames, 0, 0, *shape), 0)], 0
    while waiting:
        one, level = waiting.pop()
        depth = max(depth, level)
        parts = one.smaller()
        waiting += [(part, level + 1) for part in parts]
        if not parts:
            assert one.frames == 1 and max(one.height, one.width) <= FLOOR_PX
            rows, cols = slice(one.row, one.row + one.height), slice(one.col, one.col + one.width)
            covered[one.first_frame : one.first_frame + one.frames, rows, cols] += 1
    assert (covered == 1).all()
    assert depth <= math.ceil(math.log2(frames)) + math.ceil(math.log2(max(*shape, FLOOR_PX) / FLOOR_PX)) + 1


@pytest.fixture(scope="module")
def server():
    lon, lat = PLACES["toulouse"]
    days = [datetime(2022, 1, 1, tzinfo=UTC) + timedelta(days=4 * i) for i in range(91)]
    with EarthEngineServer(World(s2_scenes(lon, lat, days, cloud_pct=0.0))) as server:
        yield server


@pytest.mark.slow
def test_a_chip_of_more_than_48_mib_comes_in_pieces_that_fit_together(server):
    server.reset()
    query = ask(bands=("B4",), window=TemporalSpec.range("2022-06-10", "2022-06-14"), side_m=29_000)
    assert query.geobox.shape == (2900, 2900)
    server.latency_s = 0.5  # so that the first piece is still under way when the last is asked for
    chip = earth_engine(server, provenance=False, timeout_s=600).fetch(query)
    server.latency_s = 0.0
    assert routes(server) == ["pixels"] * 4 and server.high_water == 4
    for rows, cols in ((slice(0, 9), slice(0, 2900)), (slice(1420, 1480), slice(1420, 1480)), (slice(2890, 2900),) * 2):
        part = Query("M", query.sensor, query.geobox[rows, cols], query.window)
        np.testing.assert_array_equal(chip.values[0, :, rows, cols], expected(server.world, part))


@pytest.mark.slow
def test_more_than_1024_bands_come_in_several_requests_frame_by_frame(server):
    server.reset()
    query = ask(bands=ALL_12, window=TemporalSpec.year(2022), side_m=40, series=Series(100, "scenes"))
    server.latency_s = 0.2  # so that the first piece is still under way when the second is asked for
    chip = earth_engine(server).fetch(query)
    server.latency_s = 0.0
    assert len(chip.times) * 13 > 1024
    assert routes(server) == ["value", "pixels", "pixels"] and server.high_water == 2
    scenes = {scene.index: scene for scene in server.world.scenes if scene.collection == S2}
    for values, scene_id in zip(chip.values, chip.source.scene_ids, strict=True):
        np.testing.assert_array_equal(values, pixels_of(scenes[scene_id], ALL_12, query.geobox))


def test_pixels_of_another_shape_or_of_other_bands_are_not_taken_for_those_asked_for():
    import io

    table = np.zeros((4, 5), [("f0_B2", np.uint16)])
    body = io.BytesIO()
    np.save(body, table)
    assert decode(body.getvalue(), ["f0_B2"], (4, 5)).shape == (1, 4, 5)
    for names, shape in ((["f0_B3"], (4, 5)), (["f0_B2"], (5, 4))):
        with pytest.raises(ReadError, match="Expected 1 bands"):
            decode(body.getvalue(), names, shape)
    with pytest.raises(ReadError, match="cannot be read"):
        decode(body.getvalue()[:-7], ["f0_B2"], (4, 5))
