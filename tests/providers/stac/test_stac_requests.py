"""How many requests it takes: headers and blocks are read once per process, searches once per area."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from gee_server import default_world
from stac_asking import QUICK, ask, equal, expected, pixels_of, scenes_of, stac

from rs_embed.core.geo import subgrid
from rs_embed.core.specs import Series, TemporalSpec
from rs_embed.providers.common.limiter import Limiter
from rs_embed.providers.common.retry import Retry
from rs_embed.providers.rasters.raster import Take
from rs_embed.providers.stac.access import OpenAccess
from rs_embed.providers.stac.files import Files, Pool, nearest
from rs_embed.providers.stac.http import Credentials, Http
from rs_embed.providers.stac.items import Asset
from rs_embed.providers.stac.judges import FileJudge
from rs_embed.providers.stac.opener import Opener

WORLD = default_world()
BANDS = ("B2", "B3", "B4", "B8", "B11", "B12")
DAY = TemporalSpec.range("2022-06-12", "2022-06-13")


def moved(query, cols, rows):
    return replace(query, geobox=subgrid(query.geobox, (rows, cols), 1, tuple(query.geobox.shape)))


def test_a_cold_chip_takes_at_most_three_requests_a_file_and_one_search(stac_server):
    site = stac_server.site("earth-search", applied=True)
    query = ask("toulouse", BANDS, DAY, side_m=320)
    equal(stac(site).fetch(query), expected(WORLD, query))
    assert site.count("search") == 1 and site.count("landing") == 1
    assert site.count("head", "range") <= 3 * len(BANDS)
    assert site.count("whole") == 0


@pytest.mark.slow
def test_a_hundred_points_of_one_scene_read_its_headers_and_blocks_once(stac_server):
    site = stac_server.site("earth-search", applied=True)
    centre = ask("toulouse", BANDS, DAY, side_m=320)
    queries = [moved(centre, 6 * i, 6 * j) for i in range(-5, 5) for j in range(-5, 5)]
    provider = stac(site)
    with ThreadPoolExecutor(8) as threads:
        chips = list(threads.map(provider.fetch, queries))
    for query, chip in zip(queries[::9], chips[::9], strict=True):
        equal(chip, expected(WORLD, query))
    assert site.count("search") == 1
    files = {one["path"] for one in site.log if one["route"] == "head"}
    assert len(files) == len(BANDS) == site.count("head")
    assert site.count("head", "range") <= 6 * len(BANDS)  # apart they would take 3 x 6 x 100


def test_another_provider_of_the_process_shares_what_was_read(stac_server):
    site = stac_server.site("earth-search", applied=True)
    query = ask("toulouse", ("B4",), DAY)
    stac(site).fetch(query)
    site.reset()
    stac(site).fetch(moved(query, 2, 2))
    assert site.count("search", "head", "range") == 0


def test_neighbours_that_ask_at_the_same_time_search_once(stac_server):
    site = stac_server.site("earth-search", applied=True)
    provider = stac(site)
    query = ask("toulouse", ("B4",), DAY)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(provider.fetch, [query] * 8))
    assert site.count("search") == 1 and site.count("head") == 1


def test_no_more_files_stay_open_than_agreed(stac_server):
    site = stac_server.site("earth-search", applied=True)
    query = ask("toulouse", BANDS, DAY)
    (scene,) = scenes_of(WORLD, query)
    pool, access = Pool(2), OpenAccess()
    files = Files(Opener(access, Http(5), Credentials()), Retry(FileJudge(access), Limiter(4), QUICK), 5, 64, pool)
    for band in BANDS * 2:  # closed files are opened again, from memory
        href = f"{site.url}/files/sentinel-2-l2a/{scene.index}/{band}.tif"
        found = files.read(Asset(href, None, None, None), query.geobox, Take((1,), 0, "nodata", nearest))
        np.testing.assert_array_equal(found, pixels_of(scene, [band], query.geobox))
    assert len(pool) == 2
    assert site.count("head") == len(BANDS)


@pytest.mark.slow
def test_frames_of_a_series_are_read_at_the_same_time_with_as_many_requests(stac_server):
    query = ask("toulouse", ("B4",), series=Series(3, "scenes"), cloudy_pct=80)
    site = stac_server.site("earth-search", applied=True, latency_s=0.2)
    chip = stac(site).fetch(query)
    assert chip.values.shape[0] == 3 and list(chip.times) == sorted(chip.times)
    files = [one["path"] for one in site.log if one["route"] == "head"]
    assert len(files) == len(set(files)) >= 3  # each file is opened once
    assert site.most_at_once >= 3


def test_a_header_takes_one_request_of_sixteen_kilobytes(stac_server):
    site = stac_server.site("earth-search", applied=True)
    stac(site).fetch(ask("toulouse", BANDS, DAY, side_m=320))
    first = [one["range"] for one in site.log if one["range"] and one["range"].startswith("bytes=0-")]
    assert first == ["bytes=0-16383"] * len(BANDS)
    assert site.bytes_sent <= 480_000
