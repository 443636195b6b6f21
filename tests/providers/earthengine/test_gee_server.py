"""The loopback Earth Engine, asked by the unmodified client: what it computes and what it refuses."""

from collections.abc import Iterator
from datetime import UTC, datetime

import numpy as np
import pytest
from affine import Affine
from gee_server import PLACES, EarthEngineServer, Scene, World, connected, default_world, pixel
from gee_server.asking import S1, S1_FLOAT, S2, TOULOUSE, centres, chip, compute, outline, seen, world_of
from gee_server.scene import WHOLE
from odc.geo.geobox import GeoBox

ee = pytest.importorskip("ee")


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


def s2(start: str, end: str, geobox: GeoBox):
    return ee.ImageCollection(S2).filterDate(start, end).filterBounds(outline(geobox))


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


def test_a_grid_of_half_the_detail_reads_the_mean_of_four_pixels(fresh):
    fine = chip(*TOULOUSE, 12)
    coarse = GeoBox((6, 6), fine.affine @ Affine.scale(2), str(fine.crs))
    image = ee.Image(first_id()).select("B4", "SCL")
    pixels, answer = compute(image, fine), compute(image, coarse)
    mean = pixels["B4"].astype(float).reshape(6, 2, 6, 2).mean(axis=(1, 3))
    assert np.abs(answer["B4"] - mean).max() <= 0.5
    assert np.array_equal(answer["SCL"], pixels["SCL"][::2, ::2])


def test_reprojecting_fixes_the_pixels_before_they_are_read(fresh):
    box = chip(*TOULOUSE, 12)
    image = ee.Image(first_id()).select("B4")
    coarse = GeoBox((6, 6), box.affine @ Affine.scale(2), str(box.crs))
    fixed = compute(image.reproject(str(box.crs), list(coarse.affine[:6])), box)["B4"]
    assert np.array_equal(fixed, compute(image, coarse)["B4"].repeat(2, 0).repeat(2, 1))


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


def test_a_quality_mosaic_takes_each_pixel_from_its_best_image(fresh):
    box = chip(*TOULOUSE)
    answer = compute(s2("2022-05-01", "2022-06-01", box).select("B4", "B8").qualityMosaic("B8"), box)
    scenes = seen(fresh.world, "2022-05-01", "2022-06-01")
    stack = np.stack([fresh.world.scene_pixels(S2, scene.index, ("B4", "B8"), box) for scene in scenes])
    best = np.nanargmax(stack[:, 1], axis=0)
    assert np.array_equal(answer["B4"], np.take_along_axis(stack[:, 0], best[None], axis=0)[0])


def test_frames_of_calendar_months_come_in_one_request(fresh):
    box = chip(*TOULOUSE)
    year = s2("2022-01-01", "2023-01-01", box).select("B4")
    frames = [
        year.filter(ee.Filter.calendarRange(month, month, "month")).count().rename(f"t{month}") for month in (3, 4)
    ]
    answer = compute(ee.Image.cat(frames).toUint8(), box)
    for month in (3, 4):
        scenes = seen(fresh.world, f"2022-{month:02}-01", f"2022-{month + 1:02}-01")
        valid = [~np.isnan(fresh.world.scene_pixels(S2, scene.index, ("B4",), box)[0]) for scene in scenes]
        assert np.array_equal(answer[f"t{month}"], np.sum(valid, axis=0))
    assert len(fresh.requests) == 1


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
