"""Our encoders in TerraTorch's registry: the same numbers, and gradients through everything."""

from importlib.util import find_spec

import numpy as np
import pytest
import torch
from numpy.random import default_rng

from rs_embed import OutputSpec, get_embedding
from rs_embed.encoders.thor.bands import resolve_bands
from rs_embed.encoders.thor.patchify import plan_geometry
from rs_embed.errors import BandMismatch, ChoiceWarning, InputError, SpecError, WeightsNotFound

pytestmark = pytest.mark.skipif(
    find_spec("terratorch") is None, reason="terratorch is not installed here: `make parity` runs this with it"
)
BANDS = ["BLUE", "GREEN", "RED", "RED_EDGE_1", "VV", "VH"]
SMALL = {"ground_covers": [640], "flexivit_patch_size_seqs": [8]}


@pytest.fixture(scope="module")
def registry():
    import rs_embed.terratorch  # noqa: F401  (registers)
    from rs_embed.embedders.runtime.terratorch import load_terratorch

    return load_terratorch().backbones


@pytest.fixture(scope="module")
def build(registry):
    def build(name="thor_v1_tiny", **options):
        return registry.build(name, pretrained=False, **options)

    return build


def images(channels: int, side: int, *before: int) -> torch.Tensor:
    return torch.from_numpy(default_rng(3).normal(size=(2, channels, *before, side, side)).astype(np.float32))


def test_importing_registers_every_size_beside_terratorchs_own(registry):
    ours = {"thor_v1_tiny", "thor_v1_small", "thor_v1_base", "thor_v1_large", "anysat_base"}
    assert ours < {name.removeprefix("terratorch_") for name in registry}
    assert "terramind_v1_tiny" in registry


def test_the_call_of_the_document_builds_the_base_model(registry):
    model = registry.build(
        "thor_v1_base",
        pretrained=False,
        model_bands=["BLUE", "GREEN", "RED", "VV", "VH"],
        input_params={"ground_covers": [2880], "flexivit_patch_size_seqs": [8]},
        out_indices=[-1],
    )
    assert model.out_channels == [768]
    with torch.no_grad():
        (tokens,) = model(images(5, 288)[:1])
    assert tokens.shape == (1, 36 * 36 * 2, 768)


@pytest.mark.parametrize("training", [False, True])
def test_thor_equals_the_librarys_encoder_bit_for_bit(build, training):
    backbone = build(model_bands=[*BANDS, "EW_HH_60"], input_params={**SMALL, "ground_covers": [960]})
    bands, sizes = resolve_bands([*BANDS, "EW_HH_60"])
    geometry = plan_geometry(bands, 960, (8,), gsd_m=sizes)
    x = images(7, 96)
    with torch.set_grad_enabled(training):
        found, expected = backbone(x), backbone.encoder(x, geometry).values
    assert len(found) == len(backbone.out_channels) == 12
    assert torch.equal(found[-1], expected)


@pytest.mark.parametrize("merge", ["mean", "sum", "concat"])
def test_maps_of_thor_are_the_grids_of_get_embedding_bit_for_bit(build, merge):
    params = {"ground_covers": [2880], "flexivit_patch_size_seqs": [16]}
    backbone = build(model_bands=BANDS[:4], input_params=params, merge_method=merge)
    x = images(4, 288)[0].abs() * 1000
    s2 = {"input_chw": x.numpy(), "bands": ["B2", "B3", "B4", "B5"], "normalize": "none", "group_merge": merge}
    grid = get_embedding("thor_1_0_tiny", pretrained=False, output=OutputSpec.grid(), **s2)
    with torch.inference_mode():
        found = backbone(x[None])[-1]
    assert found.shape[1] == backbone.out_channels[-1]
    assert np.array_equal(found[0].numpy(), grid.data)


