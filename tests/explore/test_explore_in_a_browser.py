"""What the page shows and saves equals what Python computes, in a real browser, without a request."""

import json
import re
from dataclasses import replace

import geopandas
import numpy as np
import pytest
import rasterio
from affine import Affine
from made_rows import embedding
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from shapely.geometry import Point

from rs_embed import PointBuffer
from rs_embed.embedding.embedding import Embedding
from rs_embed.embedding.similarity import cosine
from rs_embed.explore.packing import pack
from rs_embed.learning.labels import read_labels

pytestmark = pytest.mark.slow

PLACE = PointBuffer(12.94, 47.77, 800)
SIDE = 20
MARKS = {(2, 2): 0, (5, 7): 0, (15, 3): 1, (12, 8): 1, (15, 16): 2, (18, 18): 2}
"""Row and column -> class."""


def made(seed=0, dim=128, **meta) -> Embedding:
    """20 x 20 tokens of 80 m: three kinds of ground, with noise; one token is nodata."""
    one = embedding(PLACE, seed=seed, dim=dim, grid=True)
    rows, cols = np.mgrid[:SIDE, :SIDE]
    kinds = np.random.default_rng(7).standard_normal((3, dim)) + 1
    kind = (rows > 9).astype(int) + (cols > 12)
    data = (np.moveaxis(kinds[kind], -1, 0) + 0.3 * one.data).astype(np.float32)
    data[:, 3, 4] = np.nan
    assert data.shape == (dim, SIDE, SIDE)
    valid = np.linspace(0, 1, SIDE * SIDE, dtype=np.float32).reshape(SIDE, SIDE)
    return replace(one, data=data, valid=valid, meta=one.meta.model_copy(update=meta))


def click(page, row, col, layer=0, **options):
    x, y = page.evaluate(
        "([i, layer]) => explorer.view.toScreen(...explorer.layers[layer].centre(i))", [row * SIDE + col, layer]
    )
    page.locator("#map").click(position={"x": x, "y": y}, **options)


def choose(page, tool):
    page.locator(f"input[name=tool][value={tool}]").check(force=True)


def drawn(page):
    """Wait for the next frame. (What polls by `eval` is stopped by the page's policy.)"""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def heat(page, layer=0) -> np.ndarray:
    values = page.evaluate(
        "n => Array.from(explorer.similarityIn(explorer.layers[n]).values, v => Number.isNaN(v) ? null : v)", layer
    )
    return np.array(values, np.float64).reshape(SIDE, SIDE)


def tokens(one: Embedding) -> np.ndarray:
    return np.moveaxis(one.data, 0, -1).astype(np.float64)


def unit(vector) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def expected(one: Embedding, direction) -> np.ndarray:
    return cosine(tokens(one), np.asarray(direction))


def test_a_click_shows_the_cosine_that_python_computes(opened, tmp_path, pictures):
    one = made()
    page = opened(one.explore(tmp_path / "page.html", stored="float32"))
    page.screenshot(path=pictures / "explore_opened.png")
    click(page, 6, 5)
    found = heat(page)
    np.testing.assert_allclose(found, expected(one, one.data[:, 6, 5]), atol=2e-6)
    assert np.isnan(found[3, 4]) and found[6, 5] == pytest.approx(1)
    page.screenshot(path=pictures / "explore_clicked.png")


@pytest.mark.parametrize(("stored", "within"), [("int8", 5e-3), ("pca64", 0.02)])
def test_quantised_values_are_near_and_equal_python_on_the_same_numbers(opened, tmp_path, stored, within):
    one = made()
    page = opened(one.explore(tmp_path / "page.html", stored=stored))
    click(page, 15, 15)
    restored = pack(tokens(one).reshape(SIDE * SIDE, -1).astype(np.float32), stored).restored()
    same = cosine(restored, restored[15 * SIDE + 15]).reshape(SIDE, SIDE)
    same[3, 4] = np.nan
    np.testing.assert_allclose(heat(page), same, atol=2e-6)
    np.testing.assert_allclose(heat(page), expected(one, one.data[:, 15, 15]), atol=within)
    page.locator("#about-open").click()
    assert ("% of the variance" in page.locator("#about-body").inner_text()) == (stored == "pca64")


