"""Objects introduce themselves: one line anywhere, a card in a notebook, whatever they hold."""

import base64
import io
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.image import imread
from odc.geo.geobox import GeoBox

from rs_embed import (
    Embedding,
    OutputSpec,
    PointBuffer,
    TemporalSpec,
    export_embeddings,
    get_embedding,
    get_embeddings,
    open_run,
    plan_embedding,
)
from rs_embed.core.display import parameters_text, percent, png, safely, sparkline
from rs_embed.embedders.catalog import CARDS, get_card
from rs_embed.embedding.batch import Embeddings
from rs_embed.errors import NoImagery
from rs_embed.testing import FieldProvider

PLACE = PointBuffer(lon=-72.5, lat=-38.8, buffer_m=400)
YEAR = TemporalSpec.year(2020)
EVIL = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def grid() -> Embedding:
    return get_embedding("mosaiks_rcf", PLACE, YEAR, OutputSpec.grid(), backend=FieldProvider(), patch_size=16)


@pytest.fixture(scope="module")
def vector() -> Embedding:
    return get_embedding("mosaiks_rcf", PLACE, YEAR, backend=FieldProvider())


@pytest.fixture(scope="module")
def untrained() -> Embedding:
    return get_embedding("galileo_1_0_nano", PLACE, YEAR, backend=FieldProvider(), pretrained=False, modality="s2")


