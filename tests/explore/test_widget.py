"""The page in a notebook: what is clicked and labelled in a real browser arrives in Python."""

import json

import numpy as np
import pytest
from made_rows import embedding
from playwright.sync_api import FrameLocator, Page

from rs_embed import PointBuffer
from rs_embed.embedding.batch import Embeddings
from rs_embed.errors import SpecError
from rs_embed.explore.widget import PageWidget

PLACE = PointBuffer(12.94, 47.77, 800)
HOST = """<!doctype html><title>notebook</title><link rel="icon" href="data:,"><div id="cell"></div>
<script type="application/json" id="state">{state}</script>
<script type="module">
const state = JSON.parse(document.getElementById("state").textContent);
const module = new Blob([state._esm], {{ type: "text/javascript" }});
const {{ default: widget }} = await import(URL.createObjectURL(module));
window.saved = {{}};
const model = {{
  get: (name) => state[name],
  set: (name, value) => (state[name] = value),
  save_changes: () => Object.assign(window.saved, state),
}};
window.stop = widget.render({{ model, el: document.getElementById("cell") }});
window.ready = true;
</script>"""
"""A notebook's part of a widget: the model with its state, and a cell to render into."""


def test_a_widget_has_the_page_and_nothing_selected_yet(tmp_path):
    grid = embedding(PLACE, grid=True)
    widget = grid.widget(height_px=500)
    assert widget.page == grid.explore(tmp_path / "page.html").read_text("utf-8")
    assert widget.get_state()["height_px"] == 500
    assert len(widget.labels) == 0 and {"label", "class"} <= set(widget.labels.columns)
    assert widget.selected.crs == widget.labels.crs == 4326
    with pytest.raises(SpecError, match="height_px"):
        grid.widget(height_px=3)


@pytest.fixture
def shown(opened, tmp_path):
    """A function that shows a widget in a page: the page, and the frame of the widget."""

    def visit(widget: PageWidget, **options) -> tuple[Page, FrameLocator]:
        state = {name: widget.get_state()[name] for name in ("_esm", "page", "height_px")}
        path = tmp_path / "notebook.html"
        path.write_text(HOST.format(state=json.dumps(state).replace("<", "\\u003c")), "utf-8")
        page = opened(path, **options)
        return page, page.frame_locator("iframe")

    return visit


def update(page: Page, widget: PageWidget, count: int) -> None:
    """Bring what the page saved to Python, once it has this many examples and labels."""
    page.wait_for_function(
        "n => (saved.selected_geojson?.features.length ?? 0) + (saved.labels_geojson?.features.length ?? 0) === n",
        arg=count,
    )
    widget.set_state(
        page.evaluate("({selected_geojson: saved.selected_geojson, labels_geojson: saved.labels_geojson})")
    )


@pytest.mark.slow
def test_clicks_and_labels_of_a_grid_come_back(shown, pictures):
    grid = embedding(PLACE, grid=True)
    widget = grid.widget()
    changes = []
    widget.observe(lambda change: changes.append(change["new"]), "labels_geojson")
    page, frame = shown(widget, width=1000, height=720)
    frame.locator("#map").click(position={"x": 300, "y": 250})
    frame.locator("#map").click(position={"x": 340, "y": 300}, modifiers=["Shift"])
    update(page, widget, 2)
    assert list(widget.selected["example"]) == ["like", "unlike"]
    assert np.isfinite(grid.sample(widget.selected)).all()
    frame.locator("input[name=tool][value=label]").check(force=True)
    frame.locator("#map").click(position={"x": 280, "y": 300})
    update(page, widget, 3)
    assert list(widget.labels["label"]) == ["A"] and len(changes) == 1
    row, column = widget.labels["grid_row"][0], widget.labels["grid_column"][0]
    np.testing.assert_array_equal(grid.sample(widget.labels)[0], grid.data[:, row, column])
    page.screenshot(path=pictures / "explore_widget.png")
    frame.locator("#about-open").click()
    frame.locator("#about button").click()
    frame.locator("#about").wait_for(state="hidden")
    with page.expect_download() as told:
        frame.locator("#save-labels").click()
    assert json.loads(told.value.path().read_text("utf-8"))["features"] == widget.labels_geojson["features"]


@pytest.mark.slow
def test_a_frame_of_somebody_else_is_not_heard_and_an_area_comes_back_as_one(shown):
    widget = embedding(PLACE, grid=True).widget()
    page, frame = shown(widget, width=1000, height=720)
    frame.locator("#map").wait_for()
    page.evaluate(
        """() => new Promise((done) => {
          window.addEventListener("message", () => setTimeout(done, 0));
          window.postMessage({ from: "rs_embed", selected: { features: [1] }, labels: { features: [1] } }, "*");
        })"""
    )
    assert page.evaluate("window.saved") == {}
    frame.locator("input[name=tool][value=lasso]").check(force=True)
    box = frame.locator("#map").bounding_box()
    for number, (x, y) in enumerate([(250, 200), (350, 200), (350, 300), (250, 300), (250, 200)]):
        page.mouse.move(box["x"] + x, box["y"] + y, steps=3)
        if number == 0:
            page.mouse.down()
    page.mouse.up()
    update(page, widget, 1)
    assert widget.selected.geometry[0].geom_type == "Polygon" and widget.selected.geometry[0].area > 0


@pytest.mark.slow
def test_places_come_back_with_their_ids(shown):
    places = [PointBuffer(12.94 + step / 100, 47.77, 320) for step in range(4)]
    many = Embeddings([embedding(one, seed=seed) for seed, one in enumerate(places)], ["a", "b", "c", "d"])
    widget = many.widget()
    page, frame = shown(widget, width=1000, height=720)
    frame.locator("#table-body button").nth(2).click()
    update(page, widget, 1)
    assert list(widget.selected["id"]) == ["c"]
    assert widget.selected.geometry.x[0] == pytest.approx(12.96, abs=1e-4)
