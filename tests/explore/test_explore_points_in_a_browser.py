"""A run as a page: map, projection and table are linked, and what a table holds is text."""

import geopandas
import numpy as np
import pandas as pd
import pytest

from rs_embed.embedding.similarity import cosine
from rs_embed.explore.page import PageOptions
from rs_embed.explore.points import Dots, explore_points

pytestmark = pytest.mark.slow

COUNT = 60
EVIL = "<script>window.owned = 1</script>"


def made(seed=0) -> Dots:
    rng = np.random.default_rng(seed)
    kind = np.arange(COUNT) % 3
    vectors = (rng.standard_normal((3, 32))[kind] + 0.4 * rng.standard_normal((COUNT, 32))).astype(np.float32)
    vectors[7] = np.nan  # a row that failed
    columns = {
        "crop": pd.Series(np.array(["wheat", "maize", "<b>rye</b>"])[kind]),
        "yield": pd.Series(np.where(np.arange(COUNT) == 3, np.nan, np.arange(COUNT) / 7)),
        "<i>when</i>": pd.Series(pd.to_datetime("2024-01-01") + pd.to_timedelta(np.arange(COUNT), "D")),
    }
    ids = [f"plot {n}" for n in range(COUNT - 1)] + [EVIL]
    lon, lat = rng.uniform(12.9, 13.1, COUNT), rng.uniform(47.7, 47.9, COUNT)
    return Dots("made up", "2024", ids, lon, lat, vectors, columns, {"Model": "made up"}, "space")


@pytest.fixture
def page(opened, tmp_path):
    return opened(explore_points(made(), tmp_path / "page.html", "", options=PageOptions(stored="float32")))


def rows(page) -> list[list[str]]:
    return [row.split("\t") for row in page.locator("#table-body tr").all_inner_texts()]


def test_a_click_sorts_the_table_by_the_similarity_that_python_computes(page, pictures):
    dots = made()
    assert len(rows(page)) == COUNT - 1
    x, y = page.evaluate("explorer.view.toScreen(...explorer.layers[0].centre(5))")
    page.locator("#map").click(position={"x": x, "y": y})
    page.locator("th", has_text="similarity").wait_for()
    keep = np.isfinite(dots.vectors).all(axis=1)
    ids = np.array(dots.ids)[keep]
    truth = cosine(dots.vectors[keep], dots.vectors[5])
    order = np.argsort(-truth, kind="stable")
    found = rows(page)
    assert [row[0] for row in found] == list(ids[order])
    assert [float(row[1]) for row in found] == pytest.approx(truth[order], abs=6e-4)
    page.screenshot(path=pictures / "explore_points.png")


def test_ids_names_and_columns_are_text(page):
    assert page.evaluate("window.owned") is None
    assert page.locator("#table-body b, #table-head i, #table-body script").count() == 0
    assert EVIL in [row[0] for row in rows(page)]
    assert "<i>when</i>" in page.locator("#table-head").inner_text()
    page.locator("#table-body button", has_text=EVIL).click()
    page.locator("#examples button", has_text=EVIL).wait_for()
    page.locator("#colour").select_option(label="crop")
    assert "<b>rye</b>" in page.locator("#legend-names").inner_text()


def test_search_and_lasso_choose_the_rows_of_the_table(page):
    page.locator("#search").fill("PLOT 12")
    assert [row[0] for row in rows(page)] == ["plot 12"]
    page.locator("#search").fill("maize")
    assert len(rows(page)) == 19  # 20, and one of them failed
    page.locator("#search").fill("")
    page.locator("input[name=tool][value=lasso]").check(force=True)
    box = page.locator("#projection").bounding_box()
    ring = [(1, 1), (1, box["height"] - 1), (box["width"] - 1, box["height"] - 1), (box["width"] - 1, 1)]
    for number, (x, y) in enumerate(ring):
        page.mouse.move(box["x"] + x, box["y"] + y, steps=4)
        if number == 0:
            page.mouse.down()
    page.mouse.up()
    page.locator("#examples button", has_text=f"mean of {COUNT - 1}").wait_for()
    page.locator("#select-none").click()
    assert len(rows(page)) == COUNT - 1


def test_labels_carry_the_ids_and_classes_follow_the_nearest(page):
    dots = made()
    page.locator("input[name=tool][value=label]").check(force=True)
    for brush, names in enumerate((["plot 0", "plot 3"], ["plot 1", "plot 4"])):
        page.locator("input[name=brush]").nth(brush).check()
        for name in names:
            page.locator("#table-body button").get_by_text(name, exact=True).click()
    page.locator("#nearest").fill("1")
    classes = page.evaluate("Array.from(explorer.classesIn(explorer.layers[0]))")
    keep = np.isfinite(dots.vectors).all(axis=1)
    likeness = np.stack([cosine(dots.vectors[keep], dots.vectors[row]) for row in (0, 3, 1, 4)], axis=1)
    assert classes == list(np.array([1, 1, 2, 2])[likeness.argmax(axis=1)])
    with page.expect_download() as told:
        page.locator("#save-labels").click()
    labels = geopandas.read_file(told.value.path())
    assert list(labels["id"]) == ["plot 0", "plot 3", "plot 1", "plot 4"] and list(labels["class"]) == [1, 1, 2, 2]
    assert labels.geometry.x.to_numpy() == pytest.approx(dots.lon[[0, 3, 1, 4]], abs=2e-8)
    assert labels.geometry.y.to_numpy() == pytest.approx(dots.lat[[0, 3, 1, 4]], abs=2e-8)


def test_it_fits_a_phone(opened, tmp_path, pictures):
    page = opened(explore_points(made(), tmp_path / "page.html", ""), width=375, height=740, color_scheme="dark")
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    assert page.locator("#projection").bounding_box()["height"] > 200
    page.screenshot(path=pictures / "explore_points_phone.png", full_page=True)
