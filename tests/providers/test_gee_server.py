"""The loopback Earth Engine, asked by the unmodified client: what it computes, refuses and breaks."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import numpy as np
import pytest
from affine import Affine
from gee_server import PLACES, EarthEngineServer, Fault, Scene, World, connected, default_world, faults, pixel
from gee_server.mgrs import utm_crs, utm_zone
from gee_server.places import s2_products
from gee_server.scene import WHOLE
from odc.geo.geobox import GeoBox
from pyproj import Transformer

ee = pytest.importorskip("ee")

S2, S1, S1_FLOAT = "COPERNICUS/S2_SR_HARMONIZED", "COPERNICUS/S1_GRD", "COPERNICUS/S1_GRD_FLOAT"
TOULOUSE = PLACES["toulouse"]


@pytest.fixture(scope="module")
def server() -> Iterator[EarthEngineServer]:
    with EarthEngineServer(default_world()) as server, connected(server):
        yield server


@pytest.fixture
def fresh(server) -> EarthEngineServer:
    """The server without a past."""
    server.reset()
    server.latency_s = 0.0
    return server


def chip(lon: float, lat: float, side_px: int = 24, step: float = 10.0, crs: str | None = None) -> GeoBox:
    """A square around a place, snapped to 60 m."""
    crs = crs or utm_crs(utm_zone(lon), lat)
    x, y = Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(lon, lat)
    west, north = (round(one / 60) * 60 for one in (x - side_px * step / 2, y + side_px * step / 2))
    return GeoBox((side_px, side_px), Affine(step, 0, west, 0, -step, north), crs)


def grid_of(geobox: GeoBox) -> dict:
    sx, shx, tx, shy, sy, ty = geobox.affine[:6]
    affine = {"scaleX": sx, "shearX": shx, "translateX": tx, "shearY": shy, "scaleY": sy, "translateY": ty}
    size = {"width": geobox.shape[1], "height": geobox.shape[0]}
    return {"dimensions": size, "affineTransform": affine, "crsCode": str(geobox.crs)}


def compute(image, geobox: GeoBox) -> np.ndarray:
    return ee.data.computePixels({"expression": image, "fileFormat": "NUMPY_NDARRAY", "grid": grid_of(geobox)})


def centres(geobox: GeoBox, crs: str = "EPSG:4326") -> tuple[np.ndarray, np.ndarray]:
    rows, cols = np.mgrid[: geobox.shape[0], : geobox.shape[1]] + 0.5
    return Transformer.from_crs(str(geobox.crs), crs, always_xy=True).transform(*(geobox.affine @ (cols, rows)))


def outline(geobox: GeoBox):
    lon, lat = centres(geobox)
    return ee.Geometry.Rectangle([lon.min(), lat.min(), lon.max(), lat.max()])


def s2(start: str, end: str, geobox: GeoBox):
    return ee.ImageCollection(S2).filterDate(start, end).filterBounds(outline(geobox))


def seen(world: World, start: str, end: str, collection: str = S2, place=TOULOUSE) -> list[Scene]:
    """Scenes at a place within half-open days, by date."""
    first, last = (datetime.fromisoformat(day).replace(tzinfo=UTC) for day in (start, end))
    return [scene for scene in world.scenes_near(collection, *place) if first <= scene.when < last]


def world_of(cloud_pct: float, days: int = 1, collections=(S2,)) -> World:
    """One tile around Toulouse, on the first days of June 2022."""
    scenes = []
    for day in range(1, days + 1):
        when = datetime(2022, 6, day, tzinfo=UTC)
        scenes += s2_products("31TCJ", "EPSG:32631", 300000, 4900020, when, cloud_pct)
    return World(scenes)


def test_a_pixel_is_the_ground_under_its_centre(fresh):
    box = chip(*PLACES["south"])
    scenes = seen(fresh.world, "2022-03-01", "2022-06-01", place=PLACES["south"])
    scene = next(one for one in scenes if one.cloud_pct < 40 and one.swath == WHOLE)
    answer = compute(ee.Image(scene.id).select("B4", "SCL"), box)
    lon, lat = centres(box)
    assert answer.shape == (24, 24) and answer.dtype["B4"] == "<u2" and answer.dtype["SCL"] == "u1"
    clear = ~np.isin(answer["SCL"], (3, 8, 9, 10))
    assert clear.any()
    assert (answer["B4"] == pixel(S2, "B4", lon, lat, scene.when))[clear].all()


@pytest.mark.parametrize("place", PLACES)
def test_scenes_lie_where_the_grid_says(fresh, place):
    box = chip(*PLACES[place])
    scenes = seen(fresh.world, "2022-06-01", "2022-07-01", place=PLACES[place])
    same_zone = next(scene for scene in scenes if scene.crs == str(box.crs))
    for scene in (same_zone, next((one for one in scenes if one.crs != str(box.crs)), same_zone)):
        wanted = fresh.world.scene_pixels(S2, scene.index, ("B2", "B11", "B9"), box)
        answer = compute(ee.Image(scene.id).select("B2", "B11", "B9"), box)
        assert np.array_equal(np.stack([answer[name] for name in answer.dtype.names]), np.nan_to_num(wanted))


def test_a_20_m_band_repeats_on_a_10_m_grid_unless_resampled(fresh):
    box, coarse = chip(*TOULOUSE, 12), chip(*TOULOUSE, 12)
    coarse = GeoBox((10, 10), box.affine @ Affine.translation(-4, -4) @ Affine.scale(2), str(box.crs))
    image = ee.Image(seen(fresh.world, "2022-06-01", "2022-07-01")[0].id).select("B11")
    native = compute(image, coarse)["B11"].astype(float)
    repeated = native.repeat(2, 0).repeat(2, 1)[4:16, 4:16]
    assert np.array_equal(compute(image, box)["B11"], repeated)
    across = native[:, [0, *range(9)]] * 0.25 + native * 0.75, native * 0.75 + native[:, [*range(1, 10), 9]] * 0.25
    wide = np.stack(across, axis=2).reshape(10, 20)
    down = wide[[0, *range(9)]] * 0.25 + wide * 0.75, wide * 0.75 + wide[[*range(1, 10), 9]] * 0.25
    smooth = np.stack(down, axis=1).reshape(20, 20)[4:16, 4:16]
    assert np.abs(compute(image.resample("bilinear"), box)["B11"] - smooth).max() < 1e-6


def test_resampling_a_composite_changes_nothing(fresh):
    box = chip(*TOULOUSE, 12)
    median = s2("2022-06-01", "2022-06-20", box).select("B11").median()
    assert np.array_equal(compute(median, box), compute(median.resample("bilinear"), box))


def test_filter_date_takes_the_first_day_and_leaves_the_last(fresh):
    box = chip(*TOULOUSE)
    days = [scene.when for scene in seen(fresh.world, "2022-05-01", "2022-07-01")]
    first, last = f"{days[1]:%Y-%m-%d}", f"{days[4]:%Y-%m-%d}"
    times = s2(first, last, box).aggregate_array("system:time_start").getInfo()
    assert times == [int(when.timestamp() * 1000) for when in days[1:4]]


def test_filter_bounds_reaches_across_the_antimeridian(fresh):
    ring = [[179.99, -16.81], [-179.99, -16.81], [-179.99, -16.79], [179.99, -16.79]]
    tiles = ee.ImageCollection(S2).filterBounds(ee.Geometry.Polygon([ring])).aggregate_histogram("MGRS_TILE").getInfo()
    assert {name[:2] for name in tiles} == {"60", "01"}


def test_the_median_of_what_a_mapped_mask_leaves_is_numpys(fresh):
    box = chip(*TOULOUSE, 48)
    scenes = seen(fresh.world, "2022-04-01", "2022-06-01")

    def clear(image):
        scl = image.select("SCL")
        return image.select("B3", "B12").updateMask(scl.neq(3).And(scl.neq(8)).And(scl.neq(9)).And(scl.neq(10)))

    answer = compute(s2("2022-04-01", "2022-06-01", box).map(clear).median(), box)
    stack = np.stack([fresh.world.scene_pixels(S2, scene.index, ("B3", "B12", "SCL"), box) for scene in scenes])
    stack[:, :2] = np.where(np.isin(stack[:, 2:], (3, 8, 9, 10)), np.nan, stack[:, :2])
    wanted = np.nanmedian(stack[:, :2], axis=0)
    assert answer.dtype["B3"] == "<f8"
    assert np.array_equal(np.stack([answer["B3"], answer["B12"]]), wanted)


def test_a_masked_pixel_is_0_and_the_mask_tells_it_from_data():
    scene = Scene(
        S2, "edge", datetime(2022, 6, 1, tzinfo=UTC), "EPSG:32631", 300000, 4900020, 109800, 109800, {}, 0.0, (0.5, 9.0)
    )
    x = 300000 + 109800 * (0.5 + 0.2 * 0.5)
    box = GeoBox((20, 20), Affine(10, 0, round(x / 60) * 60 - 120, 0, -10, 4845120), "EPSG:32631")
    with EarthEngineServer(World([scene])) as server, connected(server):
        image = ee.Image(scene.id).select("B8")
        answer = compute(image.addBands(image.mask().rename("valid").toUint8()), box)
        filled = compute(image.toInt32().unmask(-9999, False), box)
    wanted = server.world.scene_pixels(S2, "edge", ("B8",), box)[0]
    valid = ~np.isnan(wanted)
    assert 0 < valid.sum() < valid.size
    assert np.array_equal(answer["valid"], valid) and (answer["B8"][~valid] == 0).all()
    assert np.array_equal(filled["B8"], np.where(valid, wanted, -9999))


def test_a_mosaic_has_the_last_image_on_top(fresh):
    box = chip(*TOULOUSE)
    scenes = seen(fresh.world, "2022-05-01", "2022-08-01")
    clearest = min(
        (one for one in scenes if "CLOUDY_PIXEL_PERCENTAGE" in one.properties), key=lambda one: one.cloud_pct
    )
    known = s2("2022-05-01", "2022-08-01", box).filter(ee.Filter.notNull(["CLOUDY_PIXEL_PERCENTAGE"]))
    answer = compute(known.sort("CLOUDY_PIXEL_PERCENTAGE", False).select("B4").mosaic(), box)
    wanted = fresh.world.scene_pixels(S2, clearest.index, ("B4",), box)[0]
    valid = ~np.isnan(wanted)
    assert valid.any() and np.array_equal(answer["B4"][valid], wanted[valid])


def test_the_collection_that_is_not_harmonised_carries_esas_offset():
    world, box = world_of(0.0), chip(*TOULOUSE)
    with EarthEngineServer(world) as server, connected(server):
        raw, mended = (
            compute(ee.ImageCollection(name).first().select("B4", "SCL"), box) for name in ("COPERNICUS/S2_SR", S2)
        )
    assert np.array_equal(raw["B4"], mended["B4"] + 1000) and np.array_equal(raw["SCL"], mended["SCL"])


def test_the_float_radar_is_the_power_of_the_decibels(fresh):
    box = chip(*TOULOUSE)
    region = outline(box)
    iw = ee.Filter.And(
        ee.Filter.eq("instrumentMode", "IW"),
        ee.Filter.listContains("transmitterReceiverPolarisation", "VH"),
        ee.Filter.eq("orbitProperties_pass", "DESCENDING"),
    )
    power, db = (
        ee.ImageCollection(name).filterBounds(region).filter(iw).select("VV").first() for name in (S1_FLOAT, S1)
    )
    answer = compute(power.log10().multiply(10).rename("dB").addBands(db), box)
    assert np.allclose(answer["dB"], answer["VV"], atol=1e-4) and answer.dtype["VV"] == "<f4"
    assert np.ptp(answer["VV"]) > 1


def test_casts_cut_decimals_and_stop_at_the_ends_of_the_range(fresh):
    box = chip(*TOULOUSE, 2)
    image = ee.Image.cat(
        ee.Image(2.9).toUint8(), ee.Image(-2.9).toInt16(), ee.Image(70000).toUint16(), ee.Image(-1).toByte()
    )
    answer = compute(image.rename("a", "b", "c", "d"), box)
    assert answer[0, 0].item() == (2, -2, 65535, 0)
    assert [answer.dtype[name].str for name in "abcd"] == ["|u1", "<i2", "<u2", "|u1"]


def test_arithmetic_loses_properties_and_map_keeps_the_index(fresh):
    first = s2("2022-06-01", "2022-06-12", chip(*TOULOUSE)).map(lambda image: image.multiply(2)).first()
    assert list(first.toDictionary().getInfo()) == [] and first.get("system:time_start").getInfo() is None
    assert first.get("system:index").getInfo() == seen(fresh.world, "2022-06-01", "2022-06-12")[0].index


def test_a_table_of_scenes_is_one_request(fresh):
    box = chip(*TOULOUSE)
    names = ["system:time_start", "CLOUDY_PIXEL_PERCENTAGE", "PROCESSING_BASELINE"]
    table = (
        s2("2022-06-01", "2022-07-01", box).map(lambda image: ee.Feature(None).copyProperties(image, names)).getInfo()
    )
    scenes = seen(fresh.world, "2022-06-01", "2022-07-01")
    assert [row["id"] for row in table["features"]] == [scene.index for scene in scenes]
    assert table["features"][0]["properties"]["system:time_start"] == scenes[0].time_ms
    assert [one.route for one in fresh.requests] == ["value"]


def test_the_clear_share_of_a_region_comes_from_a_linked_collection(fresh):
    box = chip(*TOULOUSE, 40)
    plus = ee.ImageCollection("GOOGLE/CLOUD_SCORE_PLUS/V1/S2_HARMONIZED")
    linked = s2("2022-06-01", "2022-07-01", box).linkCollection(plus, ["cs_cdf"])
    crs, affine = str(box.crs), list(box.affine[:6])

    def share(image):
        clear = image.select("cs_cdf").gte(0.6).unmask(0, False)
        mean = clear.reduceRegion(ee.Reducer.mean(), outline(box), None, crs, affine).get("cs_cdf")
        return ee.Feature(None).set("clear", mean)

    shares = linked.map(share).aggregate_array("clear").getInfo()
    bits = [compute(image_of(linked, i), box)["cs_cdf"] >= 0.6 for i in range(len(shares))]
    assert len(set(shares)) > 2
    assert np.allclose(shares, [bit.mean() for bit in bits], atol=0.05)


def image_of(collection, i: int):
    return ee.Image(collection.toList(1, i).get(0)).select("cs_cdf")


REFUSED = {
    "did not match any bands. Available bands: [B1, ": lambda: ee.Image(first_id()).select("B99"),
    "applied to an Image with no bands": lambda: empty().median().select("B4"),
    "Image.select: Parameter 'input' is required and may not be null": lambda: ee.Image(empty().first()).select("B4"),
    "Empty date ranges": lambda: ee.ImageCollection(S2).filterDate("2022-06-01", "2022-06-01").median(),
    "asset 'COPERNICUS/NO_SUCH' not found": lambda: ee.ImageCollection("COPERNICUS/NO_SUCH").median(),
    "has no 'Image.gradient' yet": lambda: ee.Image(first_id()).gradient(),
    "must contain the same number of bands": lambda: ee.Image([1, 2]).add(ee.Image([1, 2, 3])),
    "Invalid type": lambda: ee.Image(1).add(ee.Image(ee.Dictionary({"a": 1}).combine({"b": 2}))),
    "Total request size": lambda: ee.Image.constant([1.5] * 900),
    "must be less than or equal to 1024": lambda: ee.Image.constant([1] * 1025),
}  # fmt: skip


def first_id() -> str:
    return default_world().scenes_near(S2, *TOULOUSE)[0].id


def empty():
    return ee.ImageCollection(S2).filterDate("1990-01-01", "1991-01-01")


@pytest.mark.parametrize("message", REFUSED)
def test_what_the_service_refuses_is_refused_in_its_words(fresh, message):
    with pytest.raises(ee.EEException) as refused:
        compute(REFUSED[message](), chip(*TOULOUSE, 100))
    assert message in str(refused.value)
    assert refused.value.__context__.resp.status == 400


def test_too_many_pixels_on_a_side_are_refused(fresh):
    with pytest.raises(ee.EEException, match=r"Pixel grid dimensions \(32769x1\) must be less than or equal to 32768"):
        compute(ee.Image(1), GeoBox((1, 32769), Affine(10, 0, 0, 0, -10, 0), "EPSG:32631"))


STATUSES = [
    (faults.quota(retry_after=3, times=1), 429, "Quota exceeded"),
    (faults.internal(times=1), 500, "internal error"),
    (faults.unavailable(times=1), 503, "unavailable"),
    (faults.unauthorized(times=1), 401, "invalid authentication"),
    (faults.not_registered("mine", times=1), 403, "Project mine is not registered"),
    (faults.timed_out(times=1), 400, "Computation timed out."),
]


@pytest.mark.parametrize(("fault", "status", "message"), STATUSES, ids=[str(status) for _, status, _ in STATUSES])
def test_a_status_comes_once_and_then_the_answer(fresh, fault, status, message):
    fault.times = 1
    fresh.faults.append(fault)
    with pytest.raises(ee.EEException, match=message) as failed:
        ee.Number(1).add(1).getInfo()
    response = failed.value.__context__.resp
    assert response.status == status and response.get("retry-after") == fault.headers.get("Retry-After")
    assert ee.Number(1).add(1).getInfo() == 2
    assert [one.status for one in fresh.requests] == [status, 200]


@pytest.mark.parametrize(
    ("kind", "error"), [("reset", ConnectionError), ("cut", ConnectionError), ("short", ValueError)]
)
def test_a_broken_answer_breaks_the_client(fresh, kind, error):
    fresh.faults.append(Fault(kind, numbers=frozenset({2})))
    box = chip(*TOULOUSE, 16)
    image = ee.Image(first_id()).select("B2")
    whole = compute(image, box)
    with pytest.raises(error):
        compute(image, box)
    assert np.array_equal(compute(image, box), whole)


def test_a_server_that_hangs_is_left_after_the_deadline(fresh):
    fresh.faults.append(Fault("hang", times=1))
    ee.data.setDeadline(200)
    with pytest.raises(TimeoutError):
        ee.Number(1).getInfo()
    ee.data.setDeadline(0)
    assert ee.Number(1).getInfo() == 1
    assert [one.route for one in fresh.data_requests] == ["value", "value"]


def test_faults_by_chance_are_the_same_for_the_same_seed(fresh):
    def statuses() -> list[int]:
        fresh.reset()
        fresh.script.at_random(0.3, seed=5, kinds=[faults.unavailable(), faults.quota()])
        for i in range(20):
            try:
                ee.Number(i).getInfo()
            except ee.EEException:
                continue
        return [one.status for one in fresh.requests]

    first = statuses()
    assert first == statuses() and {200, 429, 503} == set(first)


def test_the_server_counts_how_many_it_serves_at_once(fresh):
    fresh.latency_s = 0.15
    started = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda i: ee.Number(i).getInfo(), range(8))) == list(range(8))
    assert time.monotonic() - started >= 0.3
    assert fresh.high_water == 4


def test_an_expired_token_is_refused_until_a_new_one_is_fetched():
    from google.oauth2.credentials import Credentials

    with EarthEngineServer(world_of(0.0), token=True) as server:
        credentials = Credentials(
            None, refresh_token="r", client_id="c", client_secret="s", token_uri=f"{server.url}/token"
        )
        with connected(server, credentials=credentials):
            assert ee.Number(1).getInfo() == 1
            server.expire_tokens()
            assert ee.Number(2).getInfo() == 2
    assert [one.route for one in server.requests if one.route in ("token", "value")][-4:] == [
        "value",
        "value",
        "token",
        "value",
    ]


def test_nothing_is_left_of_a_server_that_is_closed():
    before = set(threading.enumerate())
    with EarthEngineServer(world_of(10.0)) as server, connected(server):
        server.faults.append(Fault("hang", times=1))
        waiting = threading.Thread(target=lambda: pytest.raises(ConnectionError, ee.Number(1).getInfo))
        waiting.start()
        while not server.data_requests:
            time.sleep(0.01)
        server.closing.set()
        waiting.join()
    assert set(threading.enumerate()) == before
