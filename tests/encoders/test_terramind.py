"""The encoder computes what the official TerraMind code computes, whatever modalities, bands and sizes it is given."""

import copy
import json
import re
from functools import partial
from typing import NamedTuple

import jaxtyping
import pytest
import torch
from golden_cases import GOLDEN, read_arrays, read_config
from safetensors.torch import load_file

from rs_embed.embedders._vit_mae_utils import pool, to_grid
from rs_embed.embedders.weights.layout import Layout, pick
from rs_embed.encoders.terramind import embeddings as terramind_embeddings
from rs_embed.encoders.terramind.embeddings import MODALITIES, V1_MODALITIES
from rs_embed.encoders.terramind.encoder import EMBEDDINGS, TerraMindEncoder, complete_state
from rs_embed.encoders.tokens import TokenGrid, TokenLayout, Tokens
from rs_embed.errors import BandMismatch, InputError, SpecError, WeightsMismatch

CASES = sorted(path.name for path in GOLDEN.glob("terramind_*"))
NAME_OF = {given: name for name, modality in MODALITIES.items() for given in (name, modality.key)}
GOLDEN_MODALITIES = tuple(name for name in V1_MODALITIES if name != "NDVI")
GOLDEN_SIZE = {"dim": 48, "depth": 2, "heads": 3}


class Case(NamedTuple):
    """One folder of reference data."""

    encoder: TerraMindEncoder
    inputs: dict[str, torch.Tensor]
    bands: dict[str, tuple[str, ...]]
    expected: dict[str, torch.Tensor]
    missing_token: torch.Tensor


def read_weights(name: str = "terramind_basefam_s2l2a_224") -> dict[str, torch.Tensor]:
    """Values as stored, but vocabularies, which were cut to 64, as long as the published ones."""
    weights = {key: value.float() for key, value in load_file(GOLDEN / name / "weights.safetensors").items()}
    for key in [key for key in weights if key.endswith("token_emb.weight")]:
        absent = MODALITIES[NAME_OF[key.split(".")[1]]].vocabulary - len(weights[key])
        weights[key] = torch.cat([weights[key], torch.zeros(absent, 48)])
    return weights


def golden_encoder(weights: dict[str, torch.Tensor], image_px: int = 224) -> TerraMindEncoder:
    family = "A" if "encoder.0.mlp.fc3.weight" in weights else "B"
    encoder = TerraMindEncoder(**GOLDEN_SIZE, family=family, modalities=GOLDEN_MODALITIES, image_px=image_px)
    encoder.load_state_dict(of_encoder(weights, encoder, image_px))
    return encoder.eval()


def of_encoder(
    weights: dict[str, torch.Tensor], encoder: TerraMindEncoder, image_px: int = 224
) -> dict[str, torch.Tensor]:
    """The weights without those of other modalities."""
    complete = partial(complete_state, modalities=GOLDEN_MODALITIES, image_px=image_px)
    return pick(weights, list(encoder.state_dict()), Layout(containers=EMBEDDINGS, complete=complete), "golden").tensors


def read_case(case: str) -> Case:
    config, folder = read_config(case), GOLDEN / case
    weights = read_weights((folder / config["weights"]).resolve().parent.name)
    arrays = {NAME_OF[given]: values for given, values in read_arrays(folder / config["inputs"]).items()}
    names = [NAME_OF[given] for given in config["input_order"]]
    inputs = {name: arrays[name] if MODALITIES[name].bands else arrays[name].long() for name in names}
    told = re.search(r"band subset ([\w,]+):", config["note"])
    bands = {"S2L2A": tuple(told[1].split(","))} if told else {}
    encoder = golden_encoder(weights, config["img_size"])
    return Case(encoder, inputs, bands, read_arrays(folder / "outputs.npz"), weights["missing_mod_token"])


@pytest.fixture(scope="module")
def encoder() -> TerraMindEncoder:
    return golden_encoder(read_weights())


def pixels(name: str, height: int = 32, width: int = 48, batch: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(batch)
    return torch.randn(batch, len(MODALITIES[name].bands), height, width, generator=generator)


def assert_close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=2e-5 + 5e-6 * expected.abs().max().item())


def by_modality(tokens: Tokens) -> dict[str, torch.Tensor]:
    names = ["Coordinates", *(grid.name for grid in tokens.layout.grids)]
    lengths = [tokens.layout.prefix, *(grid.length for grid in tokens.layout.grids)]
    return dict(zip(names, tokens.values.split_with_sizes(lengths, dim=1), strict=True))


