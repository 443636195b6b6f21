"""The encoder computes what the official AnySat code computes, its oddities included; each golden case runs."""

import copy
import json
from typing import Any, NamedTuple

import pytest
import torch
from golden_cases import GOLDEN, read_arrays, read_config
from safetensors.torch import load_file
from torch import Tensor

from rs_embed.encoders.anysat.attention import positions, relative_index
from rs_embed.encoders.anysat.encoder import AnySatEncoder
from rs_embed.encoders.anysat.modalities import MODALITIES
from rs_embed.encoders.anysat.projectors import SeriesNorm, VectorNorm, even_sizes, raster_order
from rs_embed.encoders.kernels.linear import Linear
from rs_embed.encoders.tokens import TokenGrid, TokenLayout
from rs_embed.errors import BandMismatch, InputError, ReadoutError, RSEmbedError, SpecError

SIZES = {
    "tiny": {"dim": 256, "depth": 2, "heads": 4},
    "small": {"dim": 512, "depth": 4, "heads": 8},
    "base": {"dim": 768, "depth": 6, "heads": 12},
}
CASES = sorted(path.name for path in GOLDEN.glob("anysat_*"))
RUNS = [
    pytest.param(name, run, id=f"{name}-{run['patch_size_m']}m-{run['output']}-{run['output_modality']}")
    for name in CASES
    for run in read_config(name)["runs"]
]


class Inputs(NamedTuple):
    """What the encoder takes."""

    values: dict[str, Tensor]
    dates: dict[str, Tensor]
    masks: dict[str, Tensor]


def assert_close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=2e-5 + 5e-6 * expected.abs().max().item())


def read_weights() -> dict[str, Tensor]:
    weights = load_file(GOLDEN / "anysat_s2_ps10" / "weights.safetensors")
    return {key: value.float() for key, value in weights.items()}


def build(name: str = "anysat_s2_ps10") -> AnySatEncoder:
    config = read_config(name)
    assert config["weights"].endswith("weights.safetensors")
    sizes = {key: config["dims"][key] for key in ("dim", "depth", "heads")}
    return AnySatEncoder(**sizes, modalities=config["projectors"])


def golden_encoder() -> AnySatEncoder:
    encoder = build()
    encoder.load_state_dict(read_weights(), strict=True)
    return encoder.eval()


@pytest.fixture(scope="module")
def encoder() -> AnySatEncoder:
    return golden_encoder()


def read_inputs(name: str, patch_m: int) -> Inputs:
    """Cropped to whole patches: the official code drops the rest silently, this one refuses it."""
    config = read_config(name)
    arrays = read_arrays(GOLDEN / name / config["inputs"])
    inputs = Inputs({}, {}, {})
    for key in config["input_order"]:
        modality = key.removesuffix("_dates").removesuffix("_mask")
        step_px = patch_m // 10 * MODALITIES[modality].cell_px
        side_px = arrays[modality].shape[-1] // step_px * step_px
        if key.endswith("_dates"):
            inputs.dates[modality] = arrays[key]
        else:
            where = inputs.masks if key.endswith("_mask") else inputs.values
            where[modality] = arrays[key][..., :side_px, :side_px]
    return inputs


def compute(encoder: AnySatEncoder, inputs: Inputs, patch_m: int, output: str, modality: str | None) -> Tensor:
    keywords: dict[str, Any] = {"dates": inputs.dates, "masks": inputs.masks, "patch_m": patch_m}
    with torch.inference_mode():
        if output == "dense":
            return encoder.dense(inputs.values, **keywords, modality=modality).permute(0, 2, 3, 1)
        tokens = encoder(inputs.values, **keywords)
    (grid,) = tokens.layout.grids
    patch = tokens.values[:, 1:].unflatten(1, (grid.height, grid.width))
    return {"tile": tokens.values[:, 0], "patch": patch, "all": tokens.values}[output]


def s2_inputs(batch: int = 1, side: int = 8, frames: int = 3) -> Inputs:
    generator = torch.Generator().manual_seed(batch)
    values = torch.randn(batch, frames, 10, side, side, generator=generator)
    dates = torch.randint(0, 365, (batch, frames), generator=generator)
    return Inputs({"s2": values}, {"s2": dates}, {})