def test_several_examples_and_counterexamples_make_one_direction(opened, tmp_path):
    one = made()
    page = opened(one.explore(tmp_path / "page.html", stored="float32"))
    click(page, 2, 2)
    click(page, 12, 2)
    choose(page, "unlike")
    click(page, 15, 18)
    like = [unit(one.data[:, 2, 2]), unit(one.data[:, 12, 2])]
    direction = np.mean(like, axis=0) - unit(one.data[:, 15, 18])
    np.testing.assert_allclose(heat(page), expected(one, direction), atol=2e-6)
    assert page.locator("#examples li").count() == 3
    page.locator("#centred").check()
    mean = np.nanmean(one.data, axis=(1, 2))
    like = [unit(one.data[:, 2, 2] - mean), unit(one.data[:, 12, 2] - mean)]
    direction = np.mean(like, axis=0) - unit(one.data[:, 15, 18] - mean)
    np.testing.assert_allclose(heat(page), cosine(tokens(one) - mean, direction), atol=2e-6)
    for _ in range(3):
        page.locator("#examples button").first.click()
    assert page.evaluate("explorer.similarityIn(explorer.layers[0])") is None


def test_an_area_is_the_mean_of_its_tokens(opened, tmp_path):
    one = made()
    page = opened(one.explore(tmp_path / "page.html", stored="float32"))
    choose(page, "lasso")
    layer = "explorer.layers[0]"
    corners = page.evaluate(
        f"[[1,1],[1,4],[4,4],[4,1]].map(([r,c]) => explorer.view.toScreen({layer}.left + c * {layer}.cell[0], "
        f"{layer}.top - r * {layer}.cell[1]))"
    )
    box = page.locator("#map").bounding_box()
    for number, (x, y) in enumerate([*corners, corners[0]]):
        page.mouse.move(box["x"] + x, box["y"] + y, steps=3)
        if number == 0:
            page.mouse.down()
    page.mouse.up()
    np.testing.assert_allclose(heat(page), expected(one, one.data[:, 1:4, 1:4].mean(axis=(1, 2))), atol=2e-6)


def test_the_list_has_the_most_similar_and_the_threshold_hides_the_rest(opened, tmp_path):
    one = made()
    page = opened(one.explore(tmp_path / "page.html", stored="float32"))
    page.locator("#apart").uncheck()
    click(page, 6, 5)
    values = expected(one, one.data[:, 6, 5]).ravel()
    values[6 * SIDE + 5] = -2  # the example itself is left out
    page.locator("#best button").nth(11).wait_for()  # the list follows with the next frame
    texts = page.locator("#best button").all_inner_texts()
    best = np.sort(values[np.isfinite(values)])[::-1][: len(texts)]
    assert [float(text) for text in texts] == pytest.approx(best, abs=6e-4)
    assert page.locator("#best canvas").count() == len(texts) == 12
    page.locator("#share").fill("100")
    drawn(page)
    shown = page.evaluate(
        "(() => { const c = explorer.similarityIn(explorer.layers[0]).image.canvas;"
        " const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
        " let n = 0; for (let i = 3; i < d.length; i += 4) n += d[i] > 0; return n; })()"
    )
    assert shown == 40
    assert "10 %" in page.locator("#share-text").inner_text()


