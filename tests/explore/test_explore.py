"""Pages as files: what goes in, what is refused, and that nothing in them comes from elsewhere."""

import base64
import json
import os
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import rasterio
from affine import Affine
from command_line import invoke, refused
from made_map import MadeMap
from made_rows import embedding
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from rs_embed import PointBuffer, export_embeddings, open_region, open_run
from rs_embed.core.geo import pixel_centres
from rs_embed.embedding.batch import Embeddings
from rs_embed.embedding.components import Components
from rs_embed.errors import BandMismatch, Failure, NoImagery, NoValidPixels, SpecError, StorageError
from rs_embed.explore.lonlat import lonlat_of
from rs_embed.explore.packing import PageComponents, chosen_form, pack
from rs_embed.exports.results.true_colour import true_colour


@pytest.fixture
def grid():
    return embedding(grid=True)


def test_a_page_is_one_file_that_names_nothing_elsewhere(grid, tmp_path):
    text = grid.explore(tmp_path / "page.html").read_text("utf-8")
    assert not re.search(r"https?://|//cdn|@import|url\(|<link (?!rel=\"icon\" href=\"data:)", text)
    assert "default-src 'none'" in text and "unsafe" not in text
    assert text.count("<script") == text.count("</script>") == 2 + text.count('id="blob-')


def test_what_cannot_be_shown_is_refused_before_anything_is_written(grid, tmp_path):
    page = tmp_path / "page.html"
    with pytest.raises(SpecError, match=r"got one vector of 64 dimensions.*\n.*fix: +compute it with output=OutputSp"):
        embedding().explore(page)
    with pytest.raises(NoValidPixels, match="only nodata"):
        replace(grid, data=np.full_like(grid.data, np.nan)).explore(page)
    other = replace(grid, geobox=GeoBox(grid.geobox.shape, grid.geobox.affine, "EPSG:32632"))
    with pytest.raises(SpecError, match="in one CRS, got EPSG:32632, EPSG:32633"):
        grid.explore(page, beside=other)
    turned = replace(grid, geobox=GeoBox(grid.geobox.shape, grid.geobox.affine @ Affine.rotation(10), "EPSG:32633"))
    with pytest.raises(SpecError, match="north up"):
        turned.explore(page)
    with pytest.raises(SpecError, match=r"at most 0\.01 MB.*\n.*max_mb=1"):
        grid.explore(page, max_mb=0.01)
    with pytest.raises(SpecError, match="stored"):
        grid.explore(page, stored="int4")
    assert not page.exists()
    with pytest.raises(StorageError, match=r"explore\.html"):
        grid.explore(tmp_path / "page.png")
    with pytest.raises(StorageError, match="existing folder"):
        grid.explore(tmp_path / "none" / "page.html")


@pytest.mark.slow
def test_imagery_must_have_the_colours_and_the_crs_of_the_grid(grid, tmp_path):
    from rs_embed import inspect_chip

    chip = inspect_chip("mosaiks_rcf", backend="sample").chips["s2_12"]
    assert "data:image/png;base64," in grid.explore(tmp_path / "page.html", imagery=chip).read_text("utf-8")
    with pytest.raises(BandMismatch, match="B4, B3, B2"):
        grid.explore(tmp_path / "page.html", imagery=chip.select(("B4", "B3")))
    elsewhere = replace(chip, geobox=GeoBox(chip.geobox.shape, chip.geobox.affine, "EPSG:32632"))
    with pytest.raises(SpecError, match="CRS of the grid"):
        grid.explore(tmp_path / "page.html", imagery=elsewhere)


def test_a_grid_of_an_array_without_a_place_is_shown_by_row_and_column(grid, tmp_path):
    text = replace(grid, geobox=None).explore(tmp_path / "page.html").read_text("utf-8")
    assert '"crs":null' in text