def test_every_parameter_of_thor_that_wants_a_gradient_gets_one_and_so_do_the_pixels(build):
    backbone = build(model_bands=BANDS, input_params=SMALL, merge_method="mean", out_indices=[2, 5, 8, -1])
    x = images(6, 64).requires_grad_()
    sum(one.square().mean() for one in backbone(x)).backward()
    assert_trained(backbone, x)
    frozen = {name for name, one in backbone.encoder.named_parameters() if not one.requires_grad}
    assert {"norm.weight", "norm.bias", "band_embed.group2", "ind_patch_embed.patch_embed.S2:NIR.weight"} < frozen
    assert not any(name.startswith("blocks") for name in frozen)


def assert_trained(backbone, *inputs) -> None:
    for name, one in backbone.named_parameters():
        if one.requires_grad:
            assert one.grad is not None and one.grad.isfinite().all() and one.grad.abs().sum() > 0, name
        else:
            assert one.grad is None, name
    for x in inputs:
        assert x.grad.isfinite().all() and (x.grad.flatten(2).abs().sum(dim=2) > 0).all()


def test_what_a_step_changes_is_seen_by_the_next_evaluation(build):
    backbone = build(model_bands=BANDS, input_params=SMALL, out_indices=[-1])
    x = images(6, 64)
    with torch.inference_mode():
        before = backbone(x)[0].clone()
    optimizer = torch.optim.SGD([one for one in backbone.parameters() if one.requires_grad], lr=1.0)
    backbone(x)[0].square().mean().backward()
    optimizer.step()
    with torch.inference_mode():
        after = backbone(x)[0]
    with torch.enable_grad():
        torch.testing.assert_close(after, backbone(x)[0].detach(), rtol=1e-4, atol=1e-5)
    assert (before - after).abs().max() > 1e-3


def test_modalities_of_thor_come_by_name_in_any_order(build):
    bands = {"S2L2A": BANDS[:4], "S1GRD": BANDS[4:]}
    backbone = build(model_bands=bands, input_params=SMALL, out_indices=[-1]).eval()
    x = images(6, 64)
    with torch.inference_mode():
        found = backbone({"S1GRD": x[:, 4:], "S2L2A": x[:, :4]}, filename=["a", "b"])
        assert torch.equal(found[0], backbone(x)[0])
    with pytest.raises(BandMismatch, match="Expected S2L2A, S1GRD, got S1GRD"):
        backbone({"S1GRD": x[:, 4:]})


def test_options_are_taken_by_the_names_that_the_authors_have_used_since(build):
    older = build(model_bands=BANDS, input_params=SMALL | {"select_patch_strategy": "max"}, out_indices=[-1])
    newer = build(model_bands=BANDS, ground_cover=640, patch_sizes=8, select_patch_strategy="max", out_indices=[-1])
    x = images(6, 64)
    with torch.inference_mode():
        assert torch.equal(older(x)[0], newer(x)[0])


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"model_bands": ["BLUE", "CIRRUS"]}, BandMismatch, "CIRRUS"),
        ({"model_bands": ["BLUE"], "new_bands": {"YELLOW": "GREEN"}}, BandMismatch, "YELLOW, which model_bands lacks"),
        ({"model_bands": ["RED", "BLUE"], "new_bands": {"RED": "BLUE"}}, BandMismatch, "THOR does not know.*got 'RED'"),
        ({"model_bands": ["YELLOW"], "new_bands": {"YELLOW": "GREN"}}, BandMismatch, "GREN"),
        ({"merge_method": "median"}, SpecError, "merge_method"),
        ({"out_indices": [12]}, SpecError, "out_indices between -12 and 11"),
        ({"input_params": {"ground_covers": [2880, 1440]}}, SpecError, "one ground cover"),
        ({"input_params": {"flexivit_ref_patch_size": 8}}, SpecError, "got flexivit_ref_patch_size"),
        ({"input_params": {"ground_covers": [1000]}}, SpecError, "1000 m"),
        ({"pretrained": True, "ckpt": "nowhere.pt"}, WeightsNotFound, "nowhere.pt"),
    ],
)
def test_options_of_thor_that_cannot_be_say_so(registry, options, error, match):
    with pytest.raises(error, match=match):
        registry.build("thor_v1_tiny", **{"pretrained": False, **options})