def test_labels_make_a_class_map_and_both_come_back_at_their_place(opened, tmp_path, pictures):
    one = made()
    page = opened(one.explore(tmp_path / "page.html", stored="float32"))
    page.locator("#class-name").fill("<b>river</b>")
    page.locator("#class-add").click()
    marks = {(2, 2): 0, (5, 7): 0, (15, 3): 1, (12, 8): 1, (15, 16): 2, (18, 18): 2}
    for (row, col), number in marks.items():
        page.locator("input[name=brush]").nth(number).check()
        click(page, row, col)
    page.locator("#nearest").fill("3")
    page.screenshot(path=pictures / "explore_labelled.png")

    with page.expect_download() as told:
        page.locator("#save-labels").click()
    labels = geopandas.read_file(told.value.path())
    assert list(labels["label"]) == ["A", "A", "B", "B", "<b>river</b>", "<b>river</b>"]
    to_degrees = Transformer.from_crs(one.geobox.crs, 4326, always_xy=True)
    for (row, col), point in zip(marks, labels.geometry, strict=True):
        lon, lat = to_degrees.transform(*(one.geobox.affine @ (col + 0.5, row + 0.5)))
        assert (point.x, point.y) == pytest.approx((lon, lat), abs=2e-8)
    assert np.isfinite(one.sample(labels)).all()  # and Python takes them as they are

    with page.expect_download() as told:
        page.locator("#save-classes").click()
    with rasterio.open(told.value.path()) as raster:
        assert raster.crs == one.geobox.crs and raster.transform == one.geobox.affine
        assert raster.nodata == 0 and raster.colormap(1)[1][:3] == (0xE6, 0x9F, 0x00)
        assert "3 <b>river</b>" in raster.tags()["TIFFTAG_IMAGEDESCRIPTION"]
        np.testing.assert_array_equal(raster.read(1), nearest_classes(one, marks, 3))

    choose(page, "like")
    click(page, 6, 5)
    with page.expect_download() as told:
        page.locator("#save-similar").click()
    with rasterio.open(told.value.path()) as raster:
        assert raster.crs == one.geobox.crs and raster.transform == one.geobox.affine and np.isnan(raster.nodata)
        np.testing.assert_allclose(raster.read(1), expected(one, one.data[:, 6, 5]), atol=2e-6)

    choose(page, "label")
    page.locator("input[name=brush]").last.check()  # rub out
    click(page, 18, 18)
    del marks[18, 18]
    classes = page.evaluate("Array.from(explorer.classesIn(explorer.layers[0]))")
    np.testing.assert_array_equal(np.reshape(classes, (SIDE, SIDE)), nearest_classes(one, marks, 3))
    page.locator("#clear-labels").click()
    assert page.locator("#save-classes").is_disabled()


def label(page, marks, classes=()):
    for name in classes:
        page.locator("#class-name").fill(name)
        page.locator("#class-add").click()
    choose(page, "label")
    for (row, col), number in marks.items():
        page.locator("input[name=brush]").nth(number).check()
        click(page, row, col)


def saved(page, button, path):
    with page.expect_download() as told:
        page.locator(button).click()
    told.value.save_as(path)
    return path


def load(page, path):
    """Load labels as a user does; return what the page says."""
    page.locator("#hint").evaluate("hint => { hint.textContent = ''; hint.hidden = true; }")
    with page.expect_file_chooser() as told:
        page.locator("#load-labels").click()
    told.value.set_files(path)
    page.locator("#hint", has_text=re.compile("[.]$")).wait_for()
    return page.locator("#hint").inner_text()


def marks_of(page):
    return page.evaluate("explorer.state.labels.map(one => [one.item, explorer.state.classes[one.number].name])")


