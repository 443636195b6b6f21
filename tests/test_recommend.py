"""Which models can run on what is at hand is planned, not guessed; what was not measured is called an estimate."""

import json
import re
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import rasterio
from command_line import SCENE, invoke

from rs_embed import LocalRasters, OutputSpec, PointBuffer, TemporalSpec, get_embedding, list_models, recommend_model
from rs_embed.embedders.catalog import get_card
from rs_embed.embedders.costs import INPUTS_PER_S, speed_of
from rs_embed.errors import SpecError
from rs_embed.testing import FieldProvider

PLACE = PointBuffer(lon=12.94, lat=47.77, buffer_m=320)
YEAR = TemporalSpec.year(2022)
SOME = ["mosaiks_rcf", "galileo_1_0_nano", "thor_1_0_tiny", "alphaearth_v1", "geoclip_location", "clay_1_0_base"]


def by_id(found):
    return {one.model_id: one for one in found}


@pytest.fixture(scope="module")
def rgbn(tmp_path_factory) -> Path:
    """Four named bands, of no date."""
    path = tmp_path_factory.mktemp("rasters") / "rgbn.tif"
    with rasterio.open(SCENE) as scene:
        profile = scene.profile | {"count": 4}
        with rasterio.open(path, "w", **profile) as out:
            for number, name in enumerate(("B2", "B3", "B4", "B8"), 1):
                out.write(scene.read([*scene.descriptions].index(name) + 1), number)
                out.set_band_description(number, name)
    return path


@pytest.mark.slow
def test_what_runs_is_what_really_runs():
    found = by_id(recommend_model(PLACE, YEAR, backend="sample", models=SOME))
    for model_id, one in found.items():
        knobs = {} if model_id in ("mosaiks_rcf", "geoclip_location") else {"pretrained": False}
        if one.runs:
            assert get_embedding(model_id, PLACE, YEAR, backend="sample", input_prep="tile", **knobs).data.any()
    assert {model_id for model_id, one in found.items() if not one.runs} == {"alphaearth_v1", "clay_1_0_base"}
    assert found["galileo_1_0_nano"].modality == ("s2", "s1")  # its default, less the elevation that the sample lacks
    assert "sample scene does not have" in found["alphaearth_v1"].reason
    assert "eo-rs-embed[terratorch]" in found["clay_1_0_base"].fix
    assert (found["geoclip_location"].reason, found["geoclip_location"].seconds_per_km2) == ("the location", None)


def test_bands_of_a_raster_decide(rgbn):
    found = by_id(recommend_model(backend=LocalRasters(rgbn, offset=-1000), models=[*SOME, "presto_1_0"]))
    assert found["thor_1_0_tiny"].reason == "s2 (4 of 10 bands)"
    assert not found["alphaearth_v1"].runs
    assert not found["galileo_1_0_nano"].runs and "date" in found["galileo_1_0_nano"].reason
    assert not found["geoclip_location"].runs and "place" in found["geoclip_location"].reason


def test_arrays_and_dates_are_at_hand_too():
    pixels = np.random.default_rng(0).uniform(500, 3000, (10, 32, 32)).astype(np.float32)
    found = by_id(recommend_model(input_chw={"s2": pixels}, dates=["2022-06-01"], models=SOME))
    assert found["thor_1_0_tiny"].runs and found["galileo_1_0_nano"].runs
    assert not found["mosaiks_rcf"].runs  # it has no input of this name
    series = recommend_model(input_chw={"s2": pixels}, models=["galileo_1_0_nano"])
    assert not series[0].runs and "date" in series[0].reason


def test_a_product_of_years_needs_a_year():
    summer = TemporalSpec.range("2022-06-01", "2022-09-01")
    (one,) = recommend_model(PLACE, summer, backend=FieldProvider(), models=["alphaearth_v1"])
    assert not one.runs and "calendar year" in one.reason


