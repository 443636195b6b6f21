"""What goes wrong on the way is tried again with new requests, or said in one error of ours."""

import logging
import threading
import traceback

import numpy as np
import pytest
from gee_server import default_world
from stac_asking import QUICK, ask, equal, expected, stac

from rs_embed.core.specs import TemporalSpec
from rs_embed.errors import (
    AccessRefused,
    ProviderError,
    QuotaExceeded,
    ReadError,
    RequestTooLarge,
    ServiceUnavailable,
)
from rs_embed.providers.common.retry import Backoff, Waits

pytestmark = pytest.mark.slow

WORLD = default_world()
QUERY = ask("toulouse", ("B2", "B11"))
DAY = ask("toulouse", ("B4",), TemporalSpec.range("2022-06-12", "2022-06-13"))
STUBBORN = Waits(Backoff(first_s=0.01, longest_s=0.05, tries=3))


@pytest.mark.parametrize("route", ["head", "range", "search"])
@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "status", "status": 429},
        {"kind": "status", "status": 500},
        {"kind": "status", "status": 503, "text": "ServerBusy: Egress is over the account limit"},
        {"kind": "reset"},
        {"kind": "truncate"},
    ],
    ids=["429", "500", "503", "reset", "truncate"],
)
def test_a_fault_that_passes_leaves_the_same_pixels(stac_server, route, fault):
    site = stac_server.site("earth-search", applied=True)
    site.fail(routes=(route,), times=2, **fault)
    equal(stac(site).fetch(QUERY), expected(WORLD, QUERY))


@pytest.mark.parametrize("route", ["head", "range", "search"])
def test_a_silent_server_is_not_waited_for_forever(stac_server, route):
    site = stac_server.site("earth-search", applied=True)
    site.fail("hang", routes=(route,), times=1, seconds=4)
    equal(stac(site, timeout_s=1).fetch(DAY), expected(WORLD, DAY))


@pytest.mark.parametrize(
    ("routes", "fault", "kind"),
    [
        (("head", "range"), {"status": 429}, QuotaExceeded),
        (("head", "range"), {"status": 500}, ServiceUnavailable),
        (("head", "range"), {"status": 403}, AccessRefused),
        (("head", "range"), {"status": 404}, ReadError),
        (("search",), {"status": 429}, QuotaExceeded),
        (("search",), {"status": 502}, ServiceUnavailable),
        (("search",), {"status": 400}, ReadError),
        (("search",), {"status": 403}, AccessRefused),
        (("landing",), {"kind": "reset"}, ServiceUnavailable),
    ],
)
def test_a_fault_that_stays_is_one_error_of_ours(stac_server, routes, fault, kind):
    site = stac_server.site("earth-search", applied=True)
    site.fail(routes=routes, **fault)
    with pytest.raises(kind, match="Expected") as caught:
        stac(site, waits=STUBBORN).fetch(DAY)
    assert caught.value.fix
    tried = 1 if fault.get("status") in (400, 403, 404) else 3
    assert site.count(*routes) >= tried and ("tried" in caught.value.facts) == (tried > 1)


def test_a_file_that_failed_is_asked_for_again_by_the_next_call(stac_server):
    site = stac_server.site("earth-search", applied=True)
    site.fail(status=500)
    with pytest.raises(ServiceUnavailable):
        stac(site, waits=STUBBORN).fetch(DAY)
    site.reset()
    equal(stac(site).fetch(DAY), expected(WORLD, DAY))  # GDAL alone would remember the failure
    assert site.count("range") > 0


@pytest.mark.slow
def test_a_hundred_chips_with_a_tenth_of_the_requests_failing_all_arrive_and_none_is_wrong(stac_server):
    site = stac_server.site("earth-search", applied=True)
    site.fail(routes=("head", "range", "search"), status=503, every=10)
    provider = stac(site, concurrency=8)
    base = DAY.geobox
    queries = [_moved(DAY, 3 * i, 2 * i) for i in range(-10, 10) for _ in range(5)]
    chips: list = [None] * len(queries)

    def work(first: int) -> None:
        for i in range(first, len(queries), 4):
            chips[i] = provider.fetch(queries[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert base is not None and all(chip is not None for chip in chips)
    for query, chip in zip(queries, chips, strict=True):
        equal(chip, expected(WORLD, query))


def _moved(query, cols: int, rows: int):
    from dataclasses import replace

    from rs_embed.core.geo import subgrid

    return replace(query, geobox=subgrid(query.geobox, (rows, cols), 1, tuple(query.geobox.shape)))


def test_signed_links_are_signed_late_and_anew_when_they_have_run_out(stac_server):
    site = stac_server.site("planetary-computer", signed=True)
    provider = stac(site)
    equal(provider.fetch(QUERY), expected(WORLD, QUERY))
    assert site.count("token") == 1
    site.expire()
    moved = _moved(QUERY, 30, 0)
    equal(provider.fetch(moved), expected(WORLD, moved))
    later = ask("toulouse", ("B2",), TemporalSpec.range("2022-07-01", "2022-07-20"))
    equal(provider.fetch(later), expected(WORLD, later))
    assert site.count("token") == 2  # though many threads were refused together


def test_a_link_that_is_refused_though_signed_anew_is_an_error(stac_server):
    site = stac_server.site("planetary-computer", signed=True)
    site.fail(status=403)
    with pytest.raises(AccessRefused) as caught:
        stac(site).fetch(DAY)
    assert "sig=" not in str(caught.value)


def test_more_items_than_agreed_are_refused_and_a_page_is_never_large(stac_server):
    site = stac_server.site("earth-search", applied=True)
    with pytest.raises(RequestTooLarge, match="at most 3 items"):
        stac(site, max_items=3).fetch(ask(window=TemporalSpec.year(2022)))


def test_an_answer_that_is_no_stac_is_a_read_error(stac_server):
    site = stac_server.site("earth-search", extra={"datetime": "yesterday"})
    with pytest.raises(ProviderError):
        stac(site, waits=QUICK).fetch(DAY)


def test_nothing_listens(stac_server):
    from dataclasses import replace

    from rs_embed import Stac

    site = stac_server.site("earth-search")
    catalog = replace(site.catalog, url="http://127.0.0.1:9/api")
    with pytest.raises(ServiceUnavailable, match="no answer"):
        Stac(catalog, waits=STUBBORN).fetch(DAY)
    assert np.isfinite(STUBBORN.backoff.first_s)


@pytest.mark.parametrize("route", ["search", "head", "range"])
def test_what_a_server_says_of_a_signed_link_reaches_neither_messages_nor_logs_nor_tracebacks(
    stac_server, route, caplog
):
    site = stac_server.site("earth-search", applied=True)
    site.fail("status", routes=(route,), status=503, text="ServerBusy: https://x/B04.tif?se=2030&sig=s3cr3tCANARY")
    with caplog.at_level(logging.DEBUG, "rs_embed"), pytest.raises(ProviderError) as caught:
        stac(site, waits=STUBBORN).fetch(DAY)
    told = "".join(traceback.format_exception(caught.value)) + caplog.text
    assert "503" in told and "Trying again" in caplog.text
    assert "s3cr3tCANARY" not in told