def everything(side_m: int = 40) -> Inputs:
    """All modalities of one cell size, in one call."""
    generator = torch.Generator().manual_seed(5)
    inputs = Inputs({}, {}, {})
    for name in ("aerial", "aerial-flair", "spot", "naip", "s2", "s1-asc", "s1", "l8"):
        modality = MODALITIES[name]
        side_px = side_m * 100 // modality.gsd_cm
        frames = () if modality.period is None else (2,)
        inputs.values[name] = torch.randn(1, *frames, modality.channels, side_px, side_px, generator=generator)
        if frames:
            inputs.dates[name] = torch.tensor([[10, 200]])
    return inputs


def full_encoder() -> AnySatEncoder:
    with torch.device("meta"):
        encoder = AnySatEncoder(dim=128, depth=2, heads=4)
    encoder.to_empty(device="cpu").init_random(3)
    return encoder.eval()


@pytest.mark.parametrize(("name", "run"), RUNS)
def test_every_output_equals_the_official_code(name: str, run: dict[str, Any], encoder: AnySatEncoder) -> None:
    output, modality, patch_m = run["output"], run["output_modality"], run["patch_size_m"]
    expected = read_arrays(GOLDEN / name / "outputs.npz")
    key = f"ps{patch_m}_{output}" + (f"_{modality}" if modality else "")
    actual = compute(encoder, read_inputs(name, patch_m), patch_m, output, modality)
    assert_close(actual, expected[key])


def test_all_official_outputs_are_run() -> None:
    assert len(CASES) == 11
    for name in CASES:
        config = read_config(name)
        assert len(config["runs"]) == len(config["outputs"]) == len(read_arrays(GOLDEN / name / "outputs.npz"))


@pytest.mark.parametrize("size", SIZES)
def test_key_names_and_shapes_equal_the_manifest(size: str) -> None:
    manifest = json.loads((GOLDEN / "manifests" / f"anysat_{size}.json").read_text())["tensors"]
    with torch.device("meta"):
        encoder = AnySatEncoder(**SIZES[size])
    assert {key: list(value.shape) for key, value in encoder.state_dict().items()} == manifest


def test_tokens_are_the_tile_then_one_square_grid(encoder: AnySatEncoder) -> None:
    inputs = s2_inputs()
    with torch.inference_mode():
        tokens = encoder(inputs.values, dates=inputs.dates, patch_m=20)
    assert tokens.layout == TokenLayout((TokenGrid("patch", 4, 4),), prefix=1)
    assert tokens.values.shape == (1, 17, 128)


def test_an_encoder_built_without_storage_works_once_weights_are_assigned() -> None:
    with torch.device("meta"):
        encoder = build()
    encoder.load_state_dict(read_weights(), assign=True)
    inputs = s2_inputs()
    assert torch.equal(
        compute(encoder.eval(), inputs, 20, "all", None), compute(golden_encoder(), inputs, 20, "all", None)
    )


def test_a_batch_of_three_equals_three_single_inputs(encoder: AnySatEncoder) -> None:
    inputs = s2_inputs(batch=3)
    singles = [
        Inputs({"s2": inputs.values["s2"][i : i + 1]}, {"s2": inputs.dates["s2"][i : i + 1]}, {}) for i in range(3)
    ]
    for output in ("all", "dense"):
        apart = [compute(encoder, single, 20, output, None) for single in singles]
        assert_close(compute(encoder, inputs, 20, output, None), torch.cat(apart))


@pytest.mark.parametrize("tokens_at_once", [1, 7, 100])
def test_work_in_small_chunks_gives_the_same_numbers(tokens_at_once: int) -> None:
    encoder, inputs = full_encoder(), everything()
    whole = compute(encoder, inputs, 20, "dense", "aerial")
    encoder.tokens_at_once = tokens_at_once
    assert_close(compute(encoder, inputs, 20, "dense", "aerial"), whole)


def test_pieces_are_even_and_complete() -> None:
    assert even_sizes(10, 4) == [4, 3, 3]
    assert even_sizes(3, 0) == [1, 1, 1]
    assert even_sizes(4, 9) == [4]


def test_patches_do_not_see_each_other_before_they_are_mixed(encoder: AnySatEncoder) -> None:
    inputs = s2_inputs(side=8)
    part = {"s2": inputs.values["s2"][..., 2:6, 4:8]}
    with torch.inference_mode():
        all_patches = encoder.patches(inputs.values, dates=inputs.dates, patch_m=20).values["s2"]
        some = encoder.patches(part, dates=inputs.dates, patch_m=20).values["s2"]
        window = encoder.mix({"s2": all_patches[:, 1:3, 2:4]}, 20)
        expected = encoder(part, dates=inputs.dates, patch_m=20)
    assert_close(all_patches[:, 1:3, 2:4], some)
    assert_close(window.values, expected.values)


