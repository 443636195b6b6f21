"""What goes wrong with a store: what is tried again, what is nodata, and what is said."""

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import zarr
from published_stores import dequantised, mosaic, mosaic_pixel, paint
from zarr.codecs import Crc32cCodec, GzipCodec, ZstdCodec

from rs_embed import PointBuffer, TemporalSpec, geobox_for
from rs_embed.core.stopping import Stop, Stopped
from rs_embed.embedders.catalog import get_card
from rs_embed.errors import AccessRefused, NoValidPixels, QuotaExceeded, ReadError, ServiceUnavailable
from rs_embed.providers.base import Query
from rs_embed.providers.published import store as stores

SENSOR = get_card("alphaearth_v1").modalities[0].sensor
YEAR = TemporalSpec.year(2022)
PLACE = PointBuffer(lon=12.943, lat=47.765, buffer_m=200)
"""Where four shards meet."""
ROW, COL = mosaic_pixel(PLACE.lon, PLACE.lat)
ROWS, COLS = slice(ROW - 60, ROW + 60), slice(COL - 60, COL + 60)
CHUNKS, INDEX = r"/c/5/.* bytes=\d", r"/c/5/.* bytes=-"


@pytest.fixture(scope="module")
def painted(world):
    array = mosaic(world.folder / "aef-mosaic", compressors=[ZstdCodec(level=3), Crc32cCodec()])
    paint(array, 2022, ROWS, COLS)
    return array


@pytest.fixture
def right(provider, world, painted):
    """The values without faults."""
    values = provider().fetch(query()).values
    world.asked.clear()
    return values


def query(place=PLACE, window=YEAR) -> Query:
    return Query("embedding", SENSOR, geobox_for(place), window)


@pytest.mark.parametrize("fault", ["drop", 500, 503, 429, "garble", "short"])
@pytest.mark.parametrize("where", [CHUNKS, INDEX])
def test_what_may_pass_is_tried_again(provider, world, right, where, fault):
    world.fail(where, fault, times=1)
    np.testing.assert_array_equal(provider().fetch(query()).values, right)
    assert len({(one.path, one.span) for one in world.data}) < len(world.data)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["zarr.json", "embeddings/zarr.json"])
def test_metadata_are_tried_again_too(provider, world, right, name):
    world.fail(f"aef-mosaic/{name}", "drop", times=2)
    np.testing.assert_array_equal(provider().fetch(query()).values, right)


@pytest.mark.parametrize(
    ("fault", "error", "says"),
    [
        (500, ServiceUnavailable, r"an error of the server \(500\)"),
        (429, QuotaExceeded, "too many requests"),
        (403, AccessRefused, r"a refusal \(403\)"),
        (416, ReadError, r"a refusal \(416\)"),
        ("drop", ServiceUnavailable, "no answer"),
        ("garble", ReadError, "a wrong checksum"),
        ("short", ReadError, "bytes instead of"),
        ("whole", ReadError, "more than the bytes requested"),
    ],
)
@pytest.mark.parametrize("where", [CHUNKS, INDEX])
def test_what_stays_wrong_is_an_error_that_names_the_store(provider, world, painted, where, fault, error, says):
    world.fail(where, fault)
    with pytest.raises(error, match=says) as caught:
        provider().fetch(query())
    assert "aef-mosaic" in str(caught.value) or "AlphaEarth's public mosaic" in str(caught.value)
    assert caught.value.fix


def test_a_missing_shard_is_nodata_and_a_forbidden_one_an_error(provider, world, right):
    provider().fetch(query())
    files = sorted({one.path for one in world.data})
    assert len(files) == 4
    world.fail(files[0], 404)
    chip = provider().fetch(query())
    lost = np.isnan(chip.values[0, 0])
    assert 0 < lost.mean() < 1
    np.testing.assert_array_equal(chip.values[..., ~lost], right[..., ~lost])
    world.fail("/c/5/", 404)
    with pytest.raises(NoValidPixels):
        provider().fetch(query())
    world.faults.clear()
    world.fail(files[0], 403)
    with pytest.raises(AccessRefused, match="403") as caught:
        provider().fetch(query())
    assert "404" in caught.value.fix


