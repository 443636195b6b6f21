"""What can go wrong between us and Earth Engine, and what comes of it."""

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pytest
from canary import CANARY, QUOTED, told
from earth import S2, ask, day_of, earth_engine, expected, routes
from gee_server import PLACES, EarthEngineServer, Fault, Scene, World, faults
from gee_server.mgrs import TILE_M
from gee_server.places import s2_scenes

from rs_embed.core.geo import geobox_for
from rs_embed.core.specs import BBox, PointBuffer, Series, TemporalSpec
from rs_embed.errors import (
    AccessRefused,
    ComputationTimedOut,
    NotRegistered,
    QuotaExceeded,
    ReadError,
    RequestTooLarge,
    RSEmbedError,
    SensorNotOffered,
    ServiceUnavailable,
)
from rs_embed.providers.base import Query
from rs_embed.providers.common.retry import Backoff, Waits
from rs_embed.providers.earthengine import client as _ee_client

DAYS = [date(2022, 6, day) for day in (2, 7)]


@pytest.fixture(scope="module")
def world():
    lon, lat = PLACES["toulouse"]
    days = [datetime(day.year, day.month, day.day, tzinfo=UTC) for day in DAYS]
    return World(s2_scenes(lon, lat, days, cloud_pct=5.0))


@pytest.fixture
def server(world):
    with EarthEngineServer(world) as server:
        yield server


QUERY = ask(bands=("B2",), window=day_of(DAYS[0]))


@pytest.mark.parametrize(
    "fault",
    [
        faults.quota(times=2),
        faults.quota(retry_after=0, times=1),
        faults.too_many_aggregations(times=2),
        faults.internal(times=2),
        faults.unavailable(times=2),
        Fault("status", 502, "Bad gateway.", times=1),
        Fault("reset", times=2),
        Fault("cut", times=2),
        Fault("short", times=2),
        faults.unauthorized(times=1),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.status if fault.kind == 'status' else ''}-{fault.message[:9]}",
)
def test_what_passes_is_waited_out_and_the_pixels_are_right(server, fault):
    server.faults.append(fault)
    times = fault.times
    chip = earth_engine(server, provenance=False).fetch(QUERY)
    np.testing.assert_allclose(chip.values[0], expected(server.world, QUERY), atol=0.5)
    assert routes(server) == ["pixels"] * (times + 1)


def test_a_list_of_scenes_cut_short_is_asked_for_again(server):
    server.faults.append(Fault("short", times=2, routes=("value",)))
    assert earth_engine(server).fetch(QUERY).source.scene_ids
    assert routes(server) == ["value"] * 3 + ["pixels"]


@pytest.mark.slow
def test_a_request_that_hangs_is_given_up_and_made_again(server):
    server.faults.append(Fault("hang", times=1))
    chip = earth_engine(server, provenance=False, timeout_s=1.5).fetch(QUERY)
    assert chip.valid_fraction == 1
    assert routes(server) == ["pixels"] * 2


@pytest.fixture
def ignorant():
    """This process knows nothing of Earth Engine yet, as at its start."""
    _ee_client.forget()


@pytest.mark.parametrize("fault", [faults.unavailable(times=2), Fault("short", times=2), Fault("corrupt", times=2)])
def test_the_list_of_functions_is_asked_for_again_too(server, ignorant, fault):
    server.faults.append(replace(fault, routes=("algorithms",)))
    assert earth_engine(server).fetch(QUERY).valid_fraction == 1
    assert [one.route for one in server.requests] == ["algorithms"] * 3 + ["value", "pixels"]


def test_many_threads_that_begin_together_ask_for_the_list_of_functions_once(server, ignorant):
    provider = earth_engine(server, provenance=False)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(provider.fetch, queries(8)))
    assert sorted(one.route for one in server.requests) == ["algorithms"] + ["pixels"] * 8


@pytest.mark.parametrize(
    ("fault", "error", "word"),
    [
        (faults.forbidden(), AccessRefused, "Service Usage Consumer"),
        (faults.not_registered(), NotRegistered, "register"),
        (faults.not_signed_up(), NotRegistered, "register"),
        (faults.api_disabled(), NotRegistered, "enable the API at"),
        (Fault("status", 400, "Image.load: Image asset 'x' not found (does not exist or ...)."), SensorNotOffered, "x"),
        (Fault("status", 403, "The caller does not have permission."), AccessRefused, "Resource Viewer"),
    ],
    ids=lambda value: value.message[:20] if isinstance(value, Fault) else None,
)
def test_what_stays_is_asked_once_and_said_in_words(server, fault, error, word):
    server.faults.append(fault)
    with pytest.raises(error) as caught:
        earth_engine(server).fetch(QUERY)
    assert type(caught.value) is error
    assert routes(server) == ["value"]
    assert fault.message in str(caught.value)
    assert f"{fault.status} " in caught.value.facts["said"]
    assert word in str(caught.value)