def test_patches_of_a_rectangle_are_laid_out_as_the_ground_is(encoder: AnySatEncoder) -> None:
    inputs = s2_inputs(side=8)
    part = {"s2": inputs.values["s2"][..., :4, :]}
    with torch.inference_mode():
        square = encoder.patches(inputs.values, dates=inputs.dates, patch_m=20, dense="s2")
        strip = encoder.patches(part, dates=inputs.dates, patch_m=20, dense="s2")
        assert_close(strip.values["s2"], square.values["s2"][:, :2])
        maps = [p.dense_map(p.values["s2"], raster=False) for p in (square, strip)]
    assert maps[1].shape == (1, 256, 4, 8)
    assert_close(maps[1], maps[0][:, :, :4])
    with pytest.raises(InputError, match="Expected a square for AnySat, got 2 x 4 patches"):
        encoder.mix(strip.values, 20)


def test_cls_alone_is_what_it_is_with_the_sub_tokens(encoder: AnySatEncoder) -> None:
    inputs = s2_inputs()
    with torch.inference_mode():
        alone = encoder.patches(inputs.values, dates=inputs.dates, patch_m=40)
        beside = encoder.patches(inputs.values, dates=inputs.dates, patch_m=40, dense="s2")
    assert_close(alone.values["s2"], beside.values["s2"])
    with pytest.raises(ReadoutError, match="Expected patches with sub-tokens, got none"):
        alone.dense_map(alone.values["s2"], raster=False)


def test_the_reference_scatters_aerial_sub_tokens_and_raster_order_mends_it(encoder: AnySatEncoder) -> None:
    images = read_inputs("anysat_aerial", 20).values["aerial"]
    changed = images.clone()
    changed[..., 60:70, 130:140] += 3  # the 2 m square in row 6, column 13
    strongest = {}
    for raster in (True, False):
        with torch.inference_mode():
            before, after = (
                encoder.dense({"aerial": image}, dates={}, patch_m=20, raster=raster)[0, 128:]
                for image in (images, changed)
            )
        place = (after - before).norm(dim=0).argmax().item()
        strongest[raster] = divmod(int(place), 20)
    assert strongest == {True: (6, 13), False: (5, 18)}


def test_raster_order_changes_nothing_where_a_patch_is_one_cell(encoder: AnySatEncoder) -> None:
    images = read_inputs("anysat_aerial", 10).values
    with torch.inference_mode():
        maps = [encoder.dense(images, dates={}, patch_m=10, raster=raster) for raster in (True, False)]
    assert torch.equal(*maps)
    assert raster_order(4, 1).tolist() == list(range(16))


def test_all_modalities_of_one_cell_size_run_together_in_any_order() -> None:
    encoder, inputs = full_encoder(), everything()
    tokens = compute(encoder, inputs, 20, "all", None)
    assert tokens.shape == (1, 5, 128)
    turned = Inputs(dict(reversed(inputs.values.items())), inputs.dates, {})
    assert_close(compute(encoder, turned, 20, "all", None), tokens)


@pytest.mark.parametrize("name", ["l7", "alos"])
def test_pixels_of_30_m_are_patches_of_their_own(name: str) -> None:
    encoder, channels = full_encoder(), MODALITIES[name].channels
    inputs = Inputs({name: torch.ones(1, 2, channels, 4, 4)}, {name: torch.zeros(1, 2)}, {})
    assert compute(encoder, inputs, 10, "patch", None).shape == (1, 4, 4, 128)
    with pytest.raises(SpecError, match=f"patch_m=10 for {name} of AnySat, got 30"):
        encoder(inputs.values, dates=inputs.dates, patch_m=30)
    s2 = {"s2": torch.zeros(1, 1, 10, 12, 12)}
    with pytest.raises(InputError, match="the same number of patches") as caught:
        encoder(inputs.values | s2, dates=inputs.dates | {"s2": torch.zeros(1, 1)}, patch_m=10)
    assert caught.value.fix == f"run {name} separately"