@pytest.mark.parametrize("name", CASES)
def test_every_output_equals_that_of_the_official_code(name: str) -> None:
    case = read_case(name)
    with torch.inference_mode():
        first, last = case.encoder.intermediates(case.inputs, bands=case.bands)
        assert torch.equal(case.encoder(case.inputs, bands=case.bands).values, last.values)
    parts = by_modality(last)
    for output, expected in case.expected.items():
        how, _, what = output.rpartition("__")
        if how in ("", "mean", "max", "concat"):
            tokens = first if what == "layer0" else last
            actual = to_grid(tokens.values, tokens.layout, how or "mean").flatten(2).mT
            if actual.shape != expected.shape:  # upstream fills up with a token that was never trained
                actual = torch.cat([actual, case.missing_token.expand(2, 16, 48)], dim=2)
        elif how == "dict":
            actual = parts[NAME_OF[what.removeprefix("layer1_")]]
        else:
            actual = torch.cat([parts[modality] for modality in case.inputs], dim=1)
        assert_close(actual, expected)


@pytest.mark.parametrize(
    ("size", "dim", "depth", "heads", "family"),
    [("tiny", 192, 12, 3, "B"), ("small", 384, 12, 6, "B"), ("base", 768, 12, 12, "A"), ("large", 1024, 24, 16, "A")],
)
def test_key_names_and_shapes_equal_the_manifest(size: str, dim: int, depth: int, heads: int, family: str) -> None:
    manifest = json.loads((GOLDEN / "manifests" / f"terramind_v1_{size}_encoder.json").read_text())["tensors"]
    with torch.device("meta"):
        encoder = TerraMindEncoder(dim=dim, depth=depth, heads=heads, family=family)
    assert {key: list(value.shape) for key, value in encoder.state_dict().items()} == manifest


def test_grids_follow_the_order_of_the_inputs_and_sequences_lie_on_none(encoder: TerraMindEncoder) -> None:
    ids = torch.tensor([[5, 9, 3]])
    inputs = {"DEM": pixels("DEM"), "Coordinates": ids, "LULC": torch.ones(1, 2, 3, dtype=torch.long)}
    tokens = encoder(inputs)
    assert tokens.layout == TokenLayout((TokenGrid("DEM", 2, 3), TokenGrid("LULC", 2, 3)), prefix=3)
    assert tokens.values.shape == (1, tokens.layout.length, 48)
    swapped = encoder(dict(reversed(inputs.items())))
    assert [grid.name for grid in swapped.layout.grids] == ["LULC", "DEM"]
    assert_close(pool(swapped.values, swapped.layout), pool(tokens.values, tokens.layout))


def test_bands_are_told_by_name_and_one_that_is_left_out_counts_as_zeros(encoder: TerraMindEncoder) -> None:
    image, bands = pixels("S2L1C"), MODALITIES["S2L1C"].bands
    order = torch.randperm(len(bands), generator=torch.Generator().manual_seed(0)).tolist()
    told = {"S2L1C": [bands[channel] for channel in order]}
    assert_close(encoder({"S2L1C": image[:, order]}, bands=told).values, encoder({"S2L1C": image}).values)
    image[:, order[6:]] = 0
    subset = encoder({"S2L1C": image[:, order[:6]]}, bands={"S2L1C": told["S2L1C"][:6]})
    assert_close(subset.values, encoder({"S2L1C": image}).values)


def test_layers_are_joined_in_the_order_asked_for_and_only_the_last_block_is_normed() -> None:
    encoder = golden_encoder(read_weights())
    inputs = {"S1RTC": pixels("S1RTC")}
    first, last = encoder.intermediates(inputs)
    assert torch.equal(encoder(inputs, layers=(-1, 0)).values, torch.cat([last.values, first.values], dim=2))
    assert torch.equal(encoder.encoder_norm(encoder.encoder[1](first.values)), last.values)
    encoder.encoder[1].forward = None  # blocks after the deepest layer are not run
    assert torch.equal(encoder(inputs, layers=(0,)).values, first.values)


@pytest.mark.parametrize("layers", [(), (2,), (0, -3)])
def test_a_layer_that_is_not_there_is_refused(layers: tuple[int, ...], encoder: TerraMindEncoder) -> None:
    with pytest.raises(SpecError, match="from 0 to 1, or from -1 to -2"):
        encoder({"DEM": pixels("DEM")}, layers=layers)


