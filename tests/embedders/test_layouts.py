"""Checkpoints as authors save them: the encoder is found, its own parts are complete, and what lies beside is named."""

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny import TINY_ANYSAT
from torch import Tensor

from rs_embed import PointBuffer, TemporalSpec, plan_embedding
from rs_embed.core.settings import LibrarySettings
from rs_embed.embedders.base import Embedder, Network
from rs_embed.embedders.card import ModelCard
from rs_embed.embedders.catalog import get_card
from rs_embed.embedders.onthefly_anysat import AnySatEmbedder
from rs_embed.embedders.onthefly_terramind import TerraMindEmbedder
from rs_embed.embedders.onthefly_thor import ThorEmbedder
from rs_embed.embedders.weights.layout import Layout, Picked, pick
from rs_embed.errors import WeightsMismatch
from rs_embed.testing import FieldProvider

YEAR = TemporalSpec.year(2022)
State = dict[str, Tensor]
THOR = replace(
    get_card("thor_1_0_tiny"), id="thor_test", dim=64, arch={"dim": 64, "depth": 2, "heads": 1, "band_dim": 16}
)
TERRAMIND = replace(
    get_card("terramind_1_0_tiny"), id="terramind_test", dim=64, arch={"dim": 64, "depth": 2, "heads": 1, "gated": 0}
)
FAMILIES: dict[str, tuple[ModelCard, type[Embedder]]] = {
    "thor": (THOR, ThorEmbedder),
    "terramind": (TERRAMIND, TerraMindEmbedder),
    "anysat": (TINY_ANYSAT, AnySatEmbedder),
}
THOR_HEADS = (
    *("mask_token", "decoder_embed.weight", "decoder_blocks.0.attn.qkv.weight", "decoder_norm.bias"),
    *("decoder_pos_embed.10", "decoder_band_embed.group0", "decoder_slopes", "decoder_ref_pos_embed.pos_embed"),
    *("flexivit_decode_pred.S2:Red.weight", "land_cover_decoders.worldcover.group0.weight", "month_head.weight"),
    *("location_head.bias", "orbit_direction_head.weight", "incidence_angle_head.weight", "era5_land_head.weight"),
    *("contrast_loss.projection.0.weight", "contrast_loss.memory", "ref_pos_embed.pos_embed", "pos_embed.10"),
)
"""Source of names: FM4CS/THOR d47b991, thor_mae.py and thor_vit.py."""
TERRAMIND_REST = (
    *("decoder.0.norm1.weight", "decoder_embeddings.tok_dem@224.mod_emb", "decoder_norm.bias", "mask_token"),
    *("decoder_proj_context.weight", "missing_mod_token", "encoder_embeddings.tok_dem@224.token_emb.weight"),
)
ANYSAT_REST = (
    *("predictor.predictor_blocks.0.attn.qkv.weight", "predictor.mask_token", "head.0.weight", "head.1.bias"),
    *("projector_planet.pad_parameter", "criterion.temperature"),
)
REST = {"thor": THOR_HEADS, "terramind": TERRAMIND_REST, "anysat": ANYSAT_REST}


def build(family: str, ckpt: Path | None, cache: Path | None = None) -> Network:
    card, adapter = FAMILIES[family]
    knobs = {"pretrained": False} if ckpt is None else {"ckpt": ckpt}
    plan = plan_embedding(card, PointBuffer(7, 51, 640), YEAR, backend=FieldProvider(), **knobs)
    return adapter.build(plan.job.request, LibrarySettings.read({"cache_dir": cache}))


@pytest.fixture(scope="module")
def states() -> dict[str, State]:
    """Of each family, the encoder's tensors with other values than any that are made anew."""
    generator = torch.Generator().manual_seed(11)

    def varied(name: str, tensor: Tensor) -> Tensor:
        fixed = "pos_emb" in name or name.endswith("slopes") or not tensor.any()
        return tensor if fixed else tensor + 0.01 * torch.randn(tensor.shape, generator=generator)

    return {
        family: {name: varied(name, one) for name, one in build(family, None).module.state_dict().items()}
        for family in FAMILIES
    }


