"""What was written for the THOR authors' extension of TerraTorch runs with the folder of its name beside it."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples" / "terratorch"
SCRIPT = """
import warnings
warnings.simplefilter("ignore")
import thor_terratorch_ext  # noqa: F401
import torch
from terratorch import BACKBONE_REGISTRY
print(sorted(b for b in list(BACKBONE_REGISTRY) if "thor" in b and "/" not in b))
optical = ["BLUE", "GREEN", "RED", "RED_EDGE_1", "RED_EDGE_2", "RED_EDGE_3", "NIR_BROAD", "NIR_NARROW"]
document = dict(model_bands=["BLUE", "GREEN", "RED", "VV", "VH"],
                input_params=dict(ground_covers=[960], flexivit_patch_size_seqs=[8]))
config = dict(merge_method="concat", ground_cover=960, patch_sizes=8, out_indices=[-1],
              model_bands=[*optical, "SWIR_1", "SWIR_2", "VV", "VH"])
for options in (document, config):
    model = BACKBONE_REGISTRY.build("thor_v1_tiny", pretrained=False, **options)
    image = torch.zeros(1, len(options["model_bands"]), 96, 96)
    outputs = model(image)
    print(len(outputs), list(outputs[-1].shape))
"""


def test_the_folder_of_the_extension_s_name_is_one_line():
    lines = (EXAMPLES / "thor_terratorch_ext" / "__init__.py").read_text().splitlines()
    assert [line for line in lines if line and not line.startswith('"""')] == [
        "import rs_embed.terratorch  # noqa: F401"
    ]


@pytest.mark.skipif(find_spec("terratorch") is None, reason="terratorch is not installed here: `make parity`")
def test_the_document_s_script_and_the_options_of_its_config_run():
    """Source of the options: FM4CS/thor_terratorch_ext, README.md and config/sen1floods11_thor_multimodal.yaml."""
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=1800, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    names, document, config = done.stdout.splitlines()[-3:]
    assert all(f"thor_v1_{size}" in names for size in ("tiny", "small", "base", "large"))
    assert document == "12 [1, 288, 192]"  # two groups of 12 x 12 patches
    assert config == "1 [1, 576, 12, 12]"  # three groups, side by side