def test_weights_of_a_fine_tuned_backbone_serve_the_library_as_a_checkpoint(registry, build, tmp_path):
    options = {"model_bands": BANDS[:4], "input_params": {"ground_covers": [2880], "flexivit_patch_size_seqs": [16]}}
    options |= {"merge_method": "mean", "out_indices": [-1]}
    trained, file, x = build(**options), tmp_path / "trained.pt", images(4, 288)[:1].abs() * 1000
    with torch.no_grad():
        for one in trained.parameters():
            one.add_(0.01 * torch.randn_like(one))
    torch.save(trained.encoder.state_dict(), file)
    again = registry.build("thor_v1_tiny", ckpt=str(file), **options)
    s2 = {"input_chw": x[0].numpy(), "bands": ["B2", "B3", "B4", "B5"], "normalize": "none"}
    grid = get_embedding("thor_1_0_tiny", ckpt=file, output=OutputSpec.grid(), **s2)
    with torch.inference_mode():
        (expected,) = trained(x)
        assert torch.equal(again(x)[0], expected)
    assert np.array_equal(grid.data, expected[0].numpy())


def test_new_bands_join_a_group_with_new_kernels_and_all_else_is_that_of_the_checkpoint(registry, build, tmp_path):
    """Ten bands of Sentinel-2 and one that THOR does not know."""
    known = [*BANDS[:4], "NIR_BROAD", "NIR_NARROW", "RED_EDGE_2", "RED_EDGE_3", "SWIR_1", "SWIR_2"]
    small = {"input_params": {"ground_covers": [320], "flexivit_patch_size_seqs": [8]}, "merge_method": "mean"}
    trained, file = build(model_bands=known, **small), tmp_path / "trained.pt"
    torch.save(trained.encoder.state_dict(), file)
    call = {"ckpt": str(file), "model_bands": [*known, "YELLOW"], "new_bands": {"YELLOW": "GREEN"}, **small}
    with pytest.warns(ChoiceWarning, match="not trained with YELLOW: these patch kernels start from random numbers"):
        wider = registry.build("thor_v1_tiny", **call)
    held, found = trained.encoder.state_dict(), wider.encoder.state_dict()
    new = {"ind_patch_embed.patch_embed.YELLOW.weight", "ind_patch_embed.patch_embed.YELLOW.bias"}
    assert set(found) - set(held) == new
    assert all(torch.equal(found[name], values) for name, values in held.items())
    assert found["ind_patch_embed.patch_embed.YELLOW.weight"].std() > 0.01
    x = images(11, 32)
    x[:, 10] = 0  # a kernel without pixels adds its bias, which is taken out here
    with torch.no_grad():
        wider.encoder.get_parameter("ind_patch_embed.patch_embed.YELLOW.bias").zero_()
        for name in ("Red", "Green", "Blue", "NIR"):  # a token is the mean of its bands: five here, four there
            for kind in ("weight", "bias"):
                wider.encoder.get_parameter(f"ind_patch_embed.patch_embed.S2:{name}.{kind}").mul_(5 / 4)
        torch.testing.assert_close(wider(x)[-1], trained(x[:, :10])[-1], rtol=0, atol=2e-5)
        before = wider(x)[-1]
        x[:, 10] = 1
        assert (wider(x)[-1] - before).abs().max() > 1e-3
    sum(one.square().sum() for one in wider(x)).backward()
    assert_trained(wider)
    torch.save(wider.encoder.state_dict(), file)  # a file of these bands gives back their kernels, without a warning
    assert torch.equal(registry.build("thor_v1_tiny", **call)(x)[-1], wider(x)[-1])