@pytest.mark.parametrize(
    ("crs", "edges", "within_m"),
    [
        ("EPSG:32633", (300000, 5200000, 400000, 5300000), 0.001),
        ("EPSG:3035", (4000000, 2500000, 4100000, 2600000), 0.001),
        ("EPSG:4326", (12.0, 47.0, 13.0, 48.0), 0.001),
        ("EPSG:32601", (200000, -20000, 320000, 90000), 0.001),  # across the antimeridian
        ("EPSG:32733", (166000, 8000000, 834000, 9000000), 1.0),
    ],
)
def test_degrees_of_the_page_are_those_of_the_crs(crs, edges, within_m):
    told = lonlat_of(crs, edges)
    rng = np.random.default_rng(0)
    x, y = rng.uniform(edges[0], edges[2], 500), rng.uniform(edges[1], edges[3], 500)
    u, v = ((axis - told["middle"][k]) / told["half"][k] for k, axis in enumerate((x, y)))
    n = told["degree"]
    terms = [u**i * v**j for i in range(n + 1) for j in range(n + 1 - i)]
    lon, lat = (sum(c * term for c, term in zip(told[name], terms, strict=True)) for name in ("lon", "lat"))
    true_lon, true_lat = Transformer.from_crs(crs, 4326, always_xy=True).transform(x, y)
    off = ((lon - true_lon + 180) % 360 - 180) * np.cos(np.radians(true_lat)), lat - true_lat
    assert np.hypot(*off).max() * 111_320 < within_m


def test_over_a_pole_there_are_no_degrees_rather_than_wrong_ones():
    assert lonlat_of("EPSG:3413", (-500000, -500000, 500000, 500000)) is None


@pytest.mark.parametrize(("how", "within"), [("float32", 0), ("int8", 0.02), ("pca64", 0.6)])
def test_packed_vectors_come_back(how, within):
    vectors = np.random.default_rng(0).standard_normal((300, 96)).astype(np.float32)
    vectors[5, 7] = np.nan
    back = pack(vectors, how).restored()
    if how == "pca64":
        assert back.shape == (300, 64) and "% of the variance" in pack(vectors, how).text
        kept = np.delete(back, 5, axis=0) @ np.delete(back, 5, axis=0).T
        true = np.delete(vectors, 5, axis=0) @ np.delete(vectors, 5, axis=0).T
        assert np.abs(kept - true).mean() < within * np.abs(true).mean()
    else:
        np.testing.assert_allclose(np.delete(back, 5, axis=0), np.delete(vectors, 5, axis=0), atol=within)


def test_the_form_follows_the_size():
    assert chosen_form([(400, 128)], 25) == "float32"
    assert chosen_form([(40_000, 128)], 25) == "int8"
    assert chosen_form([(40_000, 1024)], 25) == "pca64"
    assert chosen_form([(40_000, 64)] * 4, 25) == "int8"


def test_components_are_those_of_pictures():
    tokens = np.random.default_rng(3).standard_normal((500, 20)).astype(np.float32) * np.arange(1, 21, dtype=np.float32)
    found, truth = PageComponents.fit(tokens), Components.fit(tokens)
    np.testing.assert_allclose(found.shares[:3], truth.shares, rtol=1e-4)
    np.testing.assert_allclose(found.bytes(tokens)[:, :3] / 255, truth.colours(tokens)[:, :3], atol=0.005)


@pytest.mark.slow
def test_a_region_is_shown_in_parts_at_all_times_and_says_when_it_is_too_large(tmp_path):
    whole = open_region(MadeMap().write(tmp_path))
    text = whole.explore(None, tmp_path / "page.html").read_text("utf-8")
    assert text.count('"name":"made_up"') == 2 and "random weights, seed 7" in text and "CC-BY-4.0: made up" in text
    text = whole.explore(None, tmp_path / "page.html", time="2022", level=1).read_text("utf-8")
    assert '"shape":[11,15]' in text
    with pytest.raises(SpecError, match=r"22 x 29 tokens at 2 times.*\n.*level=1"):
        whole.explore(None, tmp_path / "page.html", max_mb=0.001)
    said = invoke("explore", tmp_path / "made_up", "--out", tmp_path / "cli.html", "--json")
    assert said.exit_code == 0 and '"page"' in said.stdout
    refused(invoke("explore", tmp_path / "made_up", "--model", "x"), "SpecError", "options of the map of a region")


