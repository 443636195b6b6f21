"""Networks of any bands compute what the authors' code computes; kernels follow the wavelengths."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from wave_cases import CASES, GOLDEN, NAIP, S2, WIDE, Case, assert_close, small_encoder

from rs_embed.encoders.clay import CLAY_RECIPE, ClayEncoder, micrometre_code, place_code
from rs_embed.encoders.copernicusfm import CopernicusEncoder, fourier, spectrum_code
from rs_embed.encoders.dofa import DOFA_RECIPE, DofaEncoder
from rs_embed.encoders.tokens import Tokens
from rs_embed.encoders.waves import Wave, WavePatches
from rs_embed.errors import BandMismatch, InputError, SpecError


def run(encoder: torch.nn.Module, case: Case, **options) -> Tokens:
    return encoder(case.image, case.waves, **case.told, **options)


@pytest.mark.parametrize("name", CASES)
def test_tokens_are_those_of_the_authors_code(name):
    case = CASES[name]
    with np.load(GOLDEN / f"{name}.npz") as file:
        theirs = file["tokens"]
    with torch.inference_mode():
        tokens = run(small_encoder(case.family), case)
    ours = tokens.values[:, :: max(1, tokens.values.shape[1] // 20)]
    assert_close(ours, theirs)
    assert tokens.values.shape[1] == tokens.layout.length == 1 + tokens.layout.grids[0].length


@pytest.mark.parametrize("name", CASES)
def test_layers_are_side_by_side_and_the_last_is_the_whole_network(name):
    case = CASES[name]
    encoder = small_encoder(case.family)
    both, last = run(encoder, case, layers=(0, -1)).values, run(encoder, case).values
    assert both.shape[2] == 2 * last.shape[2]
    torch.testing.assert_close(both[..., last.shape[2] :], last)
    assert (both[..., : last.shape[2]] - last).abs().max() > 1e-2
    with pytest.raises(SpecError, match="layers"):
        run(encoder, case, layers=(7,))


@pytest.mark.parametrize("family", ["clay", "dofa", "copernicusfm"])
def test_bands_in_another_order_are_the_same_image(family):
    case = next(case for name, case in CASES.items() if name.startswith(family))
    encoder, order = small_encoder(family), list(range(len(case.waves)))[::-1]
    turned = encoder(case.image[:, order], tuple(case.waves[i] for i in order), **case.told)
    torch.testing.assert_close(turned.values, run(encoder, case).values, rtol=0, atol=1e-4)


def test_micrometres_and_nanometres_are_not_the_same_to_clay():
    """The authors' pages that multiply wavelengths by 1000 get other tokens than their training."""
    case = CASES["clay_s2"]
    encoder = small_encoder("clay")
    nanometres = replace(case, waves=tuple(Wave(1000 * wave.centre_um) for wave in case.waves))
    ours, theirs = run(encoder, case).values, run(encoder, nanometres).values
    assert (ours - theirs).norm() > 0.05 * ours.norm()


def test_kernels_are_generated_once_and_anew_with_other_weights():
    patches = WavePatches(dim=8, patch_px=16, recipe=DOFA_RECIPE).requires_grad_(False)
    with torch.no_grad():
        for parameter in patches.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        kernel, _ = patches.kernels(NAIP)
        assert patches.kernels(NAIP)[0] is kernel
        assert not kernel.is_inference()
        patches.load_state_dict({name: tensor + 1 for name, tensor in patches.state_dict().items()})
        assert (patches.kernels(NAIP)[0] - kernel).abs().max() > 1e-3


def test_a_kernel_of_clay_lies_channel_row_column_and_one_of_dofa_row_column_channel():
    for recipe, order in ((CLAY_RECIPE, (8, 4, 4)), (DOFA_RECIPE, (4, 4, 8))):
        patches = WavePatches(dim=8, patch_px=4, recipe=recipe)
        with torch.no_grad():
            for parameter in patches.parameters():
                parameter.zero_()
            patches.weight_generator.fc_weight.bias.copy_(torch.arange(128.0))
        kernel, _ = patches.kernels((Wave(0.5),))
        values = torch.arange(128.0).view(order) * recipe.scale
        expected = values if recipe.channels_first else values.permute(2, 0, 1)
        torch.testing.assert_close(kernel[:, 0], expected)


def test_half_precision_generates_kernels_in_full():
    encoder = small_encoder("dofa")
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        run(encoder, CASES["dofa_naip"])
        kernel, bias = encoder.patch_embed.kernels(NAIP)
    assert kernel.dtype == bias.dtype == torch.float32
    assert torch.equal(kernel, small_encoder("dofa").patch_embed.kernels(NAIP)[0])