def test_costs_of_the_place_and_order():
    found = recommend_model(PLACE, YEAR, backend="sample", models=SOME)
    mosaiks = by_id(found)["mosaiks_rcf"]
    assert mosaiks.download == "bundled" and mosaiks.measured
    area_km2 = mosaiks.seconds / mosaiks.seconds_per_km2
    assert area_km2 == pytest.approx(0.64**2, rel=0.05)
    assert [one.model_id for one in found.running] == [one.model_id for one in found][: len(found.running)]
    loads = [one.download_mb for one in found.running]
    assert loads == sorted(loads)
    grid = recommend_model(PLACE, YEAR, backend="sample", models=SOME, output=OutputSpec.grid("dense"))
    assert not by_id(grid)["thor_1_0_tiny"].runs


def test_weights_that_are_here_are_no_download(tmp_path, monkeypatch):
    card = get_card("galileo_1_0_nano")
    monkeypatch.setenv("RS_EMBED_CACHE_DIR", str(tmp_path))
    (one,) = recommend_model(PLACE, YEAR, backend="sample", models=[card.id])
    assert (one.download, one.download_mb) == ("4.2 MB", pytest.approx(4.189406))
    repository, commit = tmp_path / "models--nasaharvest--galileo", "a" * 40
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text(card.weights.revision or commit)
    file = repository / "snapshots" / (card.weights.revision or commit) / card.weights.file
    file.parent.mkdir(parents=True)
    file.write_bytes(b"weights")
    (one,) = recommend_model(PLACE, YEAR, backend="sample", models=[card.id])
    assert (one.download, one.download_mb) == ("cached", 0)


def test_a_licence_that_must_be_accepted_is_named_and_does_not_hide_the_model():
    models = list_models(licence="conditions", max_mb=10)
    assert models and find_spec("olmoearth_pretrain_minimal") is not None
    for one in recommend_model(PLACE, YEAR, backend="sample", models=models):
        assert one.runs and (one.licence, one.must_accept) == ("conditions", "olmoearth-artifact")


def test_speeds_are_those_of_the_results():
    results = (Path(__file__).parents[1] / "benchmarks/RESULTS.md").read_text()
    for model_id, (per_s, side_px) in INPUTS_PER_S.items():
        row = re.search(rf"\| {model_id}, .* x {side_px} x {side_px}: network inputs per second \| ([\d.]+)", results)
        assert float(row[1]) == per_s
        assert speed_of(get_card(model_id), 0).measured
    estimate = speed_of(get_card("galileo_1_0_base"), 100)
    assert not estimate.measured and estimate.seconds_per_km2 == pytest.approx(2 * 86.5e6 * 100 / 180e9)


def test_the_quality_that_is_quoted_is_measured():
    from rs_embed.embedders.costs import QUALITY

    page = (Path(__file__).parents[1] / "docs/quality.md").read_text()
    for text in QUALITY.values():
        assert all(number in page for number in re.findall(r"0\.\d\d", text))


@pytest.mark.slow
def test_it_prints_and_serialises(rgbn):
    found = recommend_model(PLACE, YEAR, backend="sample", models=SOME)
    text = str(found)
    assert f'device="auto" is {found.device} here' in text
    assert "~ is an estimate" in text and "Cannot run:" in text and "clay_1_0_base: Expected the package" in text
    assert max(map(len, text.split("\n\n", maxsplit=1)[0].splitlines())) <= 80
    assert json.loads(json.dumps(found.to_dict()))[0]["model_id"] == found[0].model_id
    words = ("models", "thor", "--for", rgbn, "--json")
    told = json.loads(invoke(*words).stdout)
    assert {one["model_id"] for one in told} == set(list_models("thor*"))
    assert "4 of 10 bands" in invoke("models", "thor_1_0_tiny", "--for", rgbn).stdout


def test_a_place_that_cannot_be_is_an_error_of_the_call():
    with pytest.raises(SpecError):
        recommend_model(PointBuffer(lon=999, lat=0, buffer_m=10), backend="sample")
