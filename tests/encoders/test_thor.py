"""The encoder computes what the official THOR code computes, in any geometry and after weights change."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import jaxtyping
import pytest
import torch
from golden_cases import CASES, GOLDEN, Case, golden_encoder, read_arrays, read_config, read_weights
from safetensors.torch import load_file

from rs_embed.embedders._vit_mae_utils import pool, to_grid
from rs_embed.encoders.thor.encoder import GEOMETRIES_KEPT, ThorEncoder, alibi_slopes
from rs_embed.encoders.thor.patchify import plan_geometry, resize_kernel
from rs_embed.errors import BandMismatch, InputError

SIZES = {
    "tiny": {"dim": 192, "depth": 12, "heads": 3, "band_dim": 32},
    "small": {"dim": 384, "depth": 12, "heads": 6, "band_dim": 64},
    "base": {"dim": 768, "depth": 12, "heads": 12, "band_dim": 128},
    "large": {"dim": 1024, "depth": 24, "heads": 16, "band_dim": 256},
}
S2_GEOMETRY = plan_geometry(["S2:Red", "S2:NIR", "S2:RE1"], 320, [8])
"""16 tokens of 80 m and 4 of 160 m."""


def assert_close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=2e-5 + 5e-6 * expected.abs().max().item())


def s2_images(batch: int = 1) -> torch.Tensor:
    return torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(batch))


@pytest.mark.parametrize("name", CASES)
def test_every_stage_equals_the_official_code(name: str, encoder: ThorEncoder, cases: dict[str, Case]) -> None:
    images, geometry, expected = cases[name].images, cases[name].geometry, cases[name].expected
    with torch.inference_mode():
        tokens = encoder(images, geometry)
        actual = {
            "embed": encoder.embed(images, geometry),
            "last_norm": encoder(images, geometry, final_norm=True).values,
            "alibi": encoder.distances(geometry).dense(torch.float32)[0],
            "merge_mean": to_grid(tokens.values, tokens.layout, "mean"),
            "merge_sum": to_grid(tokens.values, tokens.layout, "sum"),
            "merge_concat": to_grid(tokens.values, tokens.layout, "concat"),
        }
        for i, block in enumerate(encoder.intermediates(images, geometry)):
            actual[f"block{i}"] = block
    assert torch.equal(tokens.values, actual["block1"])
    for output, values in expected.items():
        assert_close(actual[output], values)


@pytest.mark.parametrize("name", CASES)
def test_the_planned_geometry_equals_the_official_one(name: str, cases: dict[str, Case]) -> None:
    config, groups = read_config(name), cases[name].geometry.groups
    assert {group.name: list(group.bands) for group in groups} == config["groups_in_token_order"]
    assert [group.name for group in groups] == list(config["groups_in_token_order"])
    for group in groups:
        params = {"GSD": group.gsd_m, "num_patch": group.side, "patch_size": group.patch_px}
        assert [config["channel_params"][band] for band in group.bands] == [params] * len(group.bands)
        assert [config["thor_bands"][channel] for channel in group.channels] == list(group.bands)


def test_resized_kernels_equal_the_official_ones() -> None:
    kernel = read_weights()[read_config("thor_patch_resize")["key"]]
    for name, expected in read_arrays(GOLDEN / "thor_patch_resize" / "outputs.npz").items():
        assert_close(resize_kernel(kernel[:8], int(name.removeprefix("to_")))[:, 0], expected)
    assert resize_kernel(kernel, 16) is kernel


@pytest.mark.parametrize("size", SIZES)
def test_key_names_and_shapes_equal_the_manifest(size: str) -> None:
    manifest = json.loads((GOLDEN / "manifests" / f"thor_v1_{size}.json").read_text())["tensors"]
    with torch.device("meta"):
        encoder = ThorEncoder(**SIZES[size])
    assert {key: list(value.shape) for key, value in encoder.state_dict().items()} == manifest


def test_slopes_of_heads_that_are_no_power_of_two_are_the_stored_ones() -> None:
    for name in CASES:
        assert alibi_slopes(3) == read_config(name)["encoder_slopes"]
    assert alibi_slopes(16) == [2 ** (-k / 2) for k in range(1, 17)]
    assert alibi_slopes(12) == alibi_slopes(8) + alibi_slopes(16)[:8:2]


def test_one_object_serves_geometries_in_any_order(cases: dict[str, Case]) -> None:
    encoder = golden_encoder()
    small = [name for name in CASES if cases[name].expected["block1"].shape[1] < 400]
    assert len(small) > 2 * GEOMETRIES_KEPT
    order = torch.randint(len(small), (25,), generator=torch.Generator().manual_seed(0)).tolist()
    with torch.inference_mode():
        for i in order:
            case = cases[small[i]]
            assert_close(encoder(case.images, case.geometry).values, case.expected["block1"])


def test_a_geometry_in_use_is_not_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = golden_encoder()
    with torch.no_grad():
        first = encoder(s2_images(), S2_GEOMETRY).values
        monkeypatch.setattr(ThorEncoder, "distances", None)
        monkeypatch.setattr(type(encoder.ind_patch_embed), "merge", None)
        assert torch.equal(encoder(s2_images(), S2_GEOMETRY).values, first)


@pytest.mark.parametrize("assign", [False, True])
def test_loading_other_weights_forgets_what_was_cached(assign: bool) -> None:
    encoder = golden_encoder()
    holder = torch.nn.Sequential(encoder)
    other = {f"0.{key}": value * 1.5 for key, value in read_weights().items()}
    with torch.inference_mode():
        encoder(s2_images(), S2_GEOMETRY)
    holder.load_state_dict(other, assign=assign)
    fresh = ThorEncoder(dim=48, depth=2, heads=3, band_dim=8).eval()
    fresh.load_state_dict({key.removeprefix("0."): value for key, value in other.items()})
    with torch.inference_mode():
        actual, expected = encoder(s2_images(), S2_GEOMETRY), fresh(s2_images(), S2_GEOMETRY)
    assert torch.equal(actual.values, expected.values)


def test_a_copy_does_not_share_what_was_cached() -> None:
    encoder = golden_encoder()
    with torch.no_grad():
        expected = encoder(s2_images(), S2_GEOMETRY).values
        twin = copy.deepcopy(encoder)
        twin.load_state_dict({key: 0 * value for key, value in read_weights().items()})
        assert twin.embed(s2_images(), S2_GEOMETRY)[..., -8:].eq(0).all()  # no kernel, no band embedding left
        assert torch.equal(encoder(s2_images(), S2_GEOMETRY).values, expected)


def test_an_encoder_built_without_storage_works_once_weights_are_assigned() -> None:
    with torch.device("meta"):
        encoder = ThorEncoder(dim=48, depth=2, heads=3, band_dim=8)
    encoder.load_state_dict(read_weights(), assign=True)
    with torch.inference_mode():
        actual = encoder.eval()(s2_images(), S2_GEOMETRY)
        assert torch.equal(actual.values, golden_encoder()(s2_images(), S2_GEOMETRY).values)


def test_a_batch_of_three_equals_three_single_inputs(encoder: ThorEncoder) -> None:
    images = s2_images(3)
    with torch.inference_mode():
        together = encoder(images, S2_GEOMETRY).values
        apart = [encoder(image[None], S2_GEOMETRY).values for image in images]
    assert_close(together, torch.cat(apart))


def test_one_pixel_changes_the_tokens_of_one_image_only(encoder: ThorEncoder) -> None:
    images = s2_images(3)
    changed = images.clone()
    changed[1, 0, 5, 7] += 1
    with torch.inference_mode():
        before, after = encoder(images, S2_GEOMETRY).values, encoder(changed, S2_GEOMETRY).values
    assert (before != after).any(dim=(1, 2)).tolist() == [False, True, False]


def test_gradients_reach_the_weights_even_after_inference() -> None:
    encoder = golden_encoder()
    with torch.inference_mode():
        encoder(s2_images(), S2_GEOMETRY)
    for mode in (True, False):
        encoder.train(mode)
        encoder.zero_grad()
        pool(encoder(s2_images(), S2_GEOMETRY).values, S2_GEOMETRY.layout).square().sum().backward()
        without = {name for name, parameter in encoder.named_parameters() if parameter.grad is None}
        assert {name for name in without if name.startswith("blocks")} == set()
        kernels = [encoder.get_parameter(f"ind_patch_embed.patch_embed.S2:{b}.weight") for b in ("Red", "RE1")]
        assert all(kernel.grad is not None and kernel.grad.abs().sum() > 0 for kernel in kernels)
        assert encoder.band_embed["group0"].grad is not None
        assert "ind_patch_embed.patch_embed.S2:Blue.weight" in without


@pytest.mark.slow
def test_a_training_step_is_seen_by_the_next_inference() -> None:
    encoder = golden_encoder()
    with torch.no_grad():
        before = encoder.embed(s2_images(), S2_GEOMETRY)
    optimiser = torch.optim.SGD(encoder.parameters(), lr=0.1)
    encoder(s2_images(), S2_GEOMETRY).values.square().mean().backward()
    optimiser.step()
    with torch.no_grad():
        after = encoder.embed(s2_images(), S2_GEOMETRY)
        encoder.drop_cached()
        assert torch.equal(after, encoder.embed(s2_images(), S2_GEOMETRY))
    assert not torch.equal(after, before)


def test_a_north_south_ramp_stays_north_south() -> None:
    encoder = golden_encoder()
    with torch.no_grad():
        for kernel in encoder.ind_patch_embed.parameters():
            kernel.fill_(1.0)  # every token then holds the sum of its pixels
    ramp = torch.linspace(0, 1, 32).view(1, 1, 32, 1).expand(1, 3, 32, 32)
    with torch.inference_mode():
        for merge in ("mean", "sum", "concat"):
            grid = to_grid(encoder.embed(ramp, S2_GEOMETRY), S2_GEOMETRY.layout, merge)
            assert (grid.diff(dim=2) > 0).all()
            assert torch.allclose(grid.diff(dim=3), torch.zeros(()), atol=1e-4)


def test_bfloat16_autocast_keeps_the_direction_of_every_token(encoder: ThorEncoder, cases: dict[str, Case]) -> None:
    for case in (cases["thor_s2_12band_gc960_p8"], cases["thor_s2_gc1280_p32"]):
        with torch.inference_mode():
            exact = encoder(case.images, case.geometry).values
            with torch.autocast("cpu", dtype=torch.bfloat16):
                rough = encoder(case.images, case.geometry).values
        assert rough.dtype == torch.float32
        assert torch.cosine_similarity(exact, rough, dim=2).min() > 0.99


def test_bfloat16_training_works_after_bfloat16_inference() -> None:
    encoder = golden_encoder()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with torch.inference_mode():
            encoder(s2_images(), S2_GEOMETRY)
        encoder(s2_images(), S2_GEOMETRY).values.sum().backward()
    assert encoder.norm.weight.grad is None
    assert encoder.band_embed["group1"].grad is not None


def random_encoder(seed: int) -> ThorEncoder:
    with torch.device("meta"):
        encoder = ThorEncoder(dim=48, depth=2, heads=3, band_dim=8)
    encoder.to_empty(device="cpu").init_random(seed)
    return encoder.eval()


def test_random_weights_depend_on_the_seed_alone_and_leave_torch_as_it_was() -> None:
    state = torch.get_rng_state()
    one, same, other = random_encoder(1), random_encoder(1), random_encoder(2)
    assert torch.equal(torch.get_rng_state(), state)
    for key, value in one.state_dict().items():
        assert torch.equal(value, same.state_dict()[key]), key
    kernel = "ind_patch_embed.patch_embed.S2:Red.weight"
    assert not torch.equal(one.state_dict()[kernel], other.state_dict()[kernel])
    assert one.state_dict()[kernel].abs().max() <= 0.04
    assert one.encoder_slopes.tolist() == alibi_slopes(3)
    assert (one.norm.weight == 1).all()
    assert (one.norm.bias == 0).all()


@pytest.mark.slow
def test_random_weights_load_strictly_and_are_equal_in_another_process(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom safetensors.torch import save_file\n"
        "from rs_embed.encoders.thor.encoder import ThorEncoder\n"
        "encoder = ThorEncoder(dim=48, depth=2, heads=3, band_dim=8); encoder.init_random(7)\n"
        "save_file(encoder.state_dict(), sys.argv[1])"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code, tmp_path / "w.safetensors"], check=True)
    encoder = ThorEncoder(dim=48, depth=2, heads=3, band_dim=8).eval()
    encoder.load_state_dict(load_file(tmp_path / "w.safetensors"), strict=True)
    with torch.inference_mode():
        actual, expected = encoder(s2_images(), S2_GEOMETRY), random_encoder(7)(s2_images(), S2_GEOMETRY)
    assert torch.equal(actual.values, expected.values)


def test_images_with_other_channels_are_refused(encoder: ThorEncoder) -> None:
    with pytest.raises(BandMismatch, match="Expected 3 channels for this geometry, got 4") as caught:
        encoder(torch.zeros(1, 4, 32, 32), S2_GEOMETRY)
    assert "S2:Red, S2:NIR, S2:RE1" in str(caught.value)


def test_images_that_are_not_square_are_refused(encoder: ThorEncoder) -> None:
    with pytest.raises(InputError, match="32 x 40 px"):
        encoder(torch.zeros(1, 3, 32, 40), S2_GEOMETRY)


def test_shapes_in_annotations_are_checked_in_this_run(encoder: ThorEncoder) -> None:
    with pytest.raises(jaxtyping.TypeCheckError):
        encoder(torch.zeros(3, 32, 32), S2_GEOMETRY)