def test_labels_that_the_page_saved_come_back_with_their_classes_and_numbers(opened, tmp_path):
    path = made().explore(tmp_path / "page.html", stored="float32")
    page = opened(path)
    label(page, MARKS, ["<b>river</b>", "<i>field</i>"])
    before = marks_of(page)
    labels = saved(page, "#save-labels", tmp_path / "labels.geojson")

    again = opened(path)
    assert load(again, labels) == "6 labels loaded."
    assert marks_of(again) == before
    assert again.evaluate("explorer.state.classes.map(one => one.name)") == ["A", "B", "<b>river</b>"]
    back = json.loads(saved(again, "#save-labels", tmp_path / "again.geojson").read_text("utf-8"))
    assert back == json.loads(labels.read_text("utf-8"))
    assert again.locator("#classes b").count() == 0

    numbers = geopandas.read_file(labels).query("`class` == 3")
    numbers.to_file(tmp_path / "third.geojson", driver="GeoJSON")
    fresh = opened(path)
    load(fresh, tmp_path / "third.geojson")
    assert fresh.evaluate("explorer.state.labels.map(one => one.number)") == [2, 2]  # the number stays


def test_labels_of_the_page_are_labels_of_the_library(opened, tmp_path):
    one = made()
    page = opened(one.explore(tmp_path / "page.html"))
    label(page, MARKS, ["<b>river</b>"])
    path = saved(page, "#save-labels", tmp_path / "labels.geojson")
    labels = read_labels(path, "label", buffer_m=40)
    assert labels.kind == "classes" and labels.support() == {"<b>river</b>": 2, "A": 2, "B": 2}
    codes = read_labels(path, "class", kind="classes", buffer_m=40)
    assert [codes.classes[target] for target in codes.targets] == [str(number + 1) for number in MARKS.values()]
    vectors = one.sample(geopandas.read_file(path))
    np.testing.assert_array_equal(vectors, [one.data[:, row, col] for row, col in MARKS])


def test_labels_of_a_gis_go_to_their_cells_and_what_does_not_fit_is_told(opened, tmp_path):
    one = made()
    page = opened(one.explore(tmp_path / "page.html", stored="float32"))
    to_degrees = Transformer.from_crs(one.geobox.crs, 4326, always_xy=True)
    cells = {(0, 0): "water", (19, 19): "water", (7, 12): "wood", (3, 4): "nodata here"}
    points = [Point(*to_degrees.transform(*(one.geobox.affine @ (col + 0.1, row + 0.9)))) for row, col in cells]
    kinds = [*cells.values(), "far", None, "area"]
    shapes = [*points, Point(-60, -3), points[0], points[0].buffer(0.001)]
    table = geopandas.GeoDataFrame({"class": kinds}, geometry=shapes, crs=4326)
    table.to_file(tmp_path / "gis.geojson", driver="GeoJSON")
    said = load(page, tmp_path / "gis.geojson")
    assert said.startswith("3 labels loaded; 2 lie where this result has no value; 2 are not points")
    assert marks_of(page) == [[0, "water"], [399, "water"], [7 * SIDE + 12, "wood"]]

    table.iloc[:3].to_crs(one.geobox.crs).to_file(tmp_path / "utm.geojson", driver="GeoJSON")
    assert "Expected labels in EPSG:4326, got" in load(page, tmp_path / "utm.geojson")
    (tmp_path / "not.geojson").write_text("class,lon,lat")
    assert "Expected a GeoJSON file" in load(page, tmp_path / "not.geojson")
    assert len(marks_of(page)) == 3


@pytest.mark.parametrize("stored", ["float32", "int8"])
def test_the_logistic_map_is_the_regression_that_numpy_solves(opened, tmp_path, pictures, stored):
    one = made(dim=24)
    page = opened(one.explore(tmp_path / "page.html", stored=stored))
    label(page, MARKS, ["river"])
    page.locator("#method").select_option("logistic")
    assert page.locator("#nearest").is_hidden()
    drawn(page)
    page.screenshot(path=pictures / "explore_logistic.png")
    vectors = pack(tokens(one).reshape(SIDE * SIDE, -1).astype(np.float32), stored).restored().astype(np.float64)
    vectors[3 * SIDE + 4] = np.nan
    weights, classes = logistic(vectors, [row * SIDE + col for row, col in MARKS], list(MARKS.values()))
    found = page.evaluate("Array.from(explorer.logisticIn(explorer.layers[0]).weights)")
    np.testing.assert_allclose(np.reshape(found, weights.shape), weights, atol=1e-5)
    with rasterio.open(saved(page, "#save-classes", tmp_path / "classes.tif")) as raster:
        assert "logistic regression" in raster.tags()["TIFFTAG_IMAGEDESCRIPTION"]
        np.testing.assert_array_equal(raster.read(1).ravel(), classes)
    assert classes[3 * SIDE + 4] == 0 and set(classes) == {0, 1, 2, 3}

    label(page, {(1, 1): -1})  # rub out a place without a label: nothing changes
    page.locator("#method").select_option("nearest")
    nearest = page.evaluate("Array.from(explorer.classesIn(explorer.layers[0]))")
    assert set(nearest) == {0, 1, 2, 3} and page.locator("#nearest").is_visible()