def test_terratorchs_own_terramind_takes_known_bands_from_the_checkpoint_and_invents_the_rest(registry):
    """What the page says of `bands`, a modality of one's own and `in_chans`."""

    def build(**options):
        return registry.build("terratorch_terramind_v1_tiny", pretrained=False, **options).state_dict()

    def kernels(state, bands):
        (weight,) = (values for name, values in state.items() if name.endswith("proj.weight") and "embeddings" in name)
        return weight.view(192, 256, bands)

    torch.manual_seed(2)
    whole = kernels(build(modalities=["S2L2A"]), 12)
    torch.manual_seed(2)
    planet = build(modalities=["S2L2A"], bands={"S2L2A": ["BLUE", "GREEN", "RED", "NIR_BROAD", "YELLOW"]})
    assert torch.equal(kernels(planet, 5)[..., :4], whole[..., [1, 2, 3, 7]])
    assert not any(torch.equal(kernels(planet, 5)[..., 4], one) for one in whole.unbind(dim=2))
    own = build(modalities=[{"PLANET": 4}])
    assert {name for name in own if "embeddings" in name} == {
        f"encoder_embeddings.PLANET.{part}" for part in ("mod_emb", "pos_emb", "proj.weight")
    }
    assert kernels(build(modalities=["S2L2A"], in_chans=4), 12).shape == whole.shape  # in_chans has no effect here


ANYSAT = {"modalities": ["s2", "s1-asc"], "patch_size_m": 40, "days": [10, 200]}


@pytest.fixture(scope="module")
def tiny_anysat():
    from tiny import TINY_ANYSAT

    from rs_embed.terratorch import build_anysat

    return lambda **options: build_anysat(TINY_ANYSAT, pretrained=False, **{**ANYSAT, **options})


def anysat_inputs(side: int = 16) -> dict[str, torch.Tensor]:
    return {"s2": images(10, side, 2), "s1-asc": images(2, side, 2)}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("output", ["patch", "dense", "tile"])
def test_anysat_equals_the_librarys_encoder_bit_for_bit(tiny_anysat, output, training):
    backbone, x = tiny_anysat(output=output), anysat_inputs()
    inputs = {name: values.transpose(1, 2) for name, values in x.items()}
    call = {"dates": dict.fromkeys(x, torch.tensor([[10, 200]] * 2)), "patch_m": 40}
    with torch.set_grad_enabled(training):
        (found,) = backbone(x)
        if output == "dense":
            expected = backbone.encoder.dense(inputs, **call, raster=True)
        else:
            values = backbone.encoder(inputs, **call).values
            expected = values[:, :1] if output == "tile" else values[:, 1:].mT.reshape(2, 64, 4, 4)
    assert torch.equal(found, expected)
    assert found.shape[2 if output == "tile" else 1] == backbone.out_channels[0]


@pytest.mark.parametrize("output", ["patch", "dense", "tile"])
def test_every_parameter_of_anysat_that_wants_a_gradient_gets_one_and_so_do_the_pixels(tiny_anysat, output):
    backbone, x = tiny_anysat(output=output), anysat_inputs()
    for one in x.values():
        one.requires_grad_()
    backbone(x)[0].square().mean().backward()
    assert_trained(backbone, *x.values())


def test_anysat_takes_one_image_and_its_day_and_the_batchs_own_dates_first(tiny_anysat):
    backbone = tiny_anysat(modalities=["s2"], days=[10]).eval()
    x = images(10, 16)
    with torch.inference_mode():
        (alone,), (series,) = backbone(x), backbone(x[:, :, None])
        (dated,) = backbone(x, dates={"s2": torch.tensor([[200], [200]])})
    assert torch.equal(alone, series)
    assert not torch.equal(alone, dated)
    with pytest.raises(InputError, match="a day for each of 2 frames of s2, got 1"):
        backbone(images(10, 16, 2))


def test_the_full_size_anysat_is_built_by_its_registered_name(build):
    backbone = build("anysat_base", modalities=["s2"], days=[182])
    with torch.no_grad():
        (grid,) = backbone(images(10, 16)[:1])
    assert grid.shape == (1, 768, 4, 4) and backbone.out_channels == [768]
