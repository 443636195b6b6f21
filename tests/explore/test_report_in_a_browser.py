"""The report of an evaluation, opened in Chromium: no request, no error, and it fits a phone."""

import sys
from pathlib import Path

import numpy as np
import pytest

from rs_embed.learning.evaluate import evaluate
from rs_embed.learning.report import report_html

sys.path.append(str(Path(__file__).parents[1] / "learning"))
from made_labels import labelled, patches, plain

pytestmark = pytest.mark.slow

EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module", params=["classes", "number", "multilabel"])
def report(request, tmp_path_factory):
    """A report of labels of each kind, whose names are markup."""
    frame, rng = plain(60), np.random.default_rng(0)
    kind, classes = request.param, patches(frame, 8)
    values = {
        "classes": [EVIL if one == "a" else one for one in classes],
        "number": rng.normal(size=60),
        "multilabel": [f"{EVIL};b" if one == "a" else f"{one};d" for one in classes],
    }[kind]
    labels = labelled(frame.rename(columns={}), values)
    own = {f"{EVIL} a model with a long name": rng.normal(size=(60, 4)), "other": rng.normal(size=(60, 2))}
    found = evaluate(own, labels, out=None, backend=None, head="knn", progress=False)
    return found.report(tmp_path_factory.mktemp(kind) / "report.html"), found


def test_the_report_fits_a_wide_screen_and_a_phone(report, opened, pictures):
    path, found = report
    for width, scheme in ((1280, "light"), (375, "dark")):
        page = opened(path, width=width, color_scheme=scheme)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator("h1").inner_text() == "Which model for y?"
        assert page.locator("section svg circle").count() > len(found.rows)
        assert page.locator("img").count() == 0 and EVIL in page.locator("main").inner_text()
        page.screenshot(path=pictures / f"report-{found.labels.kind}-{width}.png", full_page=True)


def test_every_text_of_the_report_is_escaped_and_nothing_may_be_loaded(report):
    _, found = report
    html = report_html(found)

    assert EVIL not in html and "&lt;img src=x" in html and "<script" not in html
    assert "default-src 'none'; style-src 'sha256-" in html and "http://" not in html and "https://" not in html
    for row in found.rows:
        assert f"{row.main.value:.3f}" in html