@pytest.mark.slow
def test_a_run_is_shown_without_its_failed_rows(tmp_path):
    places = pd.DataFrame({"id": ["a", "far", "b"], "lon": [12.94, 20.0, 12.945], "lat": [47.775, 50.0, 47.77]})
    export_embeddings("mosaiks_rcf", places, tmp_path / "run", buffer_m=320, backend="sample", progress=False)
    page = open_run(tmp_path / "run").explore(tmp_path / "page.html")
    text = page.read_text("utf-8")
    assert '"ids":["a","b"]' in text and "1 of 3 places have no embedding" in text and "Apache-2.0" in text
    said = invoke("explore", tmp_path / "run", "--out", tmp_path / "cli.html")
    assert said.exit_code == 0, said.stderr
    assert "cli.html" in said.stdout


UMAP = """
import sys
import numpy as np
from rs_embed.explore.points import Dots, explore_points
groups = np.eye(8, dtype=np.float32)[[0, 3]].repeat(12, 0)
vectors = groups + np.random.default_rng(0).standard_normal((24, 8)).astype(np.float32) / 10
lon, lat = np.linspace(12, 13, 24), np.full(24, 47.0)
dots = Dots("made up", "", [str(n) for n in range(24)], lon, lat, vectors, {}, {}, "space")
explore_points(dots, sys.argv[1], "", "umap")
"""


@pytest.mark.slow
def test_umap_puts_places_that_are_alike_together(tmp_path):
    page = tmp_path / "page.html"
    # Without its compiler: it takes 20 seconds to start, whatever the number of places.
    subprocess.run(
        [sys.executable, "-W", "error", "-c", UMAP, page], check=True, env={**os.environ, "NUMBA_DISABLE_JIT": "1"}
    )
    (layer,) = told_of(page)["layers"]
    assert layer["projected"].startswith("UMAP, cosine, 15 neighbours")
    text = re.search(rf'id="blob-{layer["projection"]["id"]}">(.*?)<', page.read_text("utf-8"))[1]
    at = np.frombuffer(base64.b64decode(text), "<f4").reshape(24, 2)
    far = np.linalg.norm(at[:, None] - at, axis=-1)
    assert np.abs(at).max() == 1 and far[:12, 12:].min() > max(far[:12, :12].max(), far[12:, 12:].max())


def test_umap_needs_places_and_is_an_option_of_exports(grid, tmp_path):
    few = Embeddings([embedding(seed=seed) for seed in range(3)], list("abc"))
    with pytest.raises(SpecError, match=r"at least 10 places for UMAP, got 3"):
        few.explore(tmp_path / "page.html", projection="umap")
    with pytest.raises(SpecError, match="projection to be one of pca, umap"):
        few.explore(tmp_path / "page.html", projection="tsne")
    path = grid.save(tmp_path / "grid.tif")
    refused(invoke("explore", path, "--projection", "umap"), "SpecError", "options of a grid", "projection")


def test_results_of_a_batch_are_shown_with_their_columns(tmp_path):
    places = [PointBuffer(12.94 + step / 100, 47.77, 320) for step in range(3)]
    done = [embedding(place, seed=seed) for seed, place in enumerate(places)]
    lost = Failure(1, "fetch", NoImagery("none"))
    many = Embeddings([done[0], lost, done[2]], ["a", "b", "c"])
    text = many.explore(tmp_path / "page.html").read_text("utf-8")
    assert '"ids":["a","c"]' in text and "1 of 3 places have no embedding" in text and '"valid_fraction"' in text
    assert "Copernicus Sentinel data" in text and "S2A_0" not in text
    with pytest.raises(SpecError, match="got grids"):
        Embeddings([embedding(grid=True)], ["a"]).explore(tmp_path / "page.html")
    with pytest.raises(SpecError, match="2 kinds"):
        Embeddings([embedding(), embedding(dim=8)], ["a", "b"]).explore(tmp_path / "page.html")
    with pytest.raises(NoValidPixels, match="1 failures"):
        Embeddings([lost], ["b"]).explore(tmp_path / "page.html")


