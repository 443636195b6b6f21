"""The public calls given what nobody meant: every answer is a result or an error of ours that says what to do."""

from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rs_embed import (
    BBox,
    Embedding,
    OutputSpec,
    PointBuffer,
    Region,
    SensorSpec,
    TemporalSpec,
    describe_model,
    export_embeddings,
    geobox_for,
    get_embedding,
    get_embeddings,
    inspect_chip,
    list_models,
    open_run,
    plan_embedding,
    read_places,
)
from rs_embed.errors import KnobError, RSEmbedError
from rs_embed.testing import FieldProvider

MODEL, POINT, YEAR = "mosaiks_rcf", PointBuffer(12.5, 47.0, 160), TemporalSpec.year(2021)


class Hostile:
    """Raises whatever is asked of it."""

    def __repr__(self):
        return "Hostile()"


WRONG = [
    *(None, True, 0, -1, 3.7, float("nan"), float("inf"), 10**400, 1j),
    *("", "x", "\0", "\ud800", "../..", "a" * 5000, b"x"),
    *([], [None], [[]], [1, 2, 3], (), (1,), {}, {"a": 1}, {1: 2}, set(), frozenset({1}), range(3)),
    *(object(), object, Hostile(), print, ValueError("x"), iter([1]), (n for n in [1])),
    *(np.float32("nan"), np.array(3), np.zeros(0), np.zeros((2, 2)), np.array(["x"]), np.array([{}], object)),
    *(pd.Series([1]), pd.DataFrame(), pd.DataFrame({"a": [1]}), pd.NaT, date(2021, 1, 1)),
    *(Path("/nonexistent/x"), Path("\0"), BBox(12, 47, 12.001, 47.001), OutputSpec.pooled(), YEAR),
]


def answered(call, *given, **options):
    """Whether the call gave a result; it may also refuse with an error of ours."""
    try:
        call(*given, **options)
    except RSEmbedError as error:
        said = str(error)
    else:
        return True
    assert 0 < len(said) < 8000
    return False


SINGLE = ["model_id", "spatial", "temporal", "output", "backend", "sensor", "modality", "bands", "input_chw", "dates"]
SINGLE += ["buffer_m", "input_prep", "device", "precision", "patch_size", "fetch_workers", "min_valid_fraction"]


@pytest.mark.parametrize("name", SINGLE)
def test_get_embedding_answers_or_refuses(name):
    options = {"model_id": MODEL, "spatial": POINT, "temporal": YEAR, "backend": FieldProvider()}
    assert answered(get_embedding, **options)
    assert not all(answered(get_embedding, **options | {name: wrong}) for wrong in WRONG)


@pytest.mark.parametrize(
    "name", ["model_id", "places", "temporal", "buffer_m", "on_error", "output", "backend", "sensor"]
)
def test_get_embeddings_answers_or_refuses(name):
    options = {
        "model_id": MODEL,
        "places": [(12.5, 47.0)],
        "temporal": YEAR,
        "backend": FieldProvider(),
        "buffer_m": 80,
    }
    assert answered(get_embeddings, **options)
    assert not all(answered(get_embeddings, **options | {name: wrong}) for wrong in WRONG)


@pytest.mark.filterwarnings("ignore::rs_embed.errors.RSEmbedWarning")
def test_other_calls_answer_or_refuse():
    frame = pd.DataFrame({"lon": [12.5], "lat": [47.0], "a": ["b"]})
    for wrong in WRONG:
        for name in ("id", "lon", "lat", "start", "end", "date", "year", "geometry", "crs", "buffer_m", "temporal"):
            answered(read_places, frame, **{"buffer_m": 80} | {name: wrong})
        answered(inspect_chip, MODEL, POINT, YEAR, wrong)
        answered(inspect_chip, MODEL, wrong, YEAR, FieldProvider())
        answered(plan_embedding, MODEL, wrong, wrong, wrong, FieldProvider())
        for call in (describe_model, list_models, open_run, Embedding.load):
            answered(call, wrong)


