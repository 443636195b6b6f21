"""Tokens behind any block: what the block gave, several side by side, and the last as if nothing was said."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from tiny import TINY_ANYSAT, card_of

from rs_embed import OutputSpec, PointBuffer, TemporalSpec, get_embedding, plan_embedding
from rs_embed.embedders.card import ModelCard
from rs_embed.errors import KnobError, SpecError
from rs_embed.pipeline.plan import numbers_of
from rs_embed.testing import FieldProvider

JUNE = TemporalSpec.range("2021-06-01", "2021-07-01")
PLACE, YEAR = PointBuffer(lon=12.94, lat=47.77, buffer_m=320), TemporalSpec.year(2021)
FAMILIES: dict[str, tuple[ModelCard, str, int, dict[str, object]]] = {
    "thor": (card_of("thor_1_0_tiny"), "blocks", 4, {"img": 64, "input_prep": "tile"}),
    "terramind": (card_of("terramind_1_0_tiny"), "encoder", 4, {"modality": "S2L2A"}),
    "galileo": (card_of("galileo_1_0_nano"), "blocks", 4, {"modality": "s2", "temporal": JUNE, "window_patches": 8}),
    "anysat": (TINY_ANYSAT, "blocks", 2, {"frames": 2, "pooled": "patch"}),
}
"""Card, name of its blocks, how many there are, and a call of one window."""
every_family = pytest.mark.parametrize("family", FAMILIES)


def asked(family: str, **options: object) -> dict[str, object]:
    card, _, _, call = FAMILIES[family]
    place = {"spatial": PLACE, "temporal": YEAR, "backend": FieldProvider(), "pretrained": False}
    return {"model_id": card, **place, **call, **options}


def states(family: str, **options: object) -> list[torch.Tensor]:
    """What each block gave, `[token, dim]`, caught on its way."""
    _, name, _, _ = FAMILIES[family]
    caught: list[torch.Tensor] = []
    plan = plan_embedding(**asked(family, **options))
    blocks = plan.job.embedder.network.module.get_submodule(name)
    hooks = [block.register_forward_hook(lambda *given: caught.append(given[2][0])) for block in blocks]
    try:
        list(plan.run())
    finally:
        for hook in hooks:
            hook.remove()
    return caught


def patches_of(family: str, state: torch.Tensor, number: int) -> torch.Tensor:
    """The patch tokens that the family reads out of the state behind a block."""
    module = plan_embedding(**asked(family)).job.embedder.network.module
    if family == "terramind" and number == FAMILIES[family][2] - 1:
        return module.encoder_norm(state[None])[0]
    if family == "galileo" and number == FAMILIES[family][2] - 1:
        return module.norm(state)
    return state[1:] if family == "anysat" else state


@every_family
def test_a_layer_is_the_state_behind_its_block(family):
    caught = states(family)
    assert len(caught) == FAMILIES[family][2]
    for number, state in enumerate(caught):
        expected = patches_of(family, state, number).float().mean(dim=0)
        for layer in (number, number - len(caught)):
            found = get_embedding(**asked(family, layers=layer))
            np.testing.assert_allclose(found.data, expected, atol=2e-6)
            assert found.meta["layers"] == [number]
            assert found.meta.knobs["layers"] == [layer]


@every_family
@pytest.mark.parametrize("output", [OutputSpec.grid(), OutputSpec.pooled()], ids=["grid", "pooled"])
def test_several_layers_stand_side_by_side_in_the_order_asked_for(family, output):
    numbers = [*range(FAMILIES[family][2])][::-1]
    each = [get_embedding(**asked(family, layers=one, output=output)).data for one in numbers]
    found = get_embedding(**asked(family, layers=numbers, output=output))
    np.testing.assert_allclose(found.data, np.concatenate(each), atol=2e-6)
    plan = plan_embedding(**asked(family, layers=numbers, output=output))
    assert plan.job.embedder.readout.width(output) == len(found.data)


@every_family
def test_the_last_layer_is_what_there_was_bit_for_bit(family):
    usual = get_embedding(**asked(family, output=OutputSpec.grid()))
    named = get_embedding(**asked(family, layers=-1, output=OutputSpec.grid()))
    np.testing.assert_array_equal(named.data, usual.data)
    assert usual.meta["layers"] == named.meta["layers"] == [FAMILIES[family][2] - 1]


@every_family
@pytest.mark.parametrize("layers", [[99], [-99], [-1, 0, -1], [0, "all"]], ids=str)
def test_layers_that_are_not_there_are_refused_before_anything_is_fetched(family, layers: Sequence[object]):
    provider = FieldProvider()
    with pytest.raises((SpecError, KnobError)) as caught:
        get_embedding(**asked(family, layers=layers, backend=provider))
    assert "layers" in str(caught.value) and caught.value.fix and provider.queries == []


def test_one_block_by_two_numbers_is_refused():
    with pytest.raises(SpecError, match="each once"):
        get_embedding(**asked("thor", layers=[3, -1]))


@every_family
def test_the_fingerprint_counts_layers_and_is_what_it_was_without(family):
    def knobs(**options: object) -> dict[str, object]:
        plan = plan_embedding(**asked(family, **options))
        return numbers_of(plan.job.embedder, plan.request.output, plan.prep)["knobs"]

    assert knobs(layers=[0, 1])["layers"] == [0, 1]
    assert ("layers" in knobs()) == (family == "terramind"), "it alone had the knob when fingerprints were fixed"
    prints = {get_embedding(**asked(family, **options)).meta.fingerprint for options in ({}, {"layers": [0]})}
    assert len(prints) == 2


def test_behind_anysats_blocks_a_patch_is_the_mean_over_modalities():
    both = {"modality": "s2+s1", "normalize": "none"}
    state = states("anysat", **both)[0][1:].unflatten(0, (2, -1)).mean(dim=0)
    found = get_embedding(**asked("anysat", layers=0, output=OutputSpec.grid(), **both))
    np.testing.assert_allclose(found.data.reshape(64, -1), state.T, atol=2e-6)


def test_the_tile_token_and_dense_tokens_of_anysat_have_layers_too():
    tile = get_embedding(**asked("anysat", layers=[0, 1], pooled="tile"))
    np.testing.assert_allclose(tile.data, torch.cat([one[0] for one in states("anysat")]), atol=2e-6)
    dense, patch = (
        get_embedding(**asked("anysat", layers=[0, 1], output=OutputSpec.grid(kind))).data
        for kind in ("dense", "patch")
    )
    assert dense.shape[0] == 3 * 64, "two layers of the patch, then its part"
    np.testing.assert_allclose(dense[:128, ::4, ::4], patch, atol=2e-6)
    usual = get_embedding(**asked("anysat", output=OutputSpec.grid("dense"))).data
    np.testing.assert_allclose(usual, dense[64:], atol=2e-6)


def test_the_final_norm_of_thor_is_for_the_last_layer_only():
    raw = get_embedding(**asked("thor", layers=[1, 3], output=OutputSpec.grid())).data
    normed = get_embedding(**asked("thor", layers=[1, 3], final_norm=True, output=OutputSpec.grid())).data
    width = len(raw) // 2
    np.testing.assert_array_equal(raw[:width], normed[:width])
    assert np.abs(raw[width:] - normed[width:]).max() > 0.1