class Page(HTMLParser):
    """Refuses what a browser would have to mend, and what would be loaded from elsewhere."""

    VOID = frozenset({"img", "br"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        assert tag in {"div", "span", "strong", "br", "img", "svg", "path", "pre"}
        for name, value in attrs:
            assert not name.startswith("on") and name != "href"
            assert name != "src" or value.startswith("data:image/png;base64,")
            assert "url(" not in (value or "")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def shown(one) -> str:
    """The text of a card that is sound and small."""
    html = one._repr_html_()
    assert len(html) < 60_000
    return " | ".join(Page(html).texts)


def test_an_embedding_says_model_place_days_shape_and_valid_share_in_a_line(grid, vector):
    assert repr(grid) == (
        f"Embedding(mosaiks_rcf, grid {grid.data.shape}, 38.8000°S 72.5000°W, "
        f"{grid.meta.inputs[0].scene_times[0][:10]}, 100 % valid)"
    )
    assert "pooled (1024,)" in repr(vector)


def test_random_weights_are_said_in_every_form(untrained):
    many = Embeddings([untrained], ["a"])
    for one in (untrained, untrained.meta, many):
        assert "random weights" in repr(one)
        assert "random weights" in shown(one)


def test_the_card_of_a_grid_has_facts_and_a_picture_of_its_tokens(grid):
    text = shown(grid)
    for fact in ("mosaiks_rcf", "38.8000°S 72.5000°W", "EPSG:32718", "COPERNICUS/S2_SR_HARMONIZED", "160 m per token"):
        assert fact in text
    (data,) = re.findall(r"base64,([^\"]+)", grid._repr_html_())
    assert imread(io.BytesIO(base64.b64decode(data))).shape == (*grid.data.shape[1:], 4)


def test_the_picture_of_a_huge_grid_of_noise_stays_small(grid):
    noise = np.random.default_rng(0).standard_normal((8, 1000, 700)).astype(np.float32)
    text = shown(replace(grid, data=noise, geobox=GeoBox((1000, 700), grid.geobox.affine, grid.geobox.crs)))
    assert "8 x 1000 x 700" in text


def test_the_card_of_a_vector_has_its_profile(vector):
    assert "1,024 values" in shown(vector)
    assert "<svg" in vector._repr_html_() and "base64" not in vector._repr_html_()


@pytest.mark.parametrize("shape", [(0,), (5,), (3, 0, 4), (3, 1, 1), (3, 4, 5)])
@pytest.mark.parametrize("fill", [np.nan, np.inf, 0.0, 1.0])
def test_whatever_an_embedding_holds_it_can_be_shown(grid, shape, fill):
    one = replace(grid, data=np.full(shape, fill, np.float32), geobox=None)
    assert "no place" in repr(one)
    assert "mosaiks_rcf" in shown(one)


def test_tokens_without_a_value_are_counted(grid):
    data = grid.data.copy()
    data[:, 0] = np.nan
    missing = data.shape[2]
    assert f"{missing} of {data[0].size} tokens without a value" in shown(replace(grid, data=data))


def test_text_of_users_is_escaped(grid, tmp_path):
    meta = grid.meta.model_copy(update={"model_id": EVIL, "spatial": EVIL, "weights": EVIL})
    for one in (replace(grid, meta=meta), meta, Embeddings([replace(grid, meta=meta)], [EVIL])):
        html = one._repr_html_()
        assert "<script" not in html and "&lt;script&gt;" in html
        Page(html)


def test_many_embeddings_list_the_first_and_what_failed():
    places = [PointBuffer(-72.5, -38.8, 400), PointBuffer(10, 50, 400), PointBuffer(-72.6, -38.8, 400)]
    many = get_embeddings("mosaiks_rcf", places * 4, YEAR, backend=Fails(), on_error="keep", progress=False)
    assert repr(many).startswith("Embeddings(12 places, 4 failed, first: Embedding(mosaiks_rcf")
    text = shown(many)
    assert "Embeddings of 12 places" in text and "4, see .failures" in text and "failed: NoImagery" in text
    assert "and 7 more" in text
    assert "Embeddings of 0 places" in shown(many[:0])


class Fails(FieldProvider):
    def fetch(self, query):
        if str(query.geobox.crs) == "EPSG:32632":
            raise NoImagery("Nothing there.")
        return super().fetch(query)


def test_metadata_are_one_line_a_listing_and_a_card(grid):
    assert repr(grid.meta).count("\n") == 0 and "weights bundled:mosaiks_rcf_bank" in repr(grid.meta)
    assert f"fingerprint: {grid.meta.fingerprint}" in str(grid.meta).splitlines()
    assert grid.meta.fingerprint[:16] in shown(grid.meta)


def test_a_plan_is_a_line_a_card_and_json():
    plan = plan_embedding("mosaiks_rcf", PLACE, YEAR, backend=FieldProvider())
    assert repr(plan) == "Plan(mosaiks_rcf, 1 item, pooled, input_prep=tile)"
    assert "80 x 80 px, EPSG:32718" in shown(plan)
    facts = json.loads(json.dumps(plan.to_dict()))
    (item,) = facts["items"]
    assert (facts["model_id"], item["days"]) == ("mosaiks_rcf", ["2020-01-01", "2021-01-01"])
    assert item["imagery"][0]["shape_px"] == [80, 80] and len(item["imagery"][0]["bands"]) == 12
    assert facts["fingerprint"] == plan.fingerprint()


def test_a_plan_for_a_model_of_places_alone_can_be_shown():
    plan = plan_embedding("geoclip_location", PLACE)
    assert "geoclip_location" in shown(plan)
    assert plan.to_dict()["items"][0]["imagery"] == []


def test_cards_of_models_are_short():
    assert repr(get_card("galileo_1_0_nano")).startswith(
        "ModelCard(galileo_1_0_nano, foundation model, 1.0 M parameters"
    )
    for card in CARDS:
        assert len(repr(card)) < 300
        assert card.id in shown(card)


def test_a_run_is_shown_also_when_it_is_empty_or_gone(tmp_path):
    folder = tmp_path / "a <b> run"
    places = [(-72.5 + 0.01 * i, -38.8) for i in range(3)]
    export_embeddings(
        "mosaiks_rcf", places, folder, temporal=YEAR, backend=FieldProvider(), buffer_m=100, progress=False
    )
    run = open_run(folder)
    assert repr(run) == f"Run({str(folder)!r}, 3 rows, mosaiks_rcf)"
    text = shown(run)
    assert str(folder) in text and "pooled, 1,024 dimensions" in text
    shutil.rmtree(folder / "mosaiks_rcf" / "units")
    assert "nothing finished" in shown(open_run(folder))
    shutil.rmtree(folder)
    assert repr(run) and shown(run)  # its models are remembered


def test_what_cannot_be_shown_is_shown_as_a_line():
    class Broken:
        def __repr__(self) -> str:
            raise ValueError("<b>")

    def fails(one: object) -> str:
        raise OSError("gone")

    assert "Broken object" in "".join(Page(safely(Broken(), fails)).texts)


def test_the_picture_of_a_grid_needs_no_matplotlib(grid, tmp_path):
    path = grid.save(tmp_path / "grid.npz")
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        f"from rs_embed import Embedding; html = Embedding.load({str(path)!r})._repr_html_()\n"
        "assert 'mosaiks_rcf' in html and '<img' in html and '<pre' not in html, html"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_pictures_are_sound_pngs_and_profiles_reach_from_top_to_bottom():
    colours = np.random.default_rng(0).random((5, 7, 4)).astype(np.float32)
    np.testing.assert_allclose(imread(io.BytesIO(png(colours))), colours, atol=1 / 255)
    assert sparkline(np.float32([1, -1]), "two").count("M") == 3  # two bars and zero


@pytest.mark.parametrize(
    ("millions", "text"), [(0, "-"), (0.0553, "55 k"), (1.038, "1.0 M"), (85.61, "85.6 M"), (314, "314 M")]
)
def test_numbers_of_parameters_are_written_as_people_do(millions, text):
    assert parameters_text(millions) == text


@pytest.mark.parametrize(
    ("share", "text"), [(1, "100 %"), (0.999, "> 99 %"), (0.5, "50 %"), (0.001, "< 1 %"), (0, "0 %")]
)
def test_a_share_is_all_or_nothing_only_if_it_is(share, text):
    assert percent(share) == text