def test_a_position_table_in_use_is_not_resized_again(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = golden_encoder(read_weights())
    inputs = {"S2L2A": pixels("S2L2A"), "DEM": pixels("DEM")}
    with torch.inference_mode():
        expected = encoder(inputs).values
        twin = copy.deepcopy(encoder)
        twin.load_state_dict({key: 0 * value for key, value in twin.state_dict().items()})
        assert twin.embed(inputs).values.eq(0).all()
        monkeypatch.setattr(terramind_embeddings, "resize_table", None)
        assert torch.equal(encoder(inputs).values, expected)


@pytest.mark.parametrize("assign", [False, True])
def test_loading_other_weights_forgets_resized_tables(assign: bool) -> None:
    encoder = golden_encoder(read_weights())
    other = {f"0.{key}": value * 1.5 for key, value in encoder.state_dict().items()}
    encoder({"DEM": pixels("DEM")})
    torch.nn.Sequential(encoder).load_state_dict(other, assign=assign)
    actual = encoder.embed({"DEM": pixels("DEM")}).values
    encoder.drop_cached()
    assert torch.equal(actual, encoder.embed({"DEM": pixels("DEM")}).values)
    assert_close(actual, 1.5 * golden_encoder(read_weights()).embed({"DEM": pixels("DEM")}).values)


def test_a_batch_of_three_equals_three_single_inputs(encoder: TerraMindEncoder) -> None:
    inputs = {name: pixels(name, batch=3) for name in ("S1GRD", "S2L2A")}
    apart = [encoder({name: values[i : i + 1] for name, values in inputs.items()}).values for i in range(3)]
    assert_close(encoder(inputs).values, torch.cat(apart))


def test_a_north_south_ramp_stays_north_south() -> None:
    encoder = golden_encoder(read_weights())
    embedding = encoder.encoder_embeddings["untok_dem@224"]
    with torch.no_grad():
        embedding.proj.weight.fill_(1.0)
        embedding.pos_emb.zero_()
    ramp = torch.linspace(0, 1, 32).view(1, 1, 32, 1).expand(1, 1, 32, 48)
    tokens = encoder.embed({"DEM": ramp})
    grid = to_grid(tokens.values, tokens.layout)
    assert (grid.diff(dim=2) > 0).all()
    assert torch.allclose(grid.diff(dim=3), torch.zeros(()), atol=1e-4)


@pytest.mark.parametrize("weights", ["terramind_basefam_s2l2a_224", "terramind_tinyfam_multi_64"])
def test_bfloat16_autocast_keeps_the_direction_of_every_token(weights: str) -> None:
    encoder = golden_encoder(read_weights(weights))
    inputs = {name: pixels(name, 64, 64) for name in ("S2L2A", "DEM")}
    with torch.inference_mode():
        exact = encoder(inputs).values
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = encoder(inputs).values
    assert rough.dtype == torch.float32
    assert torch.cosine_similarity(exact, rough, dim=2).min() > 0.999


@pytest.mark.parametrize("bf16", [False, True])
def test_gradients_reach_the_weights_in_use_even_after_inference(bf16: bool) -> None:
    encoder = golden_encoder(read_weights())
    inputs, bands = {"S2L2A": pixels("S2L2A")[:, :2]}, {"S2L2A": ("RED", "BLUE")}
    with torch.inference_mode():
        encoder(inputs, bands=bands)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        tokens = encoder(inputs, bands=bands)
    pool(tokens.values, tokens.layout).square().sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.encoder.parameters())
    gradient = encoder.get_parameter("encoder_embeddings.untok_sen2l2a@224.proj.weight").grad
    assert gradient is not None
    assert gradient.view(48, 256, 12).abs().sum(dim=(0, 1)).nonzero().flatten().tolist() == [1, 3]
    assert encoder.get_parameter("encoder_embeddings.untok_dem@224.mod_emb").grad is None


