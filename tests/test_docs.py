"""The pages say what is true of the code: their tables are current, their examples run, their links resolve."""

import importlib
import json
import re
import shlex
import subprocess
import sys
import warnings
from importlib.resources import files
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import pytest
import rasterio
from pages import ROOT, Block, blocks_of, run_python
from typer.testing import CliRunner

from rs_embed import describe_model, list_models
from rs_embed.cli.main import app
from rs_embed.core.settings import LibrarySettings, RaySettings
from rs_embed.embedders import catalog
from rs_embed.errors import RSEmbedWarning
from rs_embed.exports.results.map_cog import HEADER_TAG
from rs_embed.formats.geotiff import VALID_TAG
from rs_embed.formats.parts import CHECKSUM_TAG, META_TAG
from rs_embed.providers.earthengine.settings import EarthEngineSettings
from rs_embed.providers.published.settings import PublishedSettings
from rs_embed.providers.stac.settings import StacSettings

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("src/**/*.md")])
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
SAMPLE = str(files("rs_embed") / "data/sample/s2_l2a_12band_10m.tif")


@pytest.fixture
def desk(tmp_path, monkeypatch) -> Path:
    """A folder with a raster of one's own, in an environment where no model needs a download."""
    with rasterio.open(SAMPLE) as sample, rasterio.open(tmp_path / "scene.tif", "w", **sample.profile) as scene:
        scene.write(sample.read() + 1000)  # as since processing baseline 04.00
        scene.descriptions = sample.descriptions
    monkeypatch.setattr(catalog, "_REGISTERED", {})  # what a page registers is gone after it
    for family in ("THOR", "TERRAMIND"):
        monkeypatch.setenv(f"RS_EMBED_{family}_PRETRAINED", "0")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def docs_tables(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    return importlib.import_module("docs_tables")


def is_for_here(block: Block) -> bool:
    """Whether the environment has, or lacks, what the block is about."""
    installed = find_spec("terratorch") is not None
    return {"terratorch": installed, "terratorch-missing": not installed}.get(block.how, True)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_python_block_of_a_page_runs_and_fails_as_it_says(name, desk):
    names: dict[str, object] = {}
    blocks = blocks_of(ROOT / name)
    for block, following in pairwise([*blocks, Block("", "", "", 0)]):
        if block.language != "python" or block.how == "no-run" or not is_for_here(block):
            continue
        said = run_python(block, name, names)
        if said:
            assert following.language == "text", f"{name}:{block.line}: the message must follow"
            assert said == following.text.rstrip("\n")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_command_of_a_page_runs(name, desk):
    for block in blocks_of(ROOT / name):
        if block.language != "bash" or block.how == "no-run":
            continue
        for line in block.text.splitlines():
            program, *arguments = shlex.split(line, comments=True) or [""]
            assert program == "rs-embed", f"{name}:{block.line}: only rs-embed is run; mark the block no-run"
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RSEmbedWarning)
                answer = CliRunner().invoke(app, arguments)
            assert answer.exit_code == 0, f"{line}\n{answer.output}"


@pytest.mark.parametrize("name", NAMES)
def test_every_relative_link_resolves(name):
    page = ROOT / name
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith(("http:", "https:", "mailto:")):
            continue
        path, _, heading = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), f"{name} links to {target}"
        assert not heading or heading in headings_of(found), f"{name} links to {target}"


def test_every_path_that_third_party_names_exists():
    named = re.findall(r"`((?:src|tests|examples)/[^`]+)`", (ROOT / "THIRD_PARTY.md").read_text("utf-8"))
    assert len(named) > 20
    assert not [path for path in named if not any(ROOT.glob(path.removesuffix("/")))]


def headings_of(page: Path) -> set[str]:
    """Anchors as code hosts make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", NAMES)
def test_every_variable_that_a_page_names_exists(name):
    known = {knob["variable"] for model_id in list_models() for knob in describe_model(model_id)["knobs"]}
    families = (LibrarySettings, EarthEngineSettings, StacSettings, RaySettings, PublishedSettings)
    known |= {META_TAG, VALID_TAG, CHECKSUM_TAG, HEADER_TAG}
    known |= {*(variable for family in families for variable in family.variables())}
    named = set(re.findall(r"RS_EMBED_\w*[A-Z0-9]\b", (ROOT / name).read_text(encoding="utf-8")))
    assert named <= known


def test_notebooks_are_kept_small_and_as_a_clean_kernel_left_them():
    for path in ROOT.glob("notebooks/**/*.ipynb"):
        text = path.read_text(encoding="utf-8")
        runs = [cell["execution_count"] for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
        assert runs == list(range(1, len(runs) + 1))
        assert len(text) < 500_000
        assert not re.search(r"/(?:home|root|tmp|Users|site-packages)/", text), "a path of one machine"


@pytest.mark.slow
def test_the_generated_tables_are_current_and_torch_is_not_needed_for_them():
    code = (
        "import sys; sys.path.insert(0, 'scripts'); import docs_tables; "
        "code = docs_tables.main(['--check']); sys.exit('torch was imported' if 'torch' in sys.modules else code)"
    )
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr


def test_a_stale_page_and_a_card_without_a_page_are_found_and_a_stale_page_is_mended(
    docs_tables, tmp_path, monkeypatch
):
    for name in docs_tables.pages():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text((ROOT / name).read_text("utf-8"), "utf-8")
    assert docs_tables.problems(tmp_path, write=False) == []
    stale = tmp_path / "README.md"
    stale.write_text(stale.read_text("utf-8").replace("| 768 |", "| 769 |"), "utf-8")
    assert any("README.md is not what the code says" in line for line in docs_tables.problems(tmp_path, write=False))
    assert docs_tables.problems(tmp_path, write=True) == []
    assert stale.read_text("utf-8") == (ROOT / "README.md").read_text("utf-8")
    without = {page: ids for page, ids in docs_tables.MODEL_PAGES.items() if "mosaiks_rcf" not in ids}
    monkeypatch.setattr(docs_tables, "MODEL_PAGES", without)
    (tmp_path / "docs/errors.md").unlink()
    found = docs_tables.problems(tmp_path, write=False)
    assert found[0].startswith("mosaiks_rcf has no page")
    assert "docs/errors.md does not exist" in found
