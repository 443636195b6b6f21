"""The demo writes what it says, at the right place, and shows nothing that was not learned or made from imagery."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import rasterio
from matplotlib.image import imread
from rich.console import Console
from shared_data import trained

from rs_embed import Embedding
from rs_embed.api import inspect_chip
from rs_embed.cli.demo import RIVER, run_demo
from rs_embed.embedding.plot import alike, save_figure, side_by_side, true_colour
from rs_embed.errors import SpecError, StorageError

pytestmark = pytest.mark.slow

BASELINE, TRAINED = "mosaiks_rcf", "galileo_1_0_nano"


@dataclass(frozen=True)
class Demo:
    out: Path
    text: str


def shown(folder: Path, **environment: str) -> Demo:
    """One run on a machine that may not ask for weights."""
    console = Console(file=io.StringIO(), width=150, markup=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RS_EMBED_OFFLINE", "1")
        patch.setenv("RS_EMBED_CACHE_DIR", str(folder / "cache"))
        for name, value in environment.items():
            patch.setenv(name, value)
        assert run_demo(folder / "new" / "demo", console) == 0
    return Demo(folder / "new" / "demo", console.file.getvalue())


@pytest.fixture(scope="module")
def without(tmp_path_factory):
    return shown(tmp_path_factory.mktemp("without"))


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    checkpoint = str(trained("galileo_nano/encoder.pt"))
    return shown(tmp_path_factory.mktemp("with"), RS_EMBED_GALILEO_CKPT=checkpoint)


def written(models: tuple[str, ...]) -> set[str]:
    kinds = ("pca.png", "grid.tif", "pooled.npz")
    return {
        "explore.html",
        "overview.png",
        "sample_rgb.png",
        *(f"{model}_{kind}" for model in models for kind in kinds),
    }


def test_without_weights_it_shows_the_baseline_alone_and_says_what_is_missing_and_how_to_get_it(without):
    assert {path.name for path in without.out.iterdir()} == written((BASELINE,))
    assert all(str(without.out / name) in without.text for name in written((BASELINE,)))
    (line,) = [line for line in without.text.splitlines() if "left out" in line]
    assert line.startswith(TRAINED) and "not in the cache" in line and "RS_EMBED_OFFLINE" in line
    assert "random" not in without.text


def test_with_weights_it_shows_the_trained_model_too(demo):
    assert {path.name for path in demo.out.iterdir()} == written((BASELINE, TRAINED))
    assert "left out" not in demo.text and "random" not in demo.text
    for name in ("grid.tif", "pooled.npz"):
        meta = Embedding.load(demo.out / f"{TRAINED}_{name}").meta
        assert meta.weights.startswith("ckpt:encoder.pt#sha256:eab6acac") and meta.warning is None


@pytest.mark.parametrize(("model", "cell_m"), [(BASELINE, 80), (TRAINED, 40)])
def test_the_maps_start_at_the_corner_of_the_scene(demo, model, cell_m):
    with rasterio.open(demo.out / f"{model}_grid.tif") as file:
        assert (file.bounds.left, file.bounds.top) == (344400, 5294400)
        assert file.crs.to_epsg() == 32633
        assert file.res == (cell_m, cell_m)


def test_the_trained_model_finds_the_river_from_one_place_on_it(demo):
    grid = Embedding.load(demo.out / f"{TRAINED}_grid.tif")
    likeness = alike(grid, *RIVER, "the river").image[..., 0]
    rows, cols = np.nonzero(likeness > np.quantile(likeness, 0.985))
    assert len(np.unique(rows)) > 40  # it runs from the middle of the northern edge to the western one
    assert 28 < np.median(cols[rows < 5]) < 34 and np.median(cols[rows > 45]) < 10


def test_a_place_outside_of_the_grid_has_no_likeness(demo):
    with pytest.raises(SpecError, match="outside"):
        alike(Embedding.load(demo.out / f"{BASELINE}_grid.tif"), 13.5, 47.7, "nothing")


def test_the_overview_is_a_wide_picture(demo):
    height, width, _ = imread(demo.out / "overview.png").shape
    assert width > 1.5 * height > 1000


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "demo").write_text("")
    with pytest.raises(StorageError, match="folder"):
        run_demo(tmp_path / "demo", Console(file=io.StringIO()))


def test_pictures_of_other_imagery_carry_no_credit_of_the_sample(tmp_path):
    chip = inspect_chip(BASELINE, backend="sample").chips["s2_12"]
    save_figure(side_by_side([true_colour(chip)]), tmp_path / "plain.png")
    credit = "Contains modified Copernicus Sentinel data 2017"
    save_figure(side_by_side([true_colour(chip)], credit), tmp_path / "credited.png")
    assert (tmp_path / "plain.png").read_bytes() != (tmp_path / "credited.png").read_bytes()
