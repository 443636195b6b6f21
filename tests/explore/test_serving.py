"""A region behind a server: who gets an answer, and that the page shows its tokens as they are looked at."""

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from command_line import invoke as run
from command_line import misused, refused
from made_map import CELL_M, LEFT, TOP, MadeMap
from made_rows import embedding

from rs_embed import open_region
from rs_embed.embedding.similarity import cosine
from rs_embed.errors import SpecError
from rs_embed.explore.packing import pack
from rs_embed.explore.server import PageServer
from rs_embed.exports.results.serving import serve_map

pytestmark = pytest.mark.slow

MADE = MadeMap(rows=64, columns=64, nodata=((40, 40),))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return MADE.write(tmp_path_factory.mktemp("region"))


@pytest.fixture(scope="module")
def server(store) -> Iterator[PageServer]:
    """Overviews of 16 x 16 cells; parts of at most 34 x 34."""
    with serve_map(open_region(store), part_bytes=4 * 34 * 34, overview_bytes=2 * 4 * 16 * 16) as one:
        Thread(target=one.serve_forever, daemon=True).start()
        yield one
        one.shutdown()


def asked(server, path, method="GET", **headers):
    """Status, body and headers."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=300)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body, answer.headers


def box(row, col, height, width) -> str:
    left, top = LEFT + col * CELL_M, TOP - row * CELL_M
    return f"{left},{top - height * CELL_M},{left + width * CELL_M},{top}"


def test_only_who_knows_the_address_gets_the_page(server):
    assert server.server_address[0] == "127.0.0.1"
    status, body, headers = asked(server, f"/{server.token}/")
    assert status == 200 and b"connect-src 'self'" in body and headers["Referrer-Policy"] == "no-referrer"
    assert "Access-Control-Allow-Origin" not in headers and "Python" not in headers["Server"]
    for path in ("/", "/part", f"/{server.token[:-1]}/", f"/{server.token}x/part", "/../", "//etc/passwd", "/%00/"):
        assert asked(server, path)[:2] == (403, b"Forbidden"), path
    for path in ("../", "part/", "index.html", "..%2f..%2fetc/passwd", "./"):
        assert asked(server, f"/{server.token}/{path}")[0] == 404, path
    assert asked(server, f"/{server.token}/", method="POST")[0] == 501


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", ""])
def test_a_name_that_leads_here_is_refused(server, host):
    name = host.format(port=server.server_port)
    assert asked(server, f"/{server.token}/", Host=name)[:2] == (403, b"Forbidden")
    assert asked(server, f"/{server.token}/", Host=f"localhost:{server.server_port}")[0] == 200


def test_a_part_has_the_tokens_of_the_map(server):
    status, body, _ = asked(server, f"/{server.token}/part?time=1&level=0&box={box(10, 20, 6, 8)}")
    told = json.loads(body)
    assert (
        status == 200 and told["shape"] == [6, 8] and told["transform"][:2] == [LEFT + 20 * CELL_M, TOP - 10 * CELL_M]
    )
    truth = np.moveaxis(MADE.expected()[1, :, 10:16, 20:28], 0, -1).reshape(48, 4)
    np.testing.assert_allclose(told["scale"], pack(truth, "int8").scale)
    empty = asked(server, f"/{server.token}/part?time=0&level=0&box={box(40, 40, 1, 1)}")
    assert empty[:2] == (200, b"null")


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("", "Expected time, level and box"),
        ("time=0&level=0&box=1,2,3", "Expected time, level and box"),
        ("time=0&level=0&box=nan,nan,nan,nan", "Expected"),
        ("time=0&level=2&box={box}", "a time and a level of the page, got 0 and 2"),
        ("time=2&level=0&box={box}", "a time and a level of the page, got 2 and 0"),
        ("time=0&level=-1&box={box}", "got 0 and -1"),
        ("time=0&level=0&box={whole}", "Expected 1 to 1,156 cells, got 64 x 64"),
        ("time=0&level=0&box=0,0,1,1", "overlaps the map"),
    ],
)
def test_wrong_parts_are_refused(server, query, said):
    filled = query.format(box=box(0, 0, 4, 4), whole=box(0, 0, 64, 64))
    status, body, _ = asked(server, f"/{server.token}/part?{filled}")
    assert status == 400 and said in body.decode()


def test_a_browser_that_does_not_wait_is_no_error(server, capsys):
    for error in (BrokenPipeError(), ConnectionResetError(), ValueError("told")):
        try:
            raise error
        except (OSError, ValueError):
            server.handle_error(None, ("127.0.0.1", 1))
    said = capsys.readouterr().err
    assert said.count("Traceback") == 1 and "ValueError: told" in said


def test_what_cannot_be_served_is_refused(store, tmp_path):
    with pytest.raises(SpecError, match=r"coarsest level.*\n.*--bbox"):
        serve_map(open_region(store), overview_bytes=100)
    with serve_map(open_region(store)) as one, pytest.raises(SpecError, match="free port"):
        serve_map(open_region(store), port=one.server_port)
    grid = embedding(grid=True).save(tmp_path / "grid.tif")
    refused(run("explore", grid, "--serve"), "SpecError", "map of a region to serve", "leave --serve out")
    misused(run("explore", store, "--serve", "--level", "1"), "--serve goes without --level")


def test_the_page_loads_what_is_looked_at(server, browser, pictures):
    context = browser.new_context(viewport={"width": 1000, "height": 760})
    page = context.new_page()
    page.set_default_timeout(20_000)
    wrong = []
    page.on("console", lambda said: wrong.append(said.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda one: None if one.url.startswith((server.url, "data:")) else wrong.append(one.url))
    page.goto(server.url)
    assert page.evaluate("explorer.shownLayer().width") == 16
    page.screenshot(path=pictures / "explore_served.png")
    page.locator("#map").click(position={"x": 200, "y": 200})
    for _ in range(4):
        page.locator("#zoom-in").click()
    page.locator("#subtitle", has_text="full detail").wait_for()
    part = page.evaluate(
        "(() => { const l = explorer.shownLayer(); return [l.left, l.top, l.height, l.width, l.cell[0]]; })()"
    )
    left, top, height, width, cell = part
    row, col = round((TOP - top) / CELL_M), round((left - LEFT) / CELL_M)
    assert cell == CELL_M and height * width <= 34 * 34
    page.locator("#clear-examples").click()
    centre = page.evaluate(
        "explorer.view.toScreen(...explorer.shownLayer().centre(0).map((v, k) => v + [80, -80][k] * 8))"
    )
    page.locator("#map").click(position={"x": centre[0], "y": centre[1]})
    found = page.evaluate("Array.from(explorer.similarityIn(explorer.shownLayer()).values, v => isNaN(v) ? null : v)")
    tokens = np.moveaxis(MADE.expected()[0, :, row : row + height, col : col + width], 0, -1)
    stored = pack(tokens.reshape(-1, 4), "int8").restored()
    stored[~np.isfinite(tokens).all(axis=-1).ravel()] = np.nan
    np.testing.assert_allclose(np.array(found, float), cosine(stored, stored[8 * width + 8]), atol=2e-6)
    whole = page.evaluate("explorer.similarityIn(explorer.layers[0]).high")
    assert page.evaluate("explorer.similarityIn(explorer.shownLayer()).high") == whole  # one scale of colours
    page.screenshot(path=pictures / "explore_served_detail.png")
    page.locator("#time").fill("1")
    page.locator("#subtitle", has_text="2022").wait_for()
    page.locator("#subtitle", has_text="full detail").wait_for()
    page.locator("#zoom-fit").click()
    page.locator("#subtitle", has_text="overview").wait_for()
    assert page.evaluate("explorer.state.examples[0].items.length") == 1  # an example outlives its part
    context.close()
    assert wrong == []


def test_the_command_serves_until_it_is_interrupted(store):
    command = [Path(sys.executable).with_name("rs-embed"), "explore", str(store), "--serve", "--json"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    ) as one:
        url = json.loads(one.stdout.readline())["url"]
        port, token = url.removeprefix("http://127.0.0.1:").rstrip("/").split("/")
        connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=300)
        connection.request("GET", f"/{token}/")
        assert connection.getresponse().status == 200
        connection.close()
        one.send_signal(signal.SIGINT)
        assert one.wait(timeout=300) == 0