@pytest.mark.parametrize("family", ["A", "B"])
def test_random_weights_depend_on_the_seed_alone(family: str) -> None:
    def random_encoder(seed: int) -> TerraMindEncoder:
        with torch.device("meta"):
            encoder = TerraMindEncoder(**GOLDEN_SIZE, family=family, modalities=("DEM", "Coordinates"))
        encoder.to_empty(device="cpu").init_random(seed)
        return encoder

    one, same, other = (random_encoder(seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(value, same[key]) for key, value in one.items())
    assert not torch.equal(one["encoder.0.attn.qkv.weight"], other["encoder.0.attn.qkv.weight"])
    plain = TerraMindEncoder(**GOLDEN_SIZE, family=family, modalities=("DEM", "Coordinates"))
    for key, value in plain.named_buffers():
        assert torch.equal(one[key], value), key


def test_a_published_file_may_lack_tables_and_zero_biases() -> None:
    encoder = golden_encoder(read_weights())
    expected = encoder.state_dict()
    fixed = {name for name, _ in encoder.named_buffers()}
    state = {name: tensor for name, tensor in read_weights().items() if name not in fixed}
    completed = of_encoder(state, encoder)
    assert completed.keys() == expected.keys()
    for name, tensor in completed.items():  # float32 upstream: far positions of a sequence differ by 2e-5
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=3e-5 if "coords" in name else 1e-6)
    with torch.device("meta"):
        built = TerraMindEncoder(**GOLDEN_SIZE, family="A", modalities=GOLDEN_MODALITIES)
    built.load_state_dict(completed, assign=True)
    inputs = {"RGB": pixels("RGB"), "Coordinates": torch.tensor([[5, 9, 3]])}
    assert_close(built.eval()(inputs).values, encoder(inputs).values)


def test_what_is_missing_or_unknown_is_left_for_strict_loading_to_report() -> None:
    state = read_weights() | {"encoder.0.ls1.gamma": torch.ones(48)}
    del state["encoder_embeddings.untok_dem@224.mod_emb"], state["encoder_embeddings.untok_dem@224.pos_emb"]
    encoder = golden_encoder(read_weights())
    missing, unexpected = encoder.load_state_dict(of_encoder(state, encoder), strict=False)
    assert set(missing) == {f"encoder_embeddings.untok_dem@224.{part}" for part in ("mod_emb", "pos_emb")}
    assert unexpected == ["encoder.0.ls1.gamma"]


@pytest.mark.parametrize("layer", ["encoder.1.norm2", "encoder_norm"])
def test_a_bias_of_a_layer_norm_that_is_not_zero_is_refused(layer: str) -> None:
    bias = torch.zeros(48)
    bias[7] = -0.25
    with pytest.raises(WeightsMismatch, match=r"LayerNorms, got up to 0\.25") as caught:
        complete_state(read_weights() | {f"{layer}.bias": bias})
    assert layer in str(caught.value)


def test_inputs_that_do_not_fit_are_refused_with_a_fix(encoder: TerraMindEncoder) -> None:
    dem, s2 = pixels("DEM"), pixels("S2L2A")
    wrong = [
        ({"S2L2A": s2[:, :10]}, {}, BandMismatch, "Expected 12 channels of S2L2A, got 10", "`bands`"),
        ({"S2L2A": s2}, {"S2L2A": ["B2"]}, BandMismatch, "known bands of S2L2A", "choose from COASTAL_AEROSOL, BLUE"),
        ({"S2L2A": s2[:, :2]}, {"S2L2A": ["RED", "RED"]}, BandMismatch, "each once", "RED, RED"),
        ({"S2L2A": s2}, {"S2L1C": ["RED"]}, BandMismatch, "got some for S2L1C", "same names"),
        ({"DEM": pixels("DEM", 32, 90)}, {}, InputError, "got 32 x 90 px", "32 x 96 px"),
        ({"s1_grd": dem}, {}, InputError, "no modality 's1_grd'", "did you mean S1GRD?"),
        ({"NDVI": dem}, {}, InputError, "no modality 'NDVI'", "choose from S2L2A, S2L1C"),
        ({}, {}, InputError, "one or more modalities", "none"),
        ({"S2L2A": s2, "DEM": pixels("DEM", batch=2)}, {}, InputError, "same number of items", "S2L2A 1, DEM 2"),
    ]
    for inputs, bands, error, headline, detail in wrong:
        with pytest.raises(error, match=re.escape(headline)) as caught:
            encoder(inputs, bands=bands)
        assert detail in str(caught.value)


def test_shapes_in_annotations_are_checked_in_this_run(encoder: TerraMindEncoder) -> None:
    with pytest.raises(jaxtyping.TypeCheckError):
        encoder({"DEM": torch.zeros(1, 32, 32)})