def test_the_command_makes_a_page_of_a_saved_grid(grid, tmp_path):
    path = grid.save(tmp_path / "grid.tif")
    said = invoke("explore", path, "--out", tmp_path / "page.html", "--beside", path)
    assert said.exit_code == 0 and "page.html" in said.stdout and "open it in a browser" in said.stdout
    text = (tmp_path / "page.html").read_text("utf-8")
    assert text.count('"name":"mosaiks_rcf"') == 2 and '["Licence of the weights","Apache-2.0' in text
    refused(invoke("explore", path, "--level", "1"), "SpecError", "options of a grid", "level")
    refused(invoke("explore", tmp_path / "none.tif"), "StorageError", "none.tif")


def told_of(page) -> dict:
    """What a page holds, but for its arrays."""
    return json.loads(re.search(r'id="told">(.*?)</script>', page.read_text("utf-8"), re.S)[1])


def pixels_of(picture) -> np.ndarray:
    with rasterio.MemoryFile(base64.b64decode(picture["source"].split(",")[1])) as file, file.open() as raster:
        return raster.read()


def photograph(path, geobox):
    """An 8-bit picture in degrees around a grid: red grows to the east, green to the north."""
    lons, lats = pixel_centres(geobox)
    west, south, east, north = lons.min() - 0.01, lats.min() - 0.01, lons.max() + 0.01, lats.max() + 0.01
    ramp = np.linspace(10, 250, 200).astype(np.uint8)
    red, green = np.meshgrid(ramp, ramp[::-1])
    place = rasterio.transform.from_bounds(west, south, east, north, 200, 200)
    kind = {"driver": "GTiff", "width": 200, "height": 200, "count": 3, "dtype": "uint8", "photometric": "RGB"}
    with rasterio.open(path, "w", crs="EPSG:4326", transform=place, **kind) as raster:
        raster.write(np.stack([red, green, np.full_like(red, 90)]))
    return path


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")  # a PNG
def test_true_colour_comes_from_a_raster_if_the_result_holds_none(grid, tmp_path):
    path, photo = grid.save(tmp_path / "grid.tif"), photograph(tmp_path / "photo.tif", grid.geobox)
    said = invoke("explore", path, "--imagery", photo, "--out", tmp_path / "page.html")
    assert said.exit_code == 0, said.stderr
    told = told_of(tmp_path / "page.html")
    (picture,) = told["pictures"]
    box = grid.geobox.boundingbox
    assert picture["edges"] == pytest.approx([box.left, box.bottom, box.right, box.top])
    red, green, _, opacity = pixels_of(picture).astype(int)
    assert red.shape == tuple(side * (1200 // max(grid.geobox.shape)) for side in grid.geobox.shape)
    assert red[:, -1].min() > red[:, 0].max() and green[0].min() > green[-1].max() and opacity.min() == 255
    assert "Copernicus" in told["credit"] and told["credit"].endswith("Imagery: photo.tif")
    refused(invoke("explore", path, "--imagery", "stca"), "SpecError", "did you mean 'stac'")
    with pytest.raises(SpecError, match="with a place"):
        true_colour("sample", None, None)


@pytest.mark.slow
def test_true_colour_of_a_region_comes_from_a_backend_for_each_time(tmp_path):
    whole = open_region(MadeMap().write(tmp_path))
    told = told_of(whole.explore(None, tmp_path / "page.html", imagery="sample", level=1))
    assert len(told["pictures"]) == 2 and told["credit"].startswith("Contains modified Copernicus Sentinel data 2017")
