"""The pages on generation and on TerraMind say what is true where TerraTorch is installed."""

from importlib.util import find_spec

import pytest

if find_spec("terratorch") is None:
    pytest.skip("terratorch is not installed here: `make parity` runs this with it", allow_module_level=True)

from pages import ROOT, blocks_of, run_python

PAGE = "docs/generation.md"


def test_every_block_that_needs_terratorch_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    ran = []
    for block in blocks_of(ROOT / PAGE):
        if block.language == "python" and block.how in ("", "terratorch"):
            run_python(block, PAGE, names)
            ran.append(block.how)
    assert ran.count("terratorch") >= 3
    assert {path.name for path in (tmp_path / "maps").iterdir()} == {"LULC.tif", "DEM.tif", "S1GRD.tif"}
    assert (tmp_path / "maps.png").exists() and (tmp_path / "radar_again.tif").exists()


def test_a_map_is_an_input_as_the_page_of_the_model_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = "docs/models/terramind_1_0_base.md"
    (block,) = (one for one in blocks_of(ROOT / page) if (one.language, one.how) == ("python", "terratorch"))
    run_python(block, page, {})
    assert (tmp_path / "LULC.tif").exists()
