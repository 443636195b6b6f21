"""A knob that is gone says why, as keyword and as variable."""

import pytest

from rs_embed import get_embedding
from rs_embed.errors import KnobError


@pytest.mark.parametrize("model", ["thor_1_0_tiny", "mosaiks_rcf"])
def test_a_removed_keyword_says_why(model):
    with pytest.raises(KnobError, match="compile") as caught:
        get_embedding(model, backend="sample", compile=True)
    assert "no GPU had shown a gain" in caught.value.fix


def test_a_removed_variable_says_why(monkeypatch):
    monkeypatch.setenv("RS_EMBED_THOR_COMPILE", "1")
    with pytest.raises(KnobError, match="RS_EMBED_THOR_COMPILE") as caught:
        get_embedding("mosaiks_rcf", backend="sample")
    assert "no GPU had shown a gain" in caught.value.fix