def under(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def rest(family: str) -> State:
    return {name: torch.full((2,), 9.0) for name in REST[family]}


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def is_of(network: Network, state: State) -> bool:
    found = network.module.state_dict()
    return found.keys() == state.keys() and all(torch.equal(found[name], one) for name, one in state.items())


WRAPPED: dict[str, Callable[[State, State], object]] = {
    "bare": lambda own, heads: own | heads,
    "heads under encoder.": lambda own, heads: under("encoder.", own | heads),
    "heads beside encoder.": lambda own, heads: under("encoder.", own) | heads,
    "state_dict": lambda own, heads: {"state_dict": under("encoder.", own) | heads, "epoch": 3},
    "model": lambda own, heads: {"model": own | heads, "optimizer": {"state": {0: {"step": torch.ones(1)}}}},
    "DistributedDataParallel": lambda own, heads: under("module.", own | heads),
    "Lightning": lambda own, heads: {"state_dict": under("model.encoder.", own) | under("model.", heads)},
    "compiled": lambda own, heads: under("_orig_mod.", own | heads),
    "TerraTorch": lambda own, heads: {"state_dict": under("model.encoder.encoder.", own) | under("model.", heads)},
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("wrapped", WRAPPED)
def test_the_encoder_is_found_with_every_head_of_the_pre_training_beside_it(states, family, wrapped, tmp_path, caplog):
    content = WRAPPED[wrapped](states[family], rest(family))
    with caplog.at_level(logging.INFO, "rs_embed.embedders.weights.layout"):
        network = build(family, saved(tmp_path / "authors.pt", content))
    assert is_of(network, states[family])
    heads = Counter(name.partition(".")[0] for name in REST[family])
    named = ", ".join(f"{head} ({count})" for head, count in sorted(heads.items()))
    assert network.note == f"beside the encoder, not used: {named}"
    (record,) = caplog.records
    assert network.note in record.getMessage() and "authors.pt" in record.getMessage()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_file_of_the_encoder_alone_needs_no_note(states, family, tmp_path):
    assert build(family, saved(tmp_path / "mine.pt", states[family])).note is None


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("prefix", ["", "encoder.", "model.encoder."])
@pytest.mark.parametrize("heads", [False, True])
def test_a_block_more_is_another_size_and_refused(states, family, prefix, heads, tmp_path):
    blocks = {"thor": "blocks.", "terramind": "encoder.", "anysat": "blocks."}[family]
    first = {name: one for name, one in states[family].items() if name.startswith(f"{blocks}0.")}
    more = {name.replace("0", "7", 1): one for name, one in first.items()}
    content = under(prefix, states[family] | more) | (rest(family) if heads else {})
    with pytest.raises(WeightsMismatch, match=f"0 tensors missing, {len(more)} unexpected"):
        build(family, saved(tmp_path / "deeper.pt", content))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_block_less_is_refused(states, family, tmp_path):
    last = {"thor": "blocks.1.", "terramind": "encoder.1.", "anysat": "spatial_encoder.predictor_blocks.0."}[family]
    content = {name: one for name, one in states[family].items() if not name.startswith(last)} | rest(family)
    with pytest.raises(WeightsMismatch, match=r"[1-9]\d* tensors missing, 0 unexpected"):
        build(family, saved(tmp_path / "shallow.pt", content))


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("thor", "blocks.0.ls1.gamma"),
        ("thor", "ind_patch_embed.patch_embed.S2:New.weight"),
        ("thor", "band_embed.group10"),
        ("thor", "norm.scale"),
        ("thor", "prod_embed.S2"),
        ("thor", "cls_token"),
        ("terramind", "encoder.0.ls1.gamma"),
        ("terramind", "encoder_norm.scale"),
        ("terramind", "encoder_embeddings.untok_dem@224.proj.bias"),
        ("terramind", "register_tokens"),
        ("anysat", "projector_s2.extra.weight"),
        ("anysat", "spatial_encoder.mask_token"),
        ("anysat", "blocks.0.ls1.gamma"),
    ],
)
def test_a_tensor_that_the_encoder_does_not_know_under_its_own_parts_is_refused(states, family, name, tmp_path):
    for prefix in ("", "encoder."):
        content = under(prefix, states[family] | {name: torch.ones(3)}) | rest(family)
        with pytest.raises(WeightsMismatch, match="0 tensors missing, 1 unexpected") as caught:
            build(family, saved(tmp_path / "odd.pt", content))
        assert name in str(caught.value)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("other", ["", "model.", "encoder.encoder."])
def test_two_candidates_for_one_tensor_are_an_error_not_a_choice(states, family, other, tmp_path):
    name = next(iter(states[family]))
    content = under("encoder.", states[family]) | {other + name: states[family][name] + 1}
    with pytest.raises(WeightsMismatch, match="one tensor for each name, got two for 1") as caught:
        build(family, saved(tmp_path / "twice.pt", content))
    assert f"encoder.{name}" in str(caught.value) and f"{other}{name}" in str(caught.value)


