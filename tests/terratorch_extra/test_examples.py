"""The configs of examples/terratorch train and test, on made squares laid out as the two data sets are."""

import json
import os
import shutil
import subprocess
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.skipif(
    find_spec("terratorch") is None, reason="terratorch is not installed here: `make parity` runs this with it"
)
EXAMPLES = Path(__file__).parents[2] / "examples" / "terratorch"
SQUARE_PX, CROP_PX = 96, 64
SMALLER = {
    "thor_v1_base": "thor_v1_tiny",
    "anysat_base": "anysat_tiny",
    "terramind_v1_base": "terramind_v1_tiny",
    "terramind_v1_base_tim": "terramind_v1_tiny_tim",
}
ASKS_WHEN = ("attention_heads.Q", "attention_heads.fc1_k.weight")
"""Of AnySat, over frames: with one frame there is nothing to choose."""


def write_squares(root: Path, member: str, layers: dict[str, np.ndarray]) -> None:
    """Write each layer to its place under the root, where `*` stands for the member."""
    import rasterio

    for place, values in layers.items():
        path = root / place.replace("*", member)
        path.parent.mkdir(parents=True, exist_ok=True)
        shape = {"count": len(values), "height": SQUARE_PX, "width": SQUARE_PX}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            with rasterio.open(path, "w", "GTiff", dtype=str(values.dtype), **shape) as file:
                file.write(values)


def made_squares(root: Path) -> None:
    """Water that is dark in both sensors, and scars that are dark in reflectance: something to learn."""
    generator = np.random.default_rng(0)
    floods, scars = root / "sen1floods11_v1.1", root / "hls_burn_scars"
    for folder in (floods, scars):
        (folder / "splits").mkdir(parents=True)
    for part, count in {"train": 4, "valid": 2, "test": 2}.items():
        members = [f"{part}_{i}" for i in range(count)]
        (floods / "splits" / f"flood_{part}_data.txt").write_text("\n".join(members) + "\n")
        (scars / "splits" / f"{part.replace('valid', 'val')}.txt").write_text("\n".join(members) + "\n")
        for name in members:
            dark = (np.add.outer(np.arange(SQUARE_PX), generator.normal(size=SQUARE_PX)) > SQUARE_PX / 2).astype(int)
            s2 = 2000 - 1200 * dark + generator.normal(0, 200, (13, SQUARE_PX, SQUARE_PX))
            s1 = -10 - 8 * dark + generator.normal(0, 1, (2, SQUARE_PX, SQUARE_PX))
            label = np.where(generator.random((1, SQUARE_PX, SQUARE_PX)) < 0.02, -1, dark).astype("int16")
            layers = {
                "data/S2L1CHand/*_S2Hand.tif": s2.astype("int16"),
                "data/S1GRDHand/*_S1Hand.tif": s1.astype("float32"),
                "data/LabelHand/*_LabelHand.tif": label,
            }
            write_squares(floods, name, layers)
            write_squares(scars, name, {"data/*_merged.tif": s2[:6].astype("float32") / 1e4, "data/*.mask.tif": label})


def shrunk(path: Path) -> dict:
    """The config with a small network, small crops, no weights to fetch and two steps; all else as published."""
    import yaml

    config = yaml.safe_load(path.read_text())
    config["trainer"] |= {"accelerator": "cpu", "precision": "32-true", "max_epochs": 1, "log_every_n_steps": 1}
    config["trainer"] |= {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    data, task = config["data"]["init_args"], config["model"]["init_args"]
    data |= {"batch_size": 2, "num_workers": 0}
    data["train_transform"][0]["init_args"] = {"height": CROP_PX, "width": CROP_PX}
    tiles = task["tiled_inference_parameters"]
    tiles |= {"h_crop": CROP_PX, "w_crop": CROP_PX, "h_stride": 48, "w_stride": 48, "delta": 4}
    args = task["model_args"]
    args |= {"backbone": SMALLER[args["backbone"]], "backbone_pretrained": False}
    if "backbone_input_params" in args:
        args["backbone_input_params"]["ground_covers"] = [CROP_PX * 10]
    return config


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A copy of the examples with data beside them, and a tiny AnySat beside ours."""
    import yaml

    root = tmp_path_factory.mktemp("examples")
    shutil.copytree(EXAMPLES, root, dirs_exist_ok=True)
    made_squares(root)
    for path in root.glob("*.yaml"):
        path.write_text(yaml.safe_dump(shrunk(path)))
    with (root / "rs_embed_backbones" / "__init__.py").open("a") as file:
        file.write(
            "from rs_embed.terratorch.registry import register_card\n"
            "from rs_embed.terratorch import build_anysat\n"
            "from dataclasses import replace\nfrom tiny import TINY_ANYSAT\n"
            "register_card(replace(TINY_ANYSAT, model_key='anysat_tiny'), build_anysat)\n"
        )
    return root


def run(place: Path, *command: str) -> str:
    paths = [str(EXAMPLES.parents[1] / "tests"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, cwd=place, env=environment, timeout=400
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def test_every_config_trains_a_few_steps_and_tests_what_it_saved(place):
    configs = sorted(path.name for path in place.glob("*.yaml"))
    assert len(configs) == 7
    lines = run(place, str(Path(__file__).with_name("run_examples.py")), *configs).splitlines()
    facts = {}
    for line in lines:
        if line.startswith("FACTS "):
            facts |= json.loads(line.removeprefix("FACTS "))
    assert sorted(facts) == configs
    for config, found in facts.items():
        assert found["steps"] == 2 and found["loaded"], config
        assert np.isfinite(found["measured"]["test/loss"]) and 0 <= found["measured"]["test/mIoU"] <= 1, config
        assert found["trained"] > 20
        if "terramind" not in config:  # TerraTorch leaves what only imagines without gradients, and wanting them
            assert {name for name in found["untouched"] if not name.endswith(ASKS_WHEN)} == set(), config


def test_the_module_is_terratorchs_command_line_with_the_backbones(place):
    config = (
        (place / "sen1floods11_thor_s1_s2.yaml").read_text().replace("custom_modules_path: rs_embed_backbones\n", "")
    )
    assert "custom_modules_path" not in config
    (place / "without.yml").write_text(config)
    run(place, "-m", "rs_embed.terratorch", "fit", "--config", "without.yml", "--trainer.max_steps", "1")
