"""Models and backends of other packages work by name, and a broken package breaks nothing but itself."""

import ast
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command_line import invoke
from echo import CARD as ECHO
from echo import EchoEmbedder
from pages import ROOT
from plugins import TINY_PATCHES, install, make

import rs_embed
from rs_embed import (
    OutputSpec,
    PointBuffer,
    TemporalSpec,
    describe_model,
    export_embeddings,
    get_embedding,
    list_models,
    open_run,
    retry_export,
)
from rs_embed.core.plugins import MODELS, PROVIDERS, plugins
from rs_embed.embedders import catalog
from rs_embed.errors import KnobError, NotConfigured, PluginWarning, SpecError, UnknownModelError
from rs_embed.testing import FieldProvider

PLACE = PointBuffer(lon=7, lat=51, buffer_m=640)
YEAR = TemporalSpec.year(2022)
RANDOM = {"pretrained": False}


@pytest.fixture
def tiny(tmp_path, monkeypatch) -> Path:
    """The package of the page on extending, installed."""
    site = install(TINY_PATCHES, tmp_path / "site")
    monkeypatch.syspath_prepend(site)
    return site


@pytest.fixture
def registry(monkeypatch) -> None:
    """What a test registers is gone after it."""
    monkeypatch.setattr(catalog, "_REGISTERED", {})


def installed(monkeypatch, folder: Path, module: str, **entry_points: str) -> None:
    package = make(folder / "package", "others_models", module, **entry_points)
    monkeypatch.syspath_prepend(install(package, folder / "others"))
    monkeypatch.delitem(sys.modules, "others_models", raising=False)


def test_the_package_of_the_page_uses_public_names_only():
    modules = {
        name
        for path in TINY_PATCHES.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [])
        if name.startswith("rs_embed")
    }
    assert len(modules) > 5
    assert not [name for name in modules if "._" in name]


def test_the_page_shows_the_code_of_the_package():
    page = (ROOT / "docs/extending.md").read_text("utf-8")
    shown = []
    for path in TINY_PATCHES.rglob("*.py"):
        code = path.read_text("utf-8")
        shown += [ast.get_source_segment(code, node) for node in ast.parse(code).body if isinstance(node, ast.ClassDef)]
    assert len(shown) == 4
    assert not [code for code in shown if code not in page]


def test_a_model_and_a_backend_of_a_package_work_by_name(tiny):
    assert list_models("tiny*") == ["tiny_patches"]
    assert describe_model("tiny")["knobs"][-1]["variable"] == "RS_EMBED_TINY_PATCHES_IMG"
    vector = get_embedding("tiny", PLACE, YEAR, backend="stripes", **RANDOM)
    grid = get_embedding("tiny_patches_v1", PLACE, YEAR, OutputSpec.grid(), "stripes", **RANDOM)
    assert grid.data.shape == (16, 16, 16)
    np.testing.assert_allclose(vector.data, grid.data.mean(axis=(1, 2)), atol=1e-5)
    assert np.ptp(grid.data, axis=1).max() < 1e-5 < np.ptp(grid.data, axis=2).max(), "stripes run from north to south"
    assert vector.meta["inputs"][0].provider == "stripes"


@pytest.mark.slow
def test_its_variables_are_known_before_the_package_was_used(tiny):
    code = "import rs_embed; from rs_embed.core.settings import LibrarySettings; LibrarySettings.read()"
    environment = {"PYTHONPATH": str(tiny), "RS_EMBED_TINY_PATCHES_IMG": "32"}
    answer = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    del environment["PYTHONPATH"]
    answer = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert "RS_EMBED_TINY_PATCHES_IMG in the environment" in answer.stderr


def test_its_knobs_are_read_from_keyword_and_variable(tiny, monkeypatch):
    monkeypatch.setenv("RS_EMBED_TINY_PATCHES_IMG", "32")
    assert get_embedding("tiny", PLACE, YEAR, backend="stripes", **RANDOM).meta.image_size == 32
    with pytest.raises(KnobError, match="img"):
        get_embedding("tiny", PLACE, YEAR, backend="stripes", img=7, **RANDOM)


def test_it_is_exported_and_retried_by_name(tiny, tmp_path):
    places = [PointBuffer(lon=7 + i / 50, lat=51, buffer_m=320) for i in range(3)]
    run = tmp_path / "run"
    report = export_embeddings("tiny", places, run, temporal=YEAR, backend="stripes", progress=False, **RANDOM)
    assert (report.ok, report.failed) == (3, 0)
    before = open_run(run).matrix()
    for path in run.glob("tiny_patches/*/u*"):
        path.unlink()
    assert retry_export(run, progress=False).ok == 3
    np.testing.assert_array_equal(open_run(run).matrix(), before)


def test_the_command_line_lists_and_runs_it(tiny, tmp_path):
    facts = json.loads(invoke("models", "tiny*", "--json").stdout)
    assert [one["title"] for one in facts] == ["Tiny Patches"]
    words = ("--backend", "stripes", "--year", "2022", "--set", "pretrained=0")
    one = invoke("embed", "tiny", "--lon", "7", "--lat", "51", "--buffer", "320", *words, "--json")
    assert json.loads(one.stdout)["model_id"] == "tiny_patches"
    pd.DataFrame({"lon": [7.0, 7.1], "lat": 51.0}).to_csv(tmp_path / "plots.csv")
    many = invoke("export", "tiny", tmp_path / "plots.csv", tmp_path / "run", "--buffer", "320", *words)
    assert many.exit_code == 0, many.stderr
    assert open_run(tmp_path / "run").matrix().shape == (2, 16)