def test_a_token_that_stays_refused_is_tried_once_more_and_no_more(server):
    server.faults.append(faults.unauthorized())
    with pytest.raises(AccessRefused, match="did not accept the credentials"):
        earth_engine(server).fetch(QUERY)
    assert routes(server) == ["value"] * 2


@pytest.mark.parametrize(("fault", "error"), [(faults.quota(), QuotaExceeded), (faults.internal(), ServiceUnavailable)])
def test_what_does_not_pass_in_time_is_given_up_with_the_service_s_words(server, fault, error):
    server.faults.append(fault)
    with pytest.raises(error) as caught:
        earth_engine(server, waits=Waits(Backoff(first_s=0.01, tries=3))).fetch(QUERY)
    assert routes(server) == ["value"] * 3 + ["pixels"] * 3
    assert "3 times" in caught.value.facts["tried"]
    assert fault.message in str(caught.value)


def test_nobody_there_is_said_as_that():
    with EarthEngineServer(World([])) as server:
        gone = earth_engine(server, waits=Waits(Backoff(first_s=0.01, tries=2)))
    with pytest.raises(ServiceUnavailable, match="broke the connection off"):
        gone.fetch(QUERY)


@pytest.mark.slow
def test_retry_after_is_obeyed(server):
    server.faults.append(faults.quota(retry_after=1, times=1))
    earth_engine(server, provenance=False).fetch(QUERY)
    first, second = server.pixel_requests
    assert second.started - first.ended >= 1


TOO_MUCH = pytest.mark.parametrize(
    ("fault", "error"),
    [
        (faults.too_large, RequestTooLarge),
        (faults.out_of_memory, RequestTooLarge),
        (faults.timed_out, ComputationTimedOut),
    ],
    ids=["size", "memory", "time"],
)


@TOO_MUCH
def test_what_is_found_too_much_is_quartered_and_quartered_again_until_it_passes(server, fault, error):
    server.faults.append(fault(when=faults.wider_than(16)))
    chip = earth_engine(server, provenance=False).fetch(QUERY)
    assert QUERY.geobox.shape == (64, 64)
    assert routes(server) == ["pixels"] * (1 + 4 + 16)
    server.faults.clear()
    np.testing.assert_array_equal(chip.values, earth_engine(server, provenance=False).fetch(QUERY).values)


@TOO_MUCH
def test_what_is_too_much_even_for_the_smallest_piece_is_an_error_after_a_few_requests(server, fault, error):
    server.faults.append(fault())
    with pytest.raises(error) as caught:
        earth_engine(server, provenance=False).fetch(QUERY)
    assert type(caught.value) is error
    assert [one.body["grid"]["dimensions"]["width"] for one in server.pixel_requests] == [64, 32, 16]


def test_frames_are_asked_for_apart_before_the_grid_is_cut():
    world = World(s2_scenes(*PLACES["toulouse"], [datetime(2022, 6, day, tzinfo=UTC) for day in (2, 7, 12)], 0.0))
    query = ask(bands=("B2",), side_m=160, series=Series(3, "scenes"))
    with EarthEngineServer(world) as server:
        whole = earth_engine(server).fetch(query)
        server.reset()
        server.faults.append(faults.timed_out(routes=("pixels",), when=lambda request: faults.frames_of(request) > 1))
        apart = earth_engine(server).fetch(query)
        assert [faults.frames_of(one) for one in server.pixel_requests] == [3, 2, 1, 1, 1]
    np.testing.assert_array_equal(apart.values, whole.values)


def test_no_more_pieces_are_made_after_the_time_that_there_is(server):
    server.faults.append(faults.timed_out(when=faults.wider_than(16)))
    ticks = iter(range(0, 10_000, 400))
    waits = Waits(Backoff(first_s=0.01), clock=lambda: float(next(ticks)))
    with pytest.raises(ComputationTimedOut):
        earth_engine(server, provenance=False, waits=waits, total_s=600).fetch(QUERY)
    assert len(server.pixel_requests) < 4


def test_a_refusal_in_other_words_keeps_them(server):
    server.faults.append(Fault("status", 400, "Invalid argument: nonsense."))
    with pytest.raises(ReadError, match="Invalid argument: nonsense"):
        earth_engine(server).fetch(QUERY)


@pytest.mark.parametrize("status", [400, 403, 429, 503])
def test_what_the_service_quotes_is_told_without_its_secrets(server, caplog, status):
    server.faults.append(Fault("status", status, QUOTED))
    with caplog.at_level("DEBUG", "rs_embed"), pytest.raises(RSEmbedError) as caught:
        earth_engine(server, provenance=False, waits=IMPATIENT).fetch(QUERY)
    assert "Refused" in told(caught.value)
    assert CANARY not in told(caught.value) + caplog.text


LIST = {"routes": ("value",)}
NO_LIST = [
    faults.timed_out(**LIST),
    faults.out_of_memory(**LIST),
    faults.unavailable(**LIST),
    faults.quota(**LIST),
    Fault("short", **LIST),
]
IMPATIENT = Waits(Backoff(first_s=0.01, tries=2))


