"""`compile=True`, in processes of their own: the suite's checks of shapes are not to be compiled."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rs_embed import get_embedding
from rs_embed.errors import KnobError

pytestmark = pytest.mark.slow

CODE = """
import json, sys, warnings
import numpy as np
from rs_embed import get_embedding
from rs_embed.errors import CompileError

rng = np.random.default_rng(0)
pixels = rng.integers(200, 4000, (10, 32, 32)).astype(np.float32)
call = {"input_chw": pixels, "pretrained": False, "img": 32, "device": "cpu"}
warnings.simplefilter("ignore")
plain = get_embedding("thor_1_0_tiny", **call)
try:
    fast = get_embedding("thor_1_0_tiny", **call, compile=True)
    print(json.dumps({
        "apart": float(np.abs(fast.data - plain.data).max()),
        "told": [plain.meta.knobs["compile"], fast.meta.knobs["compile"], fast.meta.kernels],
        "same_fingerprint": plain.meta.fingerprint == fast.meta.fingerprint,
        "compiled": "torch._inductor" in sys.modules,
    }))
except CompileError as error:
    print(json.dumps({"error": str(error)}))
"""


def run(folder: Path, **variables: str) -> dict:
    environment = (
        os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(folder), "TORCHINDUCTOR_COMPILE_THREADS": "1"} | variables
    )
    done = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_compiled_network_gives_the_same_numbers_and_metadata_tell_of_it(tmp_path):
    found = run(tmp_path)
    assert found.pop("apart") < 2e-5
    assert found == {"told": [False, True, "torch"], "same_fingerprint": True, "compiled": True}
    assert list(tmp_path.rglob("*.so"))  # something was compiled


def test_where_torch_compile_does_not_work_the_error_says_what_helps(tmp_path):
    message = run(tmp_path, CXX="/no/such/compiler")["error"]
    assert message.startswith("torch.compile could not compile the network for cpu.")
    assert "leave compile out" in message


def test_a_model_without_blocks_has_no_such_knob():
    with pytest.raises(KnobError, match="'compile'"):
        get_embedding("mosaiks_rcf", backend="sample", compile=True)