def test_two_whole_sets_in_one_file_are_an_error(states, tmp_path):
    content = {"state_dict": states["thor"], "model": under("", states["thor"])}
    with pytest.raises(WeightsMismatch, match="got two for"):
        build("thor", saved(tmp_path / "both.pt", content))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("live", "averaged"),
    [("state_dict.", "state_dict_ema."), ("model.", "model_ema."), ("model.encoder.", "target_encoder.")],
)
def test_of_live_and_averaged_weights_the_live_ones_are_used_whole_and_the_note_says_so(
    states, family, live, averaged, tmp_path
):
    copy = {name: one + 1 if one.is_floating_point() else one for name, one in states[family].items()}
    both = under(live, states[family]) | under(averaged, copy)
    reverse = dict(reversed(list(both.items())))
    for content in (both, reverse):
        network = build(family, saved(tmp_path / "ema.pt", content))
        assert is_of(network, states[family])
        assert network.note == f"weights of the last step, not those averaged ({averaged.rstrip('.')})"


def test_averaged_weights_are_used_where_there_are_no_others_and_never_fill_a_gap(states, tmp_path):
    alone = build("thor", saved(tmp_path / "ema.pt", {"ema": states["thor"]}))
    assert is_of(alone, states["thor"])
    assert alone.note == "weights averaged over the training (ema): the file has no others"
    name = next(iter(states["thor"]))
    live = {other: one for other, one in states["thor"].items() if other != name}
    with pytest.raises(WeightsMismatch, match="1 tensors missing") as caught:
        build("thor", saved(tmp_path / "gap.pt", {"model": live, "ema": states["thor"]}))
    assert name in str(caught.value)


def test_a_file_of_something_else_says_what_it_holds(tmp_path):
    content = {f"layer{i}.weight": torch.ones(1) for i in range(7)}
    with pytest.raises(WeightsMismatch, match="Expected tensors such as .*, got none of") as caught:
        build("thor", saved(tmp_path / "resnet.pt", content))
    assert "layer4.weight, ... and 2 more" in str(caught.value)


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16, torch.float64])
def test_a_file_of_other_floats_than_the_network_s_says_so(states, stored, tmp_path):
    state = {name: one.to(stored) for name, one in states["thor"].items()}
    network = build("thor", saved(tmp_path / "half.pt", state))
    assert network.note == f"stored as {str(stored).removeprefix('torch.')}, used as float32"
    assert {one.dtype for one in network.module.parameters()} == {torch.float32}
    assert is_of(network, {name: one.float() for name, one in state.items()})


def test_the_note_outlives_the_file_that_it_tells_of(states, tmp_path):
    """A later start maps what the first converted, and reads nothing of the source."""
    file = saved(tmp_path / "half.pt", {name: one.half() for name, one in states["thor"].items()} | rest("thor"))
    first, second = (build("thor", file, tmp_path / "cache") for _ in range(2))
    (kept,) = (tmp_path / "cache").rglob("*.safetensors")
    assert str(kept) in Path("/proc/self/maps").read_text()
    assert first.note == second.note
    assert first.note is not None and "mask_token (1)" in first.note and "stored as float16" in first.note


def test_what_was_kept_before_there_were_notes_is_made_anew(states, tmp_path):
    file = saved(tmp_path / "mine.pt", states["thor"] | rest("thor"))
    first = build("thor", file, tmp_path / "cache")
    (kept,) = (tmp_path / "cache").rglob("*.safetensors")
    from rs_embed.embedders.weights.converted import digest_of

    old = kept.with_suffix(".old")
    save_file(first.module.state_dict(), old, {"format": "pt"})
    kept.unlink()
    old.rename(kept.with_name(f"{kept.name.split('.')[0]}.{digest_of(old)}.safetensors"))
    assert build("thor", file, tmp_path / "cache").note == first.note
    assert [one.name for one in (tmp_path / "cache").rglob("*.safetensors")] == [kept.name]


def test_a_published_terramind_lends_its_other_modalities_to_nobody(states, tmp_path):
    imagined = {"encoder_embeddings.tok_lulc@224.mod_emb": torch.ones(1, 1, 64)}
    network = build("terramind", saved(tmp_path / "full.pt", states["terramind"] | imagined))
    assert network.note == "beside the encoder, not used: encoder_embeddings (1)"


def test_a_prefix_of_our_own_module_is_put_back() -> None:
    one, other = torch.ones(1), torch.zeros(1)
    state = {"norm.weight": one, "head.weight": other, "norm.bias": other}
    replaced = {"vit.norm.bias": one}
    layout = Layout(within="vit.", complete=lambda tensors: tensors | replaced)
    names = ["vit.norm.weight", "vit.norm.bias"]
    assert pick(state, names, layout, "test") == Picked(
        {"vit.norm.weight": one, "vit.norm.bias": one}, "beside the encoder, not used: head (1)"
    )


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_tensors_in_dictionaries_in_dictionaries_are_found(states, depth, tmp_path):
    content: object = states["thor"]
    for name in ("state_dict", "model", "module")[:depth]:
        content = {name: content, "epoch": 7}
    assert is_of(build("thor", saved(tmp_path / "deep.pt", content)), states["thor"])
