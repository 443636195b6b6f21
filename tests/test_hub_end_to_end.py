"""A first call downloads from a hub, a second contacts nobody: the whole library against a loopback server."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import warm
from hub_server import Fault, HubServer

pytestmark = pytest.mark.slow

REPO, FILE = "FM4CS/THOR-1.0-tiny", "thor_v1_vit_tiny.pt"
CODE = """
import json
import sys
import warnings
warnings.simplefilter("error")
from rs_embed import get_embedding
embedding = get_embedding("thor_1_0_tiny", backend="sample", input_prep="crop")
print(json.dumps({"weights": embedding.meta.weights, "note": embedding.meta.weights_note,
                  "first": float(embedding.data[0]), "fingerprint": embedding.meta.fingerprint}))
print("client" if "huggingface_hub.file_download" in sys.modules else "no client", file=sys.stderr)
"""


def call(hub: HubServer, cache: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """One process of a user who has set nothing but the hub and the cache."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "RS_EMBED_"))}
    variables = {"HF_ENDPOINT": hub.endpoint, "HF_HUB_DISABLE_XET": "1", "RS_EMBED_CACHE_DIR": str(cache)}
    return warm.run(CODE, env={**clean, **variables, **environment})


@pytest.fixture
def hub(thor_tiny_checkpoint: Path):
    with HubServer({REPO: {"main": {FILE: thor_tiny_checkpoint.read_bytes()}}}) as server:
        yield server


def test_the_first_call_downloads_once_and_the_second_asks_nobody(hub, tmp_path, thor_tiny_checkpoint):
    first = call(hub, tmp_path)
    assert first.returncode == 0, first.stderr
    answer = json.loads(first.stdout)
    assert answer["weights"].startswith(f"hub:{REPO}@")
    assert answer["note"] == "beside the encoder, not used: decoder_embed (1)"
    asked = len(hub.requests)
    assert asked > 0
    second = call(hub, tmp_path, RS_EMBED_OFFLINE="1")
    assert json.loads(second.stdout) == answer, second.stderr
    assert len(hub.requests) == asked
    assert second.stderr.splitlines()[-1] == "no client"  # its import takes as long as loading the weights
    by_file = call(hub, tmp_path, RS_EMBED_THOR_CKPT=str(thor_tiny_checkpoint))
    assert json.loads(by_file.stdout)["first"] == answer["first"]


def test_a_hub_that_stumbles_is_asked_again(hub, tmp_path):
    hub.faults.append(Fault("status", status=503, times=1))
    result = call(hub, tmp_path)
    assert result.returncode == 0, result.stderr


def test_no_network_and_no_cache_is_one_typed_error_with_the_fix(hub, tmp_path):
    result = call(hub, tmp_path, RS_EMBED_OFFLINE="1")
    assert "WeightsUnreachable" in result.stderr
    assert REPO in result.stderr
    assert "RS_EMBED_<MODEL>_CKPT" in result.stderr
    assert hub.requests == []