def logistic(vectors, items, numbers):
    """Newton's method with all second derivatives: weights `[K, D + 1]`, and class + 1 of each vector."""
    scaled = (vectors - np.nanmean(vectors, axis=0)) / np.nanstd(vectors, axis=0)
    rows = np.column_stack([scaled, np.ones(len(scaled))])
    x, y = rows[items], np.eye(max(numbers) + 1)[numbers]
    count, wide = y.shape[1], x.shape[1]
    penalty = np.tile(np.append(np.ones(wide - 1), 0), count)
    weights = np.zeros((count, wide))
    for _ in range(30):
        shares = np.exp(x @ weights.T)
        shares /= shares.sum(axis=1, keepdims=True)
        gradient = ((shares - y).T @ x).ravel() + penalty * weights.ravel()
        blocks = shares[:, :, None] * (np.eye(count) - shares[:, None, :])
        second = np.einsum("nkl,ni,nj->kilj", blocks, x, x).reshape(count * wide, -1) + np.diag(penalty)
        weights -= (np.linalg.pinv(second, rcond=1e-12) @ gradient).reshape(count, wide)
    assert np.abs(gradient).max() < 1e-9
    known = np.isfinite(rows).all(axis=1)
    return weights, np.where(known, 1 + np.nan_to_num(rows @ weights.T).argmax(axis=1), 0)


def nearest_classes(one: Embedding, marks, k) -> np.ndarray:
    flat = tokens(one).reshape(-1, one.data.shape[0])
    likeness = np.stack([cosine(flat, one.data[:, row, col]) for row, col in marks], axis=1)
    numbers = np.array(list(marks.values())) + 1
    out = np.zeros(len(flat), np.uint8)
    for i in np.flatnonzero(np.isfinite(flat).all(axis=1)):
        near = numbers[np.argsort(-likeness[i], kind="stable")[:k]]
        votes = np.bincount(near)
        out[i] = next(number for number in near if votes[number] == votes.max())
    return out.reshape(SIDE, SIDE)


def test_two_years_have_a_slider_a_swipe_and_a_change_map(opened, tmp_path, pictures):
    one, later = made(0), made(1)
    page = opened(one.explore(tmp_path / "page.html", beside=later, stored="float32"))
    assert page.locator("#time").is_visible()
    page.locator("#beside").select_option("1")
    page.locator("#overlay").select_option("change")
    page.screenshot(path=pictures / "explore_change.png")
    assert "1 − cosine between the vectors" in page.locator("#overlay-text").inner_text()
    truth = one.change(later).to_numpy()
    np.testing.assert_allclose(difference(page), truth, atol=2e-6)
    with rasterio.open(saved(page, "#save-difference", tmp_path / "change.tif")) as raster:
        assert raster.crs == one.geobox.crs and raster.transform == one.geobox.affine
        np.testing.assert_allclose(raster.read(1), truth, atol=2e-6)
    page.locator("#time").fill("1")
    assert page.evaluate("explorer.state.shown") == 1


