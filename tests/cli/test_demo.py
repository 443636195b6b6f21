"""The demo writes what it says, at the right place, and calls random weights by their name."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from matplotlib.image import imread
from odc.geo.geobox import GeoBox
from rich.console import Console

from rs_embed import Embedding
from rs_embed.api import inspect_chip
from rs_embed.cli.demo import _on_scene, run_demo
from rs_embed.embedding.plot import Panel, save_figure, side_by_side, true_colour
from rs_embed.errors import StorageError

pytestmark = pytest.mark.slow

LABEL = "random weights: shapes only"
THOR, TERRAMIND = "thor_1_0_base_random_weights", "terramind_1_0_base_random_weights"
ANYSAT = "anysat_1_0_base_random_weights"


@dataclass(frozen=True)
class Demo:
    out: Path
    text: str


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """One run on a machine that has no weights and may not ask for any."""
    out = tmp_path_factory.mktemp("demo") / "new" / "folder"
    console = Console(file=io.StringIO(), width=150, markup=False)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("RS_EMBED_OFFLINE", "1")
        environment.setenv("RS_EMBED_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        assert run_demo(out, console) == 0
    return Demo(out, console.file.getvalue())


def test_it_writes_every_file_that_it_names(demo):
    written = {path.name for path in demo.out.iterdir()}
    kinds = ("pca.png", "grid.tif", "pooled.npz")
    assert written == {
        "overview.png",
        "sample_rgb.png",
        *(f"{model}_{kind}" for model in ("mosaiks_rcf", THOR, TERRAMIND, ANYSAT) for kind in kinds),
    }
    assert all(str(demo.out / name) in demo.text for name in written)


@pytest.mark.parametrize(("stem", "cell_m"), [("mosaiks_rcf", 80), (THOR, 160), (TERRAMIND, 160)])
def test_the_maps_start_at_the_corner_of_the_scene(demo, stem, cell_m):
    with rasterio.open(demo.out / f"{stem}_grid.tif") as file:
        assert (file.bounds.left, file.bounds.top) == (344400, 5294400)
        assert file.crs.to_epsg() == 32633
        assert file.res == (cell_m, cell_m)


def test_the_heavy_model_takes_a_square_in_the_middle_and_the_demo_says_so(demo):
    with rasterio.open(demo.out / f"{ANYSAT}_grid.tif") as file:
        assert file.shape == (16, 16)
        assert file.res == (40, 40)
        middle = (file.bounds.left + file.bounds.right) / 2, (file.bounds.bottom + file.bounds.top) / 2
    assert middle == pytest.approx((345600, 5292600), abs=50)
    assert "square of 640 m in the middle" in demo.text
    meta = Embedding.load(demo.out / f"{ANYSAT}_pooled.npz").meta
    assert meta.pooling == "tile_token"
    assert meta.inputs[0].frame_times == ("2017-06-13T10:10:31+00:00",)


def test_a_map_of_a_part_lies_on_a_pale_scene_at_its_place():
    scene = Panel("scene", np.zeros((8, 6, 3), np.float32), GeoBox((8, 6), Affine(10, 0, 100, 0, -10, 900), 32633))
    part = Panel("part", np.ones((2, 1, 3), np.float32), GeoBox((2, 1), Affine(20, 0, 120, 0, -20, 870), 32633))
    drawn = _on_scene(part, scene)
    wanted = np.full((8, 6), 0.7, np.float32)
    wanted[3:7, 2:4] = 1
    np.testing.assert_allclose(drawn.image, np.repeat(wanted[..., None], 3, axis=2))
    assert drawn.geobox == scene.geobox
    assert _on_scene(scene, scene) is scene
    unplaced = Panel("array", part.image, None)
    assert _on_scene(unplaced, scene) is unplaced


@pytest.mark.parametrize("stem", [THOR, TERRAMIND, ANYSAT])
def test_random_weights_are_called_so_in_table_files_and_metadata(demo, stem):
    model_id = stem.removesuffix("_random_weights")
    rows = [line for line in demo.text.splitlines() if line.startswith(f" {model_id} ")]
    assert len(rows) == 2
    assert all(LABEL in row for row in rows)
    for name in (f"{stem}_grid.tif", f"{stem}_pooled.npz"):
        assert Embedding.load(demo.out / name).meta.weights_note == LABEL


def test_the_baseline_is_not_called_random(demo):
    rows = [line for line in demo.text.splitlines() if line.startswith(" mosaiks_rcf ")]
    assert len(rows) == 2
    assert not any("random" in row for row in rows)
    assert Embedding.load(demo.out / "mosaiks_rcf_pooled.npz").meta.weights_note is None


def test_one_line_a_model_says_why_its_weights_are_missing(demo):
    lines = [line for line in demo.text.splitlines() if "runs with random weights" in line]
    assert [line.split()[0] for line in lines] == ["thor_1_0_base", "terramind_1_0_base", "anysat_1_0_base"]
    assert all("not in the cache" in line for line in lines)


@pytest.mark.parametrize(
    ("stem", "prep", "gsd_m"), [(THOR, "resize", 12.5), (TERRAMIND, "tile", 10.0), (ANYSAT, "tile", 10.0)]
)
def test_the_vector_takes_the_default_path_and_the_map_keeps_native_pixels(demo, stem, prep, gsd_m):
    pooled, grid = (Embedding.load(demo.out / f"{stem}_{kind}") for kind in ("pooled.npz", "grid.tif"))
    assert (pooled.meta.input_prep, grid.meta.input_prep) == (prep, "tile")
    assert (pooled.meta.gsd_m, grid.meta.gsd_m) == (gsd_m, 10.0)


def test_the_overview_is_a_wide_picture(demo):
    height, width, _ = imread(demo.out / "overview.png").shape
    assert width > 1.5 * height > 1000


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "demo").write_text("")
    with pytest.raises(StorageError, match="folder"):
        run_demo(tmp_path / "demo", Console(file=io.StringIO()))


def test_pictures_of_other_imagery_carry_no_credit_of_the_sample(tmp_path):
    chip = inspect_chip("mosaiks_rcf", backend="sample").chips["s2_12"]
    save_figure(side_by_side([true_colour(chip)]), tmp_path / "plain.png")
    credit = "Contains modified Copernicus Sentinel data 2017"
    save_figure(side_by_side([true_colour(chip)], credit), tmp_path / "credited.png")
    assert (tmp_path / "plain.png").read_bytes() != (tmp_path / "credited.png").read_bytes()


@pytest.mark.filterwarnings("ignore::rs_embed.errors.ChoiceWarning")
def test_weights_that_can_be_had_are_used_and_not_called_random(tmp_path, monkeypatch, thor_tiny_checkpoint):
    monkeypatch.setenv("RS_EMBED_OFFLINE", "1")
    monkeypatch.setenv("RS_EMBED_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("RS_EMBED_THOR_MODEL_KEY", "thor_v1_tiny")  # a small file; the demo asks for the base size
    monkeypatch.setenv("RS_EMBED_THOR_CKPT", str(thor_tiny_checkpoint))
    console = Console(file=io.StringIO(), width=150, markup=False)
    assert run_demo(tmp_path / "demo", console) == 0
    embedding = Embedding.load(tmp_path / "demo" / "thor_1_0_tiny_pooled.npz")
    assert embedding.meta.weights.startswith("ckpt:thor_v1_vit_tiny.pt#sha256:")
    assert embedding.meta.weights_note == "beside the encoder, not used: decoder_embed (1)"
    assert embedding.meta.warning is None
    assert "thor_1_0_base runs with random weights" not in console.file.getvalue()