@pytest.mark.slow
def test_listing_what_packages_bring_loads_no_torch(tiny):
    code = (
        "import sys, rs_embed; assert 'tiny_patches' in rs_embed.list_models(); rs_embed.describe_model('tiny'); "
        "sys.exit('torch was imported' if 'torch' in sys.modules else 0)"
    )
    answer = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(tiny)}, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr


@pytest.mark.parametrize(
    ("module", "entry", "says"),
    [
        ("raise RuntimeError('no licence')", "CARD", "RuntimeError: no licence"),
        ("", "CARD", "AttributeError"),
        ("CARD = 'thor'", "CARD", "expected cards, got 'thor'"),
        ("from echo import CARD; CARD = [CARD, 3]", "CARD", "expected cards, got 3"),
    ],
)
def test_a_package_whose_models_do_not_load_is_named_once_and_left_out(monkeypatch, tmp_path, module, entry, says):
    before = list_models()
    installed(monkeypatch, tmp_path, module, models=f'mine = "others_models:{entry}"')
    with pytest.warns(PluginWarning, match=r"others_models 1\.0: the models of 'mine' are ignored") as caught:
        assert list_models() == before
    assert says in str(caught[0].message)
    assert len(caught) == 1
    assert list_models() == before
    with pytest.raises(UnknownModelError):
        describe_model("mine")


def test_a_package_that_takes_the_name_of_a_model_is_refused_by_name(monkeypatch, tmp_path):
    theirs = "replace(CARD, id='x', aliases=('thor',), model_key='x')"
    module = f"from dataclasses import replace; from echo import CARD; CARDS = [CARD, {theirs}]"
    installed(monkeypatch, tmp_path, module, models='mine = "others_models:CARDS"')
    with pytest.warns(PluginWarning, match="others_models 1.0: the model 'x' is ignored because"):
        assert "echo" in list_models()
    assert "x" not in list_models()
    assert describe_model("thor")["id"].startswith("thor_1_0")


def test_a_model_of_this_package_asks_nothing_of_others(monkeypatch, tmp_path):
    installed(monkeypatch, tmp_path, "raise SystemError", models='mine = "others_models:CARD"')
    assert describe_model("thor")["kind"] == "foundation model"


@pytest.mark.parametrize(
    ("module", "says"),
    [
        ("raise RuntimeError('no licence')", "RuntimeError: no licence"),
        ("def Mine(): raise ValueError('no key')", "ValueError: no key"),
        ("def Mine(): return 3", "got 3"),
    ],
)
def test_a_backend_that_cannot_be_made_names_its_package(monkeypatch, tmp_path, module, says):
    installed(monkeypatch, tmp_path, module, providers='mine = "others_models:Mine"')
    with pytest.raises(NotConfigured, match="backend 'mine'") as caught:
        get_embedding("mosaiks_rcf", PLACE, YEAR, backend="mine")
    assert says in str(caught.value)
    assert "others_models 1.0" in caught.value.fix


@pytest.mark.slow
def test_a_backend_that_takes_the_name_of_another_is_refused_by_name(monkeypatch, tmp_path):
    installed(monkeypatch, tmp_path, "Mine = None", providers='sample = "others_models:Mine"')
    with pytest.warns(PluginWarning, match="others_models 1.0: the backend 'sample' is ignored"):
        found = get_embedding("mosaiks_rcf", backend="sample")
    assert found.meta.inputs[0].provider == "sample"


def test_a_misspelt_backend_of_a_package_is_met_with_the_right_one(tiny):
    with pytest.raises(SpecError, match="did you mean 'stripes'"):
        get_embedding("tiny", PLACE, YEAR, backend="stripe", **RANDOM)


def test_an_entry_point_is_found_once_and_with_its_package(tiny):
    (model,), (provider,) = plugins(MODELS), plugins(PROVIDERS)
    assert (model.name, provider.name, model.package) == ("tiny_patches", "stripes", "tiny-patches 0.3.0")


def test_a_registered_model_is_called_by_name_and_its_adapter_may_be_a_class(registry):
    card = replace(ECHO, id="mine", model_key="mine", adapter=EchoEmbedder, aliases=("my own",), input_prep="tile")
    rs_embed.register_model(card)
    assert list_models("m*")[-1] == "mine"
    ground = FieldProvider()
    by_name = get_embedding("my own", PLACE, YEAR, backend=ground)
    np.testing.assert_array_equal(by_name.data, get_embedding(card, PLACE, YEAR, backend=ground).data)


def test_a_name_is_registered_once_unless_it_is_to_be_replaced(registry):
    first = replace(ECHO, id="mine", model_key="mine")
    rs_embed.register_model(first)
    rs_embed.register_model(first)
    assert list_models("mine") == ["mine"]
    with pytest.raises(SpecError, match="'mine', which is taken") as caught:
        rs_embed.register_model(replace(first, revision=2))
    assert "replace=True" in caught.value.fix
    rs_embed.register_model(replace(first, revision=2), replace=True)
    assert describe_model("mine")["revision"] == 2


@pytest.mark.parametrize("name", ["thor", "thor_1_0_base", "terramind_v1_base"])
def test_no_name_of_the_catalog_can_be_taken(registry, name):
    for names in ({"id": name}, {"aliases": (name,)}, {"model_key": name}):
        with pytest.raises(SpecError, match=f"'{name}', which is taken"):
            rs_embed.register_model(replace(ECHO, **names), replace=True)
    with pytest.raises(SpecError, match="Expected a ModelCard"):
        rs_embed.register_model(name)