def test_alos_pixels_are_placed_like_sentinel_1_pixels_of_10_m_as_the_released_code_places_them() -> None:
    encoder = full_encoder()
    encoder.projector_alos.load_state_dict(encoder.projector_s1.state_dict())
    pixels, dates = torch.randn(1, 2, 3, 4, 4, generator=torch.Generator().manual_seed(7)), torch.tensor([[10, 200]])
    alos, s1 = (Inputs({name: pixels}, {name: dates}, {}) for name in ("alos", "s1"))
    for output in ("all", "dense"):
        assert torch.equal(compute(encoder, alos, 10, output, None), compute(encoder, s1, 10, output, None))


def test_masked_values_have_no_effect_even_if_they_are_not_numbers(encoder: AnySatEncoder) -> None:
    inputs = read_inputs("anysat_s2_mask", 20)
    broken = inputs.values["s2"].masked_fill(inputs.masks["s2"] == 0, torch.nan)
    valid = inputs.masks["s2"].bool()
    actual = compute(encoder, Inputs({"s2": broken}, inputs.dates, {"s2": valid}), 20, "patch", None)
    assert torch.equal(actual, compute(encoder, inputs, 20, "patch", None))


def test_positions_and_distances_are_computed_once_per_size(encoder: AnySatEncoder) -> None:
    inputs = s2_inputs()
    compute(encoder, inputs, 20, "all", None)
    made = positions.cache_info().misses, relative_index.cache_info().misses
    compute(full_encoder(), inputs, 20, "all", None)
    assert (positions.cache_info().misses, relative_index.cache_info().misses) == made


def test_distances_fall_into_the_buckets_of_the_reference() -> None:
    buckets = relative_index(6) - 8 * torch.arange(37)[:, None]
    assert buckets[0].tolist() == buckets[:, 0].tolist() == [7] * 37
    # From the north-west corner: along the first row, then the diagonal; 2.8 rounds to 3.
    assert buckets[1, 1:7].tolist() == [3, 4, 5, 5, 6, 6]
    assert buckets[1, 1::7].tolist() == [3, 4, 5, 6, 6, 6]


@pytest.mark.parametrize("first", ["inference", "training"])
def test_gradients_reach_the_weights_whatever_ran_before(first: str) -> None:
    positions.cache_clear()
    relative_index.cache_clear()
    encoder, inputs = golden_encoder(), s2_inputs()
    for mode in ("inference", "training") if first == "inference" else ("training", "inference"):
        if mode == "inference":
            compute(encoder, inputs, 20, "all", None)
            continue
        encoder.dense(inputs.values, dates=inputs.dates, patch_m=20).square().sum().backward()
    used = {name: p for name, p in encoder.named_parameters() if "projector" not in name or "projector_s2" in name}
    # Softmax over dates drops the bias of the keys; and there was no mask.
    without = {name.removeprefix("projector_s2.") for name, p in used.items() if p.grad is None}
    assert without == {"patch_embed.attention_heads.fc1_k.bias", "pad_parameter"}
    dead = [name for name, p in used.items() if p.grad is not None and not p.grad.any()]
    assert dead == []


def test_training_mode_computes_the_same() -> None:
    encoder, inputs = golden_encoder(), s2_inputs()
    expected = compute(encoder, inputs, 20, "all", None)
    assert_close(encoder.train()(inputs.values, dates=inputs.dates, patch_m=20).values.detach(), expected)


@pytest.mark.parametrize("wants_grad", [False, True])
@pytest.mark.slow
def test_bfloat16_autocast_keeps_the_direction_of_every_token(wants_grad: bool) -> None:
    encoder, inputs = full_encoder().requires_grad_(wants_grad), everything()
    for output in ("all", "dense"):
        exact = compute(encoder, inputs, 20, output, None)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = compute(encoder, inputs, 20, output, None)
        assert rough.dtype == torch.float32
        assert torch.cosine_similarity(exact, rough, dim=-1).min() > 0.999
    assert all(module._ready is None for module in encoder.modules() if isinstance(module, Linear))


def test_bfloat16_training_works_after_bfloat16_inference() -> None:
    encoder, inputs = golden_encoder(), s2_inputs()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        compute(encoder, inputs, 20, "all", None)
        encoder(inputs.values, dates=inputs.dates, patch_m=20).values.sum().backward()
    gradient = encoder.get_parameter("projector_s2.patch_embed.inconv.0.weight").grad
    assert gradient is not None and gradient.isfinite().all() and gradient.any()