@pytest.mark.parametrize("fault", NO_LIST, ids=lambda fault: fault.message[:12] if fault.kind == "status" else "cut")
def test_a_median_does_without_a_list_of_scenes_that_does_not_come_and_says_so(server, fault):
    whole = earth_engine(server).fetch(QUERY)
    server.faults.append(replace(fault))
    chip = earth_engine(server, waits=IMPATIENT).fetch(QUERY)
    np.testing.assert_array_equal(chip.values, whole.values)
    assert chip.source.scene_ids == ()
    assert any(
        re.match(r"The list of scenes did not come \((Earth Engine|Expected) .*", note) for note in chip.source.notes
    )


def test_pixels_that_depend_on_the_list_of_scenes_are_not_made_without_it(server):
    for sensor, series in (({"composite": "first"}, None), ({}, Series(2, "scenes")), ({}, Series(2, "composite"))):
        server.faults.append(faults.unavailable(**LIST))
        with pytest.raises(ServiceUnavailable):
            earth_engine(server, waits=IMPATIENT).fetch(ask(bands=("B2",), series=series, **sensor))
    assert server.pixel_requests == []


@pytest.mark.parametrize("fault", [faults.timed_out, faults.out_of_memory, faults.too_long_a_list])
@pytest.mark.parametrize("how", ["median", "first"])
def test_a_list_of_scenes_that_is_too_much_is_asked_for_in_halves(server, fault, how):
    query = ask(bands=("B2",), composite=how)
    whole = earth_engine(server).fetch(query)
    server.reset()
    server.faults.append(fault(times=2, **LIST))
    chip = earth_engine(server).fetch(query)
    assert routes(server) == ["value"] * 5 + ["pixels"]
    assert chip.source == whole.source
    np.testing.assert_array_equal(chip.values, whole.values)


TILES = {"31TCJ": 300_000, "31TDJ": 399_960, "31TEJ": 399_900, "31TFJ": 300_060}
"""All of them hold the place below."""


def tile_of(tile: str, left: float, when: datetime) -> Scene:
    told = {"CLOUDY_PIXEL_PERCENTAGE": 5.0, "PROCESSING_BASELINE": "04.00"}
    return Scene(S2, f"{when:%Y%m%dT%H}_{tile}", when, "EPSG:32631", left, 4_900_020, TILE_M, TILE_M, told, 5.0)


@pytest.mark.slow
def test_ten_years_on_four_tiles_are_listed_to_the_last_scene():
    days = [datetime(2013, 1, 1, tzinfo=UTC) + timedelta(hours=67 * i) for i in range(1300)]
    scenes = [tile_of(tile, left, day) for tile, left in TILES.items() for day in days]
    box = geobox_for(BBox(401_000, 4_839_000, 402_000, 4_840_000, crs="EPSG:32631"))
    query = Query("M", QUERY.sensor, box, TemporalSpec.range("2013-01-01", "2023-01-01"))
    with EarthEngineServer(World(scenes)) as server:
        provider = earth_engine(server, timeout_s=600)
        listed = provider._service().scenes(provider._place(query), query.window, measured=False)
        assert [request.status for request in server.data_requests] == [400, 200, 200]
    assert len(scenes) > 5000
    assert sorted(scene.id for scene in listed) == sorted(scene.index for scene in scenes)
    assert [scene.time for scene in listed] == sorted(scene.time for scene in listed)


def queries(count: int, side_m: float = 320) -> list[Query]:
    lon, lat = PLACES["toulouse"]
    places = [PointBuffer(lon + 0.0005 * (i % 20), lat + 0.0005 * (i // 20), side_m / 2) for i in range(count)]
    return [Query("M", QUERY.sensor, geobox_for(place), QUERY.window) for place in places]


@pytest.mark.slow
@pytest.mark.parametrize("provenance", [True, False])
def test_200_chips_arrive_right_although_a_tenth_of_all_requests_fails(server, provenance):
    server.script.at_random(0.1, seed=3)
    provider = earth_engine(server, provenance=provenance, concurrency=8)
    asked = queries(200)
    with ThreadPoolExecutor(24) as pool:
        chips = list(pool.map(provider.fetch, asked))
    for query, chip in zip(asked, chips, strict=True):
        np.testing.assert_allclose(chip.values[0], expected(server.world, query), atol=0.5)
    needed = 400 if provenance else 200
    assert needed < len(server.data_requests) < 1.3 * needed
    assert server.high_water <= 8
    print(f"\n{needed} needed, {len(server.data_requests)} made, {server.high_water} at once")


@pytest.mark.slow
def test_64_chips_are_asked_for_as_many_at_once_as_the_limit_allows(world):
    with EarthEngineServer(world, latency_s=0.3) as server:
        provider = earth_engine(server, provenance=False, concurrency=8)
        provider.check()
        with ThreadPoolExecutor(32) as pool:
            list(pool.map(provider.fetch, queries(64)))
    assert server.high_water == 8
