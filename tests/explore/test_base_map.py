"""A base map of tiles: asked for only when it is chosen, only of its host, and drawn at its place."""

import re
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import pandas as pd
import pytest
from made_rows import embedding
from playwright.sync_api import Page

from rs_embed import PointBuffer
from rs_embed.core.display import png
from rs_embed.errors import SpecError
from rs_embed.explore.page import PageOptions
from rs_embed.explore.points import Dots, explore_points

TILE_PX = 256
CREDIT = "© Somebody <b>else</b>"


class _Tiles(BaseHTTPRequestHandler):
    """Tiles whose red changes to the east and whose green changes to the south."""

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        z, x, y = map(int, re.fullmatch(r"/t/(\d+)/(\d+)/(\d+)\.png", self.path).groups())
        line = np.arange(TILE_PX) + 0.5
        u, v = ((place * TILE_PX + line) / TILE_PX / 2**z for place in (x, y))
        east, south = np.meshgrid(colour_of(u, self.server.waves), colour_of(v, self.server.waves))
        body = png(np.stack([east, south, np.full_like(east, 0.5), np.ones_like(east)], axis=-1))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def colour_of(mercator, waves) -> np.ndarray:
    """A triangle wave, so many around the world: 4096 are 10 km each."""
    phase = np.asarray(mercator) * waves % 1
    return 1 - np.abs(2 * phase - 1)


@pytest.fixture(scope="module")
def tiles() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Tiles) as one:
        one.asked = []
        Thread(target=one.serve_forever, daemon=True).start()
        yield one
        one.shutdown()


def base_map(tiles) -> tuple[str, str]:
    return f"http://127.0.0.1:{tiles.server_port}/t/{{z}}/{{x}}/{{y}}.png", CREDIT


@pytest.fixture
def visited(browser, tiles):
    """A function that opens a page, which may ask for tiles."""
    contexts, wrong = [], []
    origin = f"http://127.0.0.1:{tiles.server_port}/t/"

    def visit(path, width=1000) -> Page:
        tiles.asked.clear()
        contexts.append(browser.new_context(viewport={"width": width, "height": 760}))
        page = contexts[-1].new_page()
        page.set_default_timeout(20_000)
        page.on("console", lambda said: wrong.append(said.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on(
            "request", lambda one: None if one.url.startswith(("file:", "data:", origin)) else wrong.append(one.url)
        )
        page.goto(path.resolve().as_uri())
        return page

    yield visit
    for one in contexts:
        one.close()
    assert wrong == []


def choose_tiles(page) -> None:
    page.locator("input[name=base][value=tiles]").check()
    page.evaluate(
        """() => new Promise((done) => {
          const look = () => {
            const images = [...explorer.tileImages.values()];
            const loaded = images.length && images.every((one) => one.complete);
            setTimeout(loaded ? () => requestAnimationFrame(() => requestAnimationFrame(done)) : look, 50);
          };
          look();
        })"""
    )


def ground_of(page, path):
    """Colours `[N, 3]` and degrees of some pixels of the map, which are not covered by anything else."""
    import rasterio

    page.locator("#map").screenshot(path=path)
    with rasterio.MemoryFile(path.read_bytes()) as file, file.open() as raster:
        image = np.moveaxis(raster.read()[:3], 0, -1) / 255
    rows, cols = (axis.ravel() for axis in np.mgrid[200 : image.shape[0] - 120 : 25, 120 : image.shape[1] - 120 : 25])
    places = page.evaluate(
        "(list) => list.map(([x, y]) => explorer.places.lonLat(...explorer.view.toWorld(x + 0.5, y + 0.5)))",
        np.stack([cols, rows], axis=1).tolist(),
    )
    return image[rows, cols], np.array(places)


def mercator(lonlat) -> np.ndarray:
    lon, lat = np.radians(lonlat).T
    return np.stack([lon / (2 * np.pi) + 0.5, 0.5 - np.arcsinh(np.tan(lat)) / (2 * np.pi)], axis=1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")  # a PNG
def test_tiles_of_a_grid_lie_at_their_place_and_come_only_if_chosen(visited, tiles, tmp_path, pictures):
    grid = embedding(PointBuffer(12.94, 47.77, 2000), grid=True)
    tiles.waves = 4096
    page = visited(grid.explore(tmp_path / "page.html", base_map=base_map(tiles)))
    page.locator("#zoom-in").click()
    assert page.evaluate("explorer.tileImages.size") == 0 and tiles.asked == []
    assert "Somebody" not in page.locator("#credit").inner_text()
    choose_tiles(page)
    assert page.locator("#credit").inner_text().endswith(f"Base map: {CREDIT}")
    assert 0 < len(tiles.asked) < 60 and len(set(tiles.asked)) == len(tiles.asked)
    colours, lonlat = ground_of(page, tmp_path / "map.png")
    truth = colour_of(mercator(lonlat), tiles.waves)
    assert np.abs(colours[:, :2] - truth).max() < 0.03 and np.ptp(truth, axis=0).min() > 0.2
    page.screenshot(path=pictures / "explore_base_map.png")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize(("wide", "waves"), [(0.3, 4096), (330.0, 4)])
def test_tiles_lie_under_places(visited, tiles, tmp_path, pictures, wide, waves):
    """Of a county, and of the world."""
    tiles.waves = waves
    rng = np.random.default_rng(0)
    lon, lat = 12 + rng.uniform(-0.5, 0.5, 5) * wide, 50 + rng.uniform(-0.1, 0.1, 5) * wide
    vectors = rng.standard_normal((5, 4)).astype(np.float32)
    dots = Dots("made up", "", list("abcde"), lon, lat, vectors, {"n": pd.Series(range(5))}, {}, "space")
    path = explore_points(dots, tmp_path / "page.html", "", options=PageOptions(base_map(tiles)))
    page = visited(path)
    assert tiles.asked == []
    choose_tiles(page)
    colours, lonlat = ground_of(page, tmp_path / "map.png")
    off = np.abs(colours[:, :2] - colour_of(mercator(lonlat), waves)).max(axis=1)
    assert np.mean(off < 0.08) > 0.9  # the others lie under a place
    page.screenshot(path=pictures / f"explore_base_map_points_{waves}.png")


def test_only_the_host_of_the_tiles_is_allowed(tmp_path):
    grid = embedding(grid=True)
    text = grid.explore(
        tmp_path / "page.html", base_map=("https://tiles.example.org/{z}/{x}/{y}.png?key=1", CREDIT)
    ).read_text("utf-8")
    assert "img-src data: blob: https://tiles.example.org; connect-src 'none'" in text and CREDIT not in text
    assert "comes from https://tiles.example.org" in text


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("https://tiles.example.org/{z}/{x}/{y}.png", "address of tiles and their attribution"),
        (("http://tiles.example.org/{z}/{x}/{y}.png", "©"), "with https"),
        (("https://tiles.example.org; script-src */{z}/{x}/{y}.png", "©"), "with https"),
        (("https://a:b@tiles.example.org/{z}/{x}/{y}.png", "©"), "with https"),
        (("https://tiles.example.org/{z}/{x}.png", "©"), "with https"),
        (("https://tiles.example.org/{z}/{x}/{y}.png", " "), "attribution of the base map, got none"),
    ],
)
def test_what_is_not_a_base_map_is_refused(given, said, tmp_path):
    with pytest.raises(SpecError, match=re.escape(said)):
        embedding(grid=True).explore(tmp_path / "page.html", base_map=given)
    assert not list(tmp_path.iterdir())