def test_a_store_that_nobody_serves_is_unreachable(provider):
    with pytest.raises(ServiceUnavailable, match="no answer"):
        provider(alphaearth="http://127.0.0.1:9/aef-mosaic").fetch(query())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"<html>moved</html>", "metadata of Zarr version 3"),
        (b'{"zarr_format": 2}', "metadata of Zarr version 3"),
        (b"\xff\xfe", "metadata of Zarr version 3"),
    ],
)
def test_what_is_no_store_is_said_to_be_none(provider, world, text, says):
    folder = world.folder / "odd"
    folder.mkdir(exist_ok=True)
    (folder / "zarr.json").write_bytes(text)
    with pytest.raises(ReadError, match=says) as caught:
        provider(alphaearth=f"{world.url}/odd").fetch(query())
    assert "odd/zarr.json" in caught.value.headline


def test_a_folder_without_a_store_is_said_to_have_none(provider, world):
    with pytest.raises(ReadError, match="a Zarr group with an array 'embeddings'"):
        provider(alphaearth=f"{world.url}/nowhere").fetch(query())


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('"zstd"', '"numcodecs.pcodec"', "numcodecs.pcodec"),
        ('"regular"', '"rectilinear"', "'regular'"),
        ('"int8"', '"r7"', "one of the types"),
        ("-128", '"0x80"', "a number as fill value"),
        ('"node_type": "array"', '"node_type": "group"', "an array"),
    ],
)
def test_a_feature_that_is_not_known_is_named(provider, world, painted, old, new, says):
    folder = world.folder / "novel"
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("zarr.json", "embeddings/zarr.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        text = (world.folder / "aef-mosaic" / name).read_text()
        (folder / name).write_text(text.replace(old, new) if "/" in name else text)
    with pytest.raises(ReadError, match=says) as caught:
        provider(alphaearth=f"{world.url}/novel").fetch(query())
    assert "layout may have changed" in caught.value.fix


def test_an_unsharded_copy_and_other_codecs_are_read_too(provider, world, right):
    array = mosaic(world.folder / "copy", shards=None, chunks=(1, 64, 64, 64), compressors=GzipCodec(level=1))
    paint(array, 2022, ROWS, COLS)
    np.testing.assert_array_equal(provider(alphaearth=f"{world.url}/copy").fetch(query()).values, right)
    for file in (world.folder / "copy/embeddings/c").rglob("5/0/*/*"):
        file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(ReadError, match="gzip cannot decompress"):
        provider(alphaearth=f"{world.url}/copy").fetch(query())


def test_two_threads_share_what_they_read(provider, world, right):
    backend = provider()
    with ThreadPoolExecutor(6) as threads:
        chips = list(threads.map(lambda _: backend.fetch(query()), range(6)))
    assert all((chip.values == right).all() for chip in chips)
    asked = [(one.path, one.span) for one in world.asked]
    assert len(asked) == len(set(asked))


def test_a_fetch_that_is_stopped_ends_and_leaves_nothing_claimed(provider, world, right):
    backend, stop, held, go = provider(), Stop(), threading.Event(), threading.Event()

    def hold(path, span):
        if "/c/5/" in path:
            held.set()
            go.wait(20)

    world.faults.append(hold)

    def run():
        with stop.here():
            backend.fetch(query())

    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(run)
        assert held.wait(20)
        stop.set()
        with pytest.raises(Stopped):
            running.result(20)
        go.set()
    np.testing.assert_array_equal(backend.fetch(query()).values, right)


def test_a_small_memory_changes_no_number(provider, right):
    backend = provider(cache_mb=16)
    for _ in range(2):
        np.testing.assert_array_equal(backend.fetch(query()).values, right)


def test_chunks_far_apart_are_read_by_requests_of_their_own():
    near = [(start, 100, ("a", (start,))) for start in (0, 100, 400_000)]
    far = [(900_000 + stores.GAP_B, 100, ("a", (9,)))]
    assert [len(run) for run in stores._runs([*far, *near])] == [3, 1]
    large = [(start, 5_000_000, ("a", (start,))) for start in (0, 5_000_000)]
    assert [len(run) for run in stores._runs(large)] == [1, 1]


def test_a_window_equals_what_zarr_reads(world, provider, painted):
    backend = provider()
    product = backend._products["GOOGLE/SATELLITE_EMBEDDING/V1/ANNUAL"]
    array = product.store.array("embeddings")
    window = {"time": slice(5, 6), "band": slice(3, 50), "y": slice(ROW - 70, ROW + 41), "x": slice(COL - 33, COL + 70)}
    found = product.store.window(array, window)
    truth = zarr.open_array(world.folder / "aef-mosaic/embeddings", mode="r")[tuple(window.values())]
    np.testing.assert_array_equal(found, truth)
    assert dequantised(found[0]).dtype == np.float32