@pytest.mark.parametrize(
    "name", ["models", "places", "output", "format", "dtype", "unit_rows", "temporal", "buffer_m", "on_error"]
)
def test_an_export_answers_or_refuses(name, tmp_path):
    options = {"models": MODEL, "places": [(12.5, 47.0)], "temporal": YEAR, "buffer_m": 80, "progress": False}
    for number, wrong in enumerate(WRONG):
        answered(export_embeddings, out=tmp_path / str(number), backend=FieldProvider(), **options | {name: wrong})


CORNERS, S2 = [(0, 0), (1, 0), (1, 1)], "COPERNICUS/S2_SR_HARMONIZED"
SPECS = [
    *(lambda wrong, at=at: PointBuffer(*[wrong if i == at else 1 for i in range(3)]) for at in range(3)),
    *(lambda wrong, at=at: BBox(*[wrong if i == at else n for i, n in enumerate((0, 0, 1, 1))]) for at in range(4)),
    *(lambda wrong, name=name: Region(**{"polygon": CORNERS, name: wrong}) for name in ("polygon", "crs", "others")),
    lambda wrong: Region(CORNERS, others=[wrong]),
    lambda wrong: Region([[wrong]]),
    lambda wrong: Region([(0, 0), (1, wrong), (1, 1)]),
    lambda wrong: Region({"type": wrong}),
    lambda wrong: Region({"type": "Feature", "geometry": wrong}),
    lambda wrong: Region({"type": "Polygon", "coordinates": [wrong]}),
    lambda wrong: Region({"type": "MultiPolygon", "coordinates": wrong}),
    lambda wrong: TemporalSpec(wrong, wrong),
    lambda wrong: TemporalSpec.range(wrong, "2021-01-01"),
    TemporalSpec.year,
    OutputSpec,
    OutputSpec.pooled,
    OutputSpec.grid,
    lambda wrong: SensorSpec(wrong, ("B2",)),
    lambda wrong: SensorSpec(S2, wrong),
    *(
        lambda wrong, name=name: SensorSpec(S2, ("B2",), **{name: wrong})
        for name in ("scale_m", "cloudy_pct", "composite", "fill_value", "orbit_pass", "cloud_mask", "instrument_mode")
    ),
    geobox_for,
    lambda wrong: geobox_for(POINT, wrong),
    lambda wrong: geobox_for(BBox(12, 47, 12.001, 47.001, crs=wrong)),
]


@pytest.mark.parametrize("spec", SPECS)
def test_specs_answer_or_refuse(spec):
    assert not all(answered(spec, wrong) for wrong in WRONG)


def test_a_misspelt_keyword_of_a_call_is_met_with_the_right_one():
    for word, meant in {
        "ouput": "output",
        "modelity": "modality",
        "sensors": "sensor",
        "presicion": "precision",
    }.items():
        with pytest.raises(KnobError, match=f"did you mean '{meant}'"):
            get_embedding(MODEL, POINT, YEAR, backend=FieldProvider(), **{word: None})
    with pytest.raises(KnobError, match="on_error is not for this call"):
        get_embedding(MODEL, POINT, YEAR, backend=FieldProvider(), on_error="keep")


def test_an_empty_variable_counts_as_unset_and_a_misspelt_one_is_named_without_its_value(monkeypatch):
    for name in ("RS_EMBED_THOR_CKPT", "RS_EMBED_BATCH", "RS_EMBED_CHIP_CACHE", "RS_EMBED_OFFLINE", "RS_EMBED_NO_SUCH"):
        monkeypatch.setenv(name, " " if name == "RS_EMBED_BATCH" else "")
    assert answered(get_embedding, MODEL, POINT, YEAR, backend=FieldProvider())
    monkeypatch.setenv("RS_EMBED_HUB_TOKN", "s3cr3tCANARY")
    with pytest.raises(KnobError) as caught:
        get_embedding(MODEL, POINT, YEAR, backend=FieldProvider())
    assert "RS_EMBED_HUB_TOKN" in str(caught.value) and "s3cr3t" not in str(caught.value)


def test_the_lines_of_an_error_are_cut_where_nobody_reads_on():
    error = RSEmbedError("a" * 10_000_000, fix="b" * 10_000_000, found=["c" * 10_000_000])
    assert len(str(error)) < 8000 and "10,000,000 characters" in str(error)
