"""The pictures of docs/explore.md: pages of the demo's Galileo nano grid and of a run, opened in Chromium.

Run it with the trained weights at hand: `python docs/images/explore.py`.
"""

import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from playwright.sync_api import Page, sync_playwright

from rs_embed import OutputSpec, export_embeddings, get_embedding, inspect_chip, open_run
from rs_embed.cli.demo import RIVER
from rs_embed.core.geo import project

HERE = Path(__file__).parent
CREDIT = "Contains modified Copernicus Sentinel data 2017; BigEarthNet v2.0 / reBEN"
GALILEO = "galileo_1_0_nano"
QUIET = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]


def main() -> None:
    """Make both pictures."""
    with TemporaryDirectory() as folder, sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=QUIET)
        page = chromium.new_page(viewport={"width": 1200, "height": 750})
        grid_picture(page, Path(folder))
        points_picture(page, Path(folder))
        chromium.close()


def grid_picture(page: Page, folder: Path) -> None:
    """A click on the river."""
    chip = inspect_chip("mosaiks_rcf", backend="sample").chips["s2_12"]
    grid = get_embedding(GALILEO, output=OutputSpec.grid(), backend="sample", patch_size=4)
    page.goto(grid.explore(folder / "grid.html", imagery=chip, credit=CREDIT).as_uri())
    lon, lat = (np.array([degrees]) for degrees in RIVER)
    (x,), (y,) = project(lon, lat, "EPSG:4326", str(grid.geobox.crs))
    click(page, x, y)
    page.locator("#centred").check()
    page.locator("#opacity").fill("90")
    page.mouse.move(0, 0)
    page.wait_for_timeout(300)
    page.screenshot(path=HERE / "explore.png")


def points_picture(page: Page, folder: Path) -> None:
    """Points in dark colours, by their similarity to one."""
    rng = np.random.default_rng(3)
    lon, lat = rng.uniform(12.926, 12.954, 150), rng.uniform(47.755, 47.782, 150)
    plots = pd.DataFrame({"id": [f"plot {n}" for n in range(150)], "lon": lon, "lat": lat})
    export_embeddings(GALILEO, plots, folder / "run", buffer_m=40, backend="sample", progress=False)
    page.emulate_media(color_scheme="dark")
    page.goto(open_run(folder / "run").explore(folder / "run.html").as_uri())
    page.locator("#table-body button").nth(5).click()
    page.mouse.move(0, 0)
    page.wait_for_timeout(300)
    page.screenshot(path=HERE / "explore_points.png")


def click(page: Page, x: float, y: float) -> None:
    """Click a place in the CRS of the map."""
    px, py = page.evaluate("place => explorer.view.toScreen(...place)", [x, y])
    page.locator("#map").click(position={"x": px, "y": py})


if __name__ == "__main__":
    sys.exit(main())