def test_they_learn():
    for family in ("clay", "dofa", "copernicusfm"):
        case = next(case for name, case in CASES.items() if name.startswith(family))
        encoder = small_encoder(family).requires_grad_()
        run(encoder, case).values.square().sum().backward()
        generator = next(part for name, part in encoder.named_modules() if name.endswith("weight_generator"))
        assert generator.fc_weight.weight.grad.abs().max() > 0
        assert generator.weight_tokens.grad.abs().max() > 0


def test_clay_is_told_date_place_and_pixel_size_and_takes_images_that_are_not_square():
    case, encoder = CASES["clay_s2"], small_encoder("clay")
    known = run(encoder, case).values
    for change in ({"pixel_m": 30.0}, {"time": torch.zeros(2, 4)}, {"place": torch.zeros(2, 4)}):
        assert (run(encoder, replace(case, told={**case.told, **change})).values - known).abs().max() > 1e-3
    wide = encoder(case.image[..., :16, :], S2, **case.told)
    assert (wide.layout.grids[0].height, wide.layout.grids[0].width) == (2, 4)


def test_the_code_of_a_place_has_columns_first_and_grows_with_the_pixel():
    code = place_code(2, 3, 16, pixel_m=1.0)
    torch.testing.assert_close(code[1, :4], place_code(2, 3, 16, pixel_m=0.5)[2, :4])
    assert not code[1, 8:12].any()
    assert code[3, 8:12].all()


def test_copernicus_fm_has_learned_tokens_for_what_it_is_not_told():
    encoder, case = small_encoder("copernicusfm"), CASES["copernicusfm_told"]
    all_told = run(encoder, case).values
    for name in case.told:
        fewer = {key: value for key, value in case.told.items() if key != name}
        assert (run(encoder, replace(case, told=fewer)).values - all_told).abs().max() > 1e-3


def test_codes_of_numbers_are_computed_in_float64():
    """The shortest period of places is 0.0001 degrees: in float32 its phase would be lost."""
    values = torch.tensor([192.94])
    periods = np.logspace(-4, np.log10(720), 8)
    angle = 2 * np.pi * np.float64(np.float32(192.94)) / periods
    expected = np.concatenate([np.sin(angle), np.cos(angle)])
    np.testing.assert_allclose(fourier(values, (0.0001, 720.0), 16)[0], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: small_encoder("dofa")(torch.zeros(1, 3, 32, 32), NAIP), InputError, "4 x 4 patches, got 2 x 2"),
        (lambda: small_encoder("dofa")(torch.zeros(1, 3, 64, 64), S2), BandMismatch, "of 3 bands, got 10"),
        (lambda: small_encoder("copernicusfm")(torch.zeros(1, 5, 32, 48), WIDE), InputError, "squares, got 32 x 48"),
        (lambda: spectrum_code([Wave(0.5)]), BandMismatch, "bandwidths of 0.001 um"),
        (lambda: spectrum_code([Wave(0.05, 0.01)]), BandMismatch, "0.1 um to 1 m"),
        (lambda: told(area_km2=torch.tensor([0.0001])), InputError, "0.001 to 5.1e"),
        (lambda: told(days=torch.tensor([torch.nan])), InputError, "finite numbers for days"),
        (
            lambda: small_encoder("clay")(torch.zeros(2, 3, 20, 20), NAIP, **CASES["clay_naip"].told),
            InputError,
            "whole patches of 8 px, got 20 x 20",
        ),
    ],
)
def test_what_they_cannot_encode_is_refused(call, error, says):
    with pytest.raises(error) as caught:
        call()
    assert says in str(caught.value)
    assert caught.value.fix


def told(**values: torch.Tensor) -> Tokens:
    return small_encoder("copernicusfm")(torch.zeros(1, 5, 32, 32), WIDE, **values)


def test_random_weights_depend_on_the_seed_only():
    for make in (ClayEncoder, DofaEncoder, CopernicusEncoder):
        one, same, other = (make(dim=64, depth=1, heads=1) for _ in range(3))
        for encoder, seed in ((one, 0), (same, 0), (other, 1)):
            encoder.init_random(seed)
        assert torch.equal(one.cls_token, same.cls_token)
        assert not torch.equal(one.cls_token, other.cls_token)


def test_the_codes_of_wavelengths_are_sines_then_cosines():
    code = micrometre_code([Wave(0.5), Wave(2.19)])
    torch.testing.assert_close(code[:, 0], torch.tensor([0.5, 2.19]).sin())
    torch.testing.assert_close(code[:, 64], torch.tensor([0.5, 2.19]).cos())