def test_weights_changed_in_place_or_loaded_are_seen_at_once() -> None:
    encoder, inputs = full_encoder(), s2_inputs()
    for bf16 in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            before = compute(encoder, inputs, 20, "all", None)
            twin = copy.deepcopy(encoder)
            twin.load_state_dict({key: value * 1.25 for key, value in encoder.state_dict().items()})
            assert not torch.equal(compute(twin, inputs, 20, "all", None), before)
            assert torch.equal(compute(encoder, inputs, 20, "all", None), before)


def test_norms_of_vectors_and_series_equal_group_norm() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(5, 3, 32, generator=generator)
    vector, series = VectorNorm(4, 32), SeriesNorm(16, 32)
    for norm in (vector, series):
        torch.nn.init.normal_(norm.weight, generator=generator)
        torch.nn.init.normal_(norm.bias, generator=generator)
    plain = torch.nn.functional.group_norm(x.flatten(0, 1), 4, vector.weight, vector.bias).view_as(x)
    assert_close(vector(x), plain)
    joint = torch.nn.functional.group_norm(x.mT, 16, series.weight, series.bias).mT
    heads = x.unflatten(-1, (16, -1)).transpose(1, 2)
    assert_close(series(heads).transpose(1, 2).flatten(2), joint)


@pytest.mark.slow
def test_random_weights_depend_on_the_seed_alone() -> None:
    one, same = full_encoder(), full_encoder()
    assert all(torch.equal(value, same.state_dict()[key]) for key, value in one.state_dict().items())
    other = full_encoder()
    other.init_random(4)
    assert not torch.equal(one.cls_token, other.cls_token)
    assert compute(one, s2_inputs(), 20, "all", None).isfinite().all()


def wrong(error: type[RSEmbedError], match: str, **changes: Any) -> Any:
    return pytest.param(error, match, changes, id=match)


@pytest.mark.parametrize(
    ("error", "match", "changes"),
    [
        wrong(SpecError, "multiple of 10 m, got 15", patch_m=15),
        wrong(SpecError, "multiple of 10 m, got 0", patch_m=0),
        wrong(SpecError, 'no modality "s3"', inputs={"s3": torch.zeros(1, 10, 8, 8)}),
        wrong(SpecError, "modis is not supported", inputs={"modis": torch.zeros(1, 2, 7, 8, 8)}),
        wrong(SpecError, 'input as dense, got "s1"', dense="s1"),
        wrong(InputError, "modalities for AnySat, got none", inputs={}),
        wrong(InputError, "s2 in whole patches of 30 m, got 8 x 8 px", patch_m=30),
        wrong(BandMismatch, "with 10 channels", inputs={"s2": torch.zeros(1, 2, 12, 8, 8)}),
        wrong(BandMismatch, r"s2 as \[batch, time, channel, height, width\]", inputs={"s2": torch.zeros(1, 10, 8, 8)}),
        wrong(BandMismatch, "with 3 channels", inputs={"spot": torch.zeros(1, 4, 80, 80)}),
        wrong(InputError, "Expected pixels for s2, got none", inputs={"s2": torch.zeros(1, 0, 10, 8, 8)}),
        wrong(InputError, r"date for each frame of s2, shape \[1, 3\]", dates={}),
        wrong(InputError, r"found: shape \[1, 2\]", dates={"s2": torch.zeros(1, 2)}),
        wrong(InputError, "got one for s1", masks={"s1": torch.ones(1, 3, 3, 8, 8)}),
        wrong(InputError, "mask of s2 in the shape", masks={"s2": torch.ones(1, 3, 8, 8)}),
        wrong(InputError, "same ground", extra={"spot": torch.zeros(1, 3, 90, 80)}),
        wrong(InputError, "same batch size", extra={"spot": torch.zeros(2, 3, 80, 80)}),
    ],
)
def test_what_does_not_fit_is_refused_with_a_fix(
    error: type[RSEmbedError], match: str, changes: dict[str, Any], encoder: AnySatEncoder
) -> None:
    given = s2_inputs()
    keywords: dict[str, Any] = {"inputs": given.values, "dates": given.dates, "patch_m": 20} | changes
    keywords["inputs"] = keywords["inputs"] | keywords.pop("extra", {})
    with pytest.raises(error, match=match) as caught:
        encoder.patches(**keywords)
    assert caught.value.fix


def test_a_network_with_an_unknown_modality_is_not_built() -> None:
    with pytest.raises(SpecError, match='no modality "s3"'):
        AnySatEncoder(dim=128, depth=1, heads=4, modalities=["s2", "s3"])