def test_two_years_in_reduced_form_share_their_axes(opened, tmp_path):
    one, later = made(0), made(1)
    page = opened(one.explore(tmp_path / "page.html", beside=later, stored="pca64"))
    click(page, 6, 5)
    both = np.concatenate([tokens(year).reshape(SIDE * SIDE, -1) for year in (one, later)]).astype(np.float32)
    restored = pack(both, "pca64").restored()
    truth = cosine(restored[SIDE * SIDE :], restored[6 * SIDE + 5]).reshape(SIDE, SIDE)
    truth[3, 4] = np.nan
    np.testing.assert_allclose(heat(page, 1), truth, atol=2e-6)


def test_two_models_answer_for_the_same_place_each_by_its_own_vectors(opened, tmp_path):
    one, other = made(0), made(1, dim=64, model_id="another", weights="bundled:other")
    page = opened(one.explore(tmp_path / "page.html", beside=[other], stored="float32"))
    click(page, 6, 5)
    np.testing.assert_allclose(heat(page, 1), expected(other, other.data[:, 6, 5]), atol=2e-6)
    page.locator("#beside").select_option("1")
    options = page.locator("#overlay option").all_inner_texts()
    assert not [text for text in options if "Change" in text]  # their axes are unrelated


def difference(page) -> np.ndarray:
    values = page.evaluate(
        "Array.from(explorer.differenceIn(explorer.layers[0]).values, v => Number.isNaN(v) ? null : v)"
    )
    return np.array(values, float).reshape(SIDE, SIDE)


