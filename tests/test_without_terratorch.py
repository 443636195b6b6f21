"""Without the extra `terratorch`, each entry point says how to get it, before anything is loaded or fetched."""

from importlib.util import find_spec

import numpy as np
import pytest
from typer.testing import CliRunner

from rs_embed import PointBuffer, detokenize, generate, get_embedding, tokenize
from rs_embed.cli.main import app
from rs_embed.errors import MissingDependency
from rs_embed.generation.tokenizing import Tokenized
from rs_embed.testing import FieldProvider

pytestmark = pytest.mark.skipif(find_spec("terratorch") is not None, reason="terratorch is installed here")
PLACE = PointBuffer(lon=12.94, lat=47.77, buffer_m=320)
TOKENS = Tokenized("LULC", np.zeros((2, 2), np.int32), (32, 32), None, "none", None)
FIELD = FieldProvider()


@pytest.mark.parametrize(
    "ask",
    [
        lambda: generate("terramind", PLACE, output_modalities="LULC", backend=FIELD),
        lambda: generate("terramind_1_0_tiny", PLACE, backend=FIELD, pretrained=False),
        lambda: get_embedding("terramind", PLACE, backend=FIELD, tim_modalities=["LULC"]),
        lambda: get_embedding("terramind", PLACE, backend=FIELD, modality="S2L2A+LULC"),
        lambda: tokenize("LULC", np.zeros((1, 32, 32))),
        lambda: tokenize("NDVI", np.zeros((1, 32, 32)), pretrained=False),
        lambda: detokenize(TOKENS),
    ],
)
def test_every_entry_point_names_the_extra(ask):
    with pytest.raises(MissingDependency) as caught:
        ask()
    assert caught.value.fix == "pip install 'eo-rs-embed[terratorch]'"
    assert FIELD.queries == []


def test_the_command_names_the_extra_too(tmp_path):
    out = str(tmp_path / "maps")
    answer = CliRunner().invoke(app, ["generate", "terramind", "--backend", "sample", "--out", out])
    assert answer.exit_code == 1
    assert "eo-rs-embed[terratorch]" in answer.output
    assert not (tmp_path / "maps").exists()


def test_a_model_that_cannot_generate_is_told_as_that_first():
    with pytest.raises(ValueError, match="got terramind_0_1_base"):
        generate("terramind_0_1_base", PLACE, backend=FIELD)
