"""No network, no token, wrong answers: said soon, in one error of ours; waited for as long as a service asks."""

import json
import socket
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from threading import Thread

import pytest
from gee_server import default_world
from stac_asking import ask, equal, expected, stac

from rs_embed import Stac
from rs_embed.core.specs import TemporalSpec
from rs_embed.errors import AccessRefused, QuotaExceeded, ReadError, ServiceUnavailable
from rs_embed.providers.auto import Chosen
from rs_embed.providers.common.retry import Backoff, Waits
from rs_embed.providers.stac.catalogs import EARTH_SEARCH
from rs_embed.providers.stac.http import CONNECT_S, LOOKED_UP_S, OFFLINE_S, retry_after_s
from rs_embed.providers.stac.sign import PlanetaryComputerAccess

WORLD = default_world()
DAY = ask("toulouse", ("B4",), TemporalSpec.range("2022-06-12", "2022-06-13"))
QUERY = ask("toulouse", ("B2", "B11"))
FEW = Waits(Backoff(first_s=0.01, longest_s=0.05, tries=3))


@pytest.fixture
def black_hole():
    """A port of this machine that takes no connection and refuses none, as a network does that is not there."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(server.getsockname())
        time.sleep(0.2)
        yield f"http://127.0.0.1:{server.getsockname()[1]}/api"
        for one in waiting:
            one.close()


def test_the_limits_of_a_first_contact_add_up_to_ten_seconds():
    waits_s = 0.5 + 1 + 2  # between tries, at most, until OFFLINE_S is over; see `Stac(waits=...)`
    assert max(LOOKED_UP_S, 2 * CONNECT_S + 0.5, waits_s + 4) <= 10 and OFFLINE_S > CONNECT_S


@pytest.mark.slow
def test_a_network_that_is_not_there_is_told_by_its_name_and_not_retried_for_long(black_hole):
    slept = []
    waits = Waits(Backoff(first_s=0.5, longest_s=30.0), sleep=slept.append)
    with pytest.raises(ServiceUnavailable, match="seems to be offline") as caught:
        Stac(replace(EARTH_SEARCH, url=black_hole, name=""), waits=waits).fetch(DAY)
    assert "HTTPS_PROXY" in caught.value.fix
    assert len(slept) <= 2 and sum(slept) < 3


@pytest.mark.slow
def test_who_named_no_backend_learns_which_was_taken(black_hole):
    chosen = Chosen(Stac(replace(EARTH_SEARCH, url=black_hole, name=""), waits=FEW), "backend='auto' took STAC.")
    with pytest.raises(ServiceUnavailable) as caught:
        chosen.fetch(DAY)
    assert caught.value.facts["backend"] == "backend='auto' took STAC."


def test_a_host_that_was_reached_once_is_tried_for_long(stac_server):
    site = stac_server.site("earth-search", applied=True)
    provider = stac(site)
    provider.check()
    site.fail("reset", routes=("search",), times=5)
    equal(provider.fetch(DAY), expected(WORLD, DAY))


@pytest.mark.slow
@pytest.mark.parametrize("status", [429, 503])
def test_a_search_waits_as_long_as_the_service_asks(stac_server, status):
    slept = []
    site = stac_server.site("earth-search", applied=True)
    site.fail(routes=("search",), times=1, status=status, retry_after=3)
    waits = Waits(Backoff(first_s=0.02), sleep=slept.append, jitter=lambda: 0.0)
    equal(stac(site, waits=waits).fetch(DAY), expected(WORLD, DAY))
    assert max(slept) == pytest.approx(3)


@pytest.mark.slow
def test_a_service_that_asks_for_more_than_we_wait_is_an_error_at_once(stac_server):
    site = stac_server.site("earth-search", applied=True)
    site.fail(routes=("search",), status=429, retry_after=7200)
    with pytest.raises(QuotaExceeded):
        stac(site, total_s=2).fetch(DAY)
    assert site.count("search") == 1
    site.reset()
    equal(stac(site, total_s=2).fetch(DAY), expected(WORLD, DAY))  # it does not wait for two hours in silence


def test_a_wait_may_be_told_in_seconds_or_as_a_date():
    in_a_minute = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    assert retry_after_s("12") == 12 and retry_after_s(None) is None and retry_after_s("soon") is None
    assert 50 < retry_after_s(in_a_minute) <= 60
    assert retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT") == 0


@pytest.mark.slow
def test_an_answer_that_never_ends_is_cut_off(stac_server):
    site = stac_server.site("earth-search", applied=True)
    site.fail("slow", routes=("search",), times=1, seconds=60)
    equal(stac(site, timeout_s=1).fetch(DAY), expected(WORLD, DAY))


@pytest.mark.parametrize("route", ["landing", "search"])
def test_the_page_of_a_network_that_wants_a_login_is_no_catalogue(stac_server, route):
    site = stac_server.site("earth-search", applied=True)
    site.fail("login", routes=(route,))
    with pytest.raises(ReadError, match="something else") as caught:
        stac(site, waits=FEW).fetch(DAY)
    assert "no JSON" in caught.value.facts["said"]


@pytest.mark.parametrize("times", [1, 2])
def test_a_header_that_came_broken_is_read_again(stac_server, times):
    site = stac_server.site("earth-search", applied=True)
    site.fail("corrupt", routes=("range",), times=times)
    equal(stac(site).fetch(DAY), expected(WORLD, DAY))


def test_a_block_that_came_broken_is_read_again(stac_server):
    site = stac_server.site("earth-search", applied=True)
    provider = stac(site)
    first = replace(DAY, window=TemporalSpec.range("2022-06-12", "2022-06-13"))
    site.fail("corrupt", routes=("range",), times=1, every=2)  # the second: the first is the header
    equal(provider.fetch(first), expected(WORLD, first))


def test_a_file_that_was_broken_for_one_call_is_whole_for_the_next(stac_server):
    site = stac_server.site("earth-search", applied=True)
    provider = stac(site)
    site.fail("corrupt", routes=("range",))
    with pytest.raises(ReadError, match="cannot be read"):
        provider.fetch(DAY)
    site.reset()
    equal(provider.fetch(DAY), expected(WORLD, DAY))


@pytest.mark.slow
def test_a_dead_token_service_is_an_error_within_the_limits_of_time_asked_once_for_all_files(stac_server):
    site = stac_server.site("planetary-computer", signed=True)
    site.fail("hang", routes=("token",), seconds=600)
    with pytest.raises(ServiceUnavailable, match="token service"):
        stac(site, timeout_s=1, waits=FEW).fetch(QUERY)  # some 20 files want the one token
    assert site.count("token") <= 6 and site.count("head") == 0
    site.go_on()


@pytest.mark.parametrize(("fault", "kind"), [({"status": 403}, AccessRefused), ({"status": 429}, QuotaExceeded)])
def test_a_token_service_that_refuses_is_named(stac_server, fault, kind):
    site = stac_server.site("planetary-computer", signed=True)
    site.fail(routes=("token",), **fault)
    with pytest.raises(kind, match="token service"):
        stac(site, waits=FEW).fetch(DAY)


def test_a_token_is_asked_for_with_the_users_key_at_the_users_address(stac_server, monkeypatch):
    site = stac_server.site("planetary-computer", signed=True)
    monkeypatch.setenv("PC_SDK_SAS_URL", f"{site.url}/sas/")
    monkeypatch.setenv("PC_SDK_SUBSCRIPTION_KEY", "k3y")
    href = "https://acct.blob.core.windows.net/box/a.tif"
    signer = PlanetaryComputerAccess(5)
    signed = signer.sign(href)
    assert signed.startswith(f"{href}?sig=") and signer.sign(f"{href}?sig=old&se=1") == signed
    (asked,) = [one for one in site.log if one["route"] == "token"]
    assert asked["path"] == "sas/acct/box" and asked["headers"]["Ocp-Apim-Subscription-Key"] == "k3y"
    assert signer.sign("https://elsewhere.example/a.tif") == "https://elsewhere.example/a.tif"
    signer.renew(f"/vsicurl/{href}?sig=of another")
    assert signer.sign(href) == signed
    signer.renew(f"/vsicurl/{signed}")
    assert signer.sign(href) != signed


def test_the_settings_file_of_the_planetary_computers_package_is_heeded(monkeypatch, tmp_path):
    from rs_embed.providers.stac.settings import planetary_computer

    monkeypatch.setenv("HOME", str(tmp_path))
    assert planetary_computer() == ("https://planetarycomputer.microsoft.com/api/sas/v1/token", None)
    folder = tmp_path / ".planetarycomputer"
    folder.mkdir()
    (folder / "settings.env").write_text("PC_SDK_SUBSCRIPTION_KEY='of the file'\n")
    assert planetary_computer()[1] == "of the file"
    monkeypatch.setenv("PC_SDK_SUBSCRIPTION_KEY", "of the variable")
    assert planetary_computer()[1] == "of the variable"


def test_threads_that_want_one_token_ask_once_and_hear_one_failure(stac_server):
    site = stac_server.site("planetary-computer", signed=True)
    signer, href = site.catalog.access.within(10), f"{site.url}/files/a.tif"
    signed = []
    threads = [Thread(target=lambda: signed.append(signer.sign(href))) for _ in range(8)]
    [thread.start() for thread in threads]
    [thread.join(60) for thread in threads]
    assert len(set(signed)) == 1 and len(signed) == 8 and site.count("token") == 1
    assert json.dumps(signed).count("sig=") == 8