def test_two_models_differ_by_the_rank_of_each_place(opened, tmp_path, pictures):
    one, fine = made(0), made(1, dim=64, model_id="another", weights="random:7", weights_note="random weights, seed 7")
    coarse = GeoBox((SIDE // 2, SIDE // 2), fine.geobox.affine @ Affine.scale(2), fine.geobox.crs)
    other = replace(fine, data=fine.data[:, ::2, ::2], valid=fine.valid[::2, ::2], geobox=coarse)
    page = opened(one.explore(tmp_path / "page.html", beside=other, stored="float32"))
    page.locator("#beside").select_option("1")
    page.locator("#overlay").select_option("ranks")
    assert "Click a place" in page.locator("#overlay-text").inner_text()
    click(page, 6, 5)
    drawn(page)
    mine = expected(one, one.data[:, 6, 5])
    theirs = expected(other, other.data[:, 3, 2]).repeat(2, axis=0).repeat(2, axis=1)
    both = np.isfinite(mine) & np.isfinite(theirs)
    truth = np.full((SIDE, SIDE), np.nan)
    truth[both] = shares(mine[both]) - shares(theirs[both])
    found = difference(page)
    np.testing.assert_array_equal(np.isfinite(found), both)
    assert np.nanmax(np.abs(found - truth)) <= 4.1 / both.sum()  # values that are equal but for rounding may swap
    assert page.locator("#overlay").input_value() == "ranks"  # a click leaves it
    assert "mosaiks_rcf finds the place more like" in page.locator("#overlay-text").inner_text()
    assert page.locator("#swipe").is_hidden()
    assert page.locator("#random").inner_text().startswith("another: RANDOM WEIGHTS")
    page.screenshot(path=pictures / "explore_ranks.png")


def shares(values) -> np.ndarray:
    """For each value, the share of all that are at most as large."""
    return np.searchsorted(np.sort(values), values, side="right") / len(values)


def test_the_keyboard_does_what_the_mouse_does(opened, tmp_path):
    one = made()
    page = opened(one.explore(tmp_path / "page.html", stored="float32"))
    page.locator("#map").focus()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowLeft")
    assert "row 9, column 9" in page.locator("#where").inner_text()
    page.keyboard.press("Enter")
    np.testing.assert_allclose(heat(page), expected(one, one.data[:, 9, 9]), atol=2e-6)
    before = page.evaluate("explorer.view.scale")
    page.keyboard.press("+")
    assert page.evaluate("explorer.view.scale") > before
    page.keyboard.press("0")
    assert page.evaluate("explorer.view.scale") == pytest.approx(before)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_text_stands_out_in_both_themes(opened, tmp_path, pictures, scheme):
    page = opened(made().explore(tmp_path / "page.html"), width=375, height=740, color_scheme=scheme)
    assert page.evaluate("document.documentElement.dataset.theme") == scheme
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    assert page.locator("#map").bounding_box()["height"] > 250
    page.screenshot(path=pictures / f"explore_phone_{scheme}.png", full_page=True)
    for ink, ground in [("ink", "panel"), ("quiet", "panel"), ("ink", "ground"), ("on-accent", "accent")]:
        assert contrast(page, ink, ground) >= 4.5, (ink, ground)
    page.locator("#theme").click()
    assert page.evaluate("document.documentElement.dataset.theme") != scheme


def contrast(page, ink, ground) -> float:
    """Of two colours of the style, as WCAG counts it."""

    def luminance(name):
        text = page.evaluate("n => getComputedStyle(document.documentElement).getPropertyValue('--' + n)", name)
        parts = np.array([int(text.strip()[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        linear = np.where(parts <= 0.03928, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ (0.2126, 0.7152, 0.0722))

    high, low = sorted((luminance(ink), luminance(ground)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_what_metadata_say_is_text_and_random_weights_cannot_be_overlooked(opened, tmp_path):
    evil = "<script>document.title='owned'</script><img src=x onerror=alert(1)>"
    one = made(model_id=evil, weights="random:7", weights_note="random weights, seed 7")
    page = opened(one.explore(tmp_path / "page.html", credit=evil))
    assert evil in page.title() and evil in page.locator("#title").inner_text()
    assert page.locator("#credit").inner_text() == evil
    banner = page.locator("#random")
    assert "RANDOM WEIGHTS" in banner.inner_text()
    assert float(banner.evaluate("e => parseFloat(getComputedStyle(e).fontSize)")) >= 20
    page.locator("#about-open").click()
    assert "random:7" in page.locator("#about-body").inner_text()
    assert page.locator("img").count() == 0


def test_the_policy_stops_whatever_is_not_ours(opened, tmp_path, browser):
    path = made().explore(tmp_path / "page.html")
    context = browser.new_context()
    page = context.new_page()  # not by `opened`: what is refused is an error on the console
    page.goto(path.resolve().as_uri())
    refused = page.evaluate(
        """async () => {
          const script = document.createElement("script");
          script.textContent = "window.owned = true";
          document.body.append(script);
          const image = new Image();
          image.src = "http://127.0.0.1:9/x.png";
          const loaded = await new Promise((done) => {
            image.onload = () => done(true);
            image.onerror = () => done(false);
          });
          const fetched = await fetch("http://127.0.0.1:9/").then(() => true, () => false);
          let evaluated = true;
          try { new Function("return 1")(); } catch { evaluated = false; }
          return [window.owned === undefined, loaded, fetched, evaluated];
        }"""
    )
    context.close()
    assert refused == [True, False, False, False]


def test_a_click_on_a_large_grid_answers_at_once(opened, tmp_path):
    rng = np.random.default_rng(0)
    one = embedding(PointBuffer(12.94, 47.77, 8000), dim=128, grid=True)
    assert one.data.shape == (128, 200, 200)
    one = replace(one, data=rng.standard_normal((128, 200, 200), dtype=np.float32))
    path = one.explore(tmp_path / "page.html")
    assert path.stat().st_size < 25e6
    page = opened(path)
    times = []
    for step in range(6):
        page.locator("#map").click(position={"x": 200 + 40 * step, "y": 200})
        times.append(page.evaluate("explorer.clickMs"))
    print(f"clicks: {json.dumps(times)} ms, {path.stat().st_size / 1e3:.0f} kB")
    assert min(times) < 50
