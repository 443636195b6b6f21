"""Networks of any bands beside the packages that hold the authors' code: the same weights, pixels and numbers.

`make parity` runs this in an environment of its own; elsewhere it is skipped. Weights are random: arithmetic, layout
and what the networks are told are compared, not quality.
"""

import json
import warnings
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
import wave_references as references
from wave_cases import CASES, GOLDEN, NAIP, RADAR, S2, WIDE, Case, assert_close, shapes_of, weights

from rs_embed import OutputSpec, PointBuffer, TemporalSpec, get_embedding
from rs_embed.embedders.catalog import get_card
from rs_embed.encoders.clay import ClayEncoder
from rs_embed.encoders.copernicusfm import CopernicusEncoder
from rs_embed.encoders.dofa import DofaEncoder
from rs_embed.encoders.waves import Wave
from rs_embed.testing import FieldProvider, pixel_centres

pytestmark = [
    pytest.mark.skipif(find_spec("terratorch") is None, reason="torchgeo is not installed here: `make parity`"),
    pytest.mark.filterwarnings("ignore:More than 5%:rs_embed.errors.PixelWarning"),
]
SUMMER = TemporalSpec.range("2022-06-01", "2022-09-01")
OURS = {"clay": ClayEncoder, "dofa": DofaEncoder, "copernicusfm": CopernicusEncoder}
CALLS = {
    "clay_v1_5_large": [
        Case("clay", S2, 128, CASES["clay_s2"].told),
        Case("clay", (Wave(3.5), Wave(4.0)), 64, CASES["clay_naip"].told),
    ],
    "dofa_base_patch16_224": [Case("dofa", S2[:9], 224, {}), Case("dofa", NAIP, 224, {})],
    "copernicusfm_base": [
        Case("copernicusfm", WIDE, 224, CASES["copernicusfm_told"].told),
        Case("copernicusfm", RADAR, 96, {}),
        replace(CASES["copernicusfm_told"], side_px=160),
    ],
}


@pytest.mark.parametrize("name", CALLS)
def test_every_token_of_the_published_size_is_that_of_the_authors_code(name):
    family, size = references.PUBLISHED[name]
    module = references.BUILDERS[family](**size)
    state = weights(shapes_of(module))
    module.load_state_dict(state)
    if family != "clay":
        module.fc_norm = torch.nn.Identity()
    encoder = OURS[family](**size)
    encoder.load_state_dict({own: state[own] for own in encoder.state_dict()})
    encoder.eval().requires_grad_(False)
    for case in CALLS[name]:
        with torch.inference_mode():
            ours = encoder(case.image, case.waves, **case.told).values
        assert_close(ours, references.tokens_of(module, case))


@pytest.mark.parametrize("name", CASES)
def test_golden_cases_are_what_the_packages_compute(name):
    case = CASES[name]
    tokens = references.tokens_of(references.small_reference(case.family), case)
    with np.load(GOLDEN / f"{name}.npz") as file:
        assert_close(file["tokens"], tokens[:, :: max(1, tokens.shape[1] // 20)])


@pytest.mark.parametrize("name", references.PUBLISHED)
def test_manifests_are_those_of_the_packages(name):
    family, size = references.PUBLISHED[name]
    with torch.device("meta"):
        shapes = references.published_shapes(references.BUILDERS[family](**size))
    assert json.loads((references.MANIFESTS / f"{name}.json").read_text())["tensors"] == shapes


def hubs(weights_enum) -> tuple[str, str, str]:
    owner, name, _, revision, file = weights_enum.url.split("://")[1].partition("/")[2].split("/")
    return f"{owner}/{name}", revision, file


def test_cards_name_the_files_that_torchgeo_names():
    from torchgeo.models import CopernicusFM_Base_Weights, DOFABase16_Weights, DOFALarge16_Weights

    for model_id, published in (
        ("dofa_1_0_base", DOFABase16_Weights.DOFA_MAE),
        ("dofa_1_0_large", DOFALarge16_Weights.DOFA_MAE),
        ("copernicus_fm_base", CopernicusFM_Base_Weights.CopernicusFM_ViT),
    ):
        card = get_card(model_id)
        assert (card.weights.hub, card.weights.revision, card.weights.file) == hubs(published)


def chip_and_grid(model_id: str, ckpt: Path, side_px: int, **options):
    provider = FieldProvider()
    place = PointBuffer(lon=12.94, lat=47.77, buffer_m=side_px * 5)
    call = {"output": OutputSpec.grid(), "input_prep": "crop", "ckpt": ckpt} | options
    grid = get_embedding(model_id, place, SUMMER, backend=provider, **call)
    return provider.fetch(provider.queries[0]), grid.data.reshape(len(grid.data), -1).T


def standardised(chip, stats) -> torch.Tensor:
    mean, std = (np.array([getattr(one, part) for one in stats]) for part in ("mean", "std"))
    return torch.from_numpy(((chip.values[0].T - mean) / std).T.astype(np.float32))[None]


def test_embeddings_of_dofa_are_those_of_terratorch_through_which_it_ran_at_first(tmp_path):
    from rs_embed.embedders.runtime.terratorch import leaving_no_trace, load_terratorch

    stats = get_card("dofa_1_0_base").modality("s2").stats
    with leaving_no_trace(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        backbones = load_terratorch().backbones
        bands = [one.model_name for one in stats.values()]
        module = backbones.build(
            "dofa_base_patch16_224", pretrained=False, model_bands=bands, num_classes=0, out_indices=[3, 11]
        ).eval()
    state = weights(shapes_of(module.dofa_model))
    module.dofa_model.load_state_dict(state)
    file = tmp_path / "dofa.pth"
    torch.save({name: one for name, one in state.items() if not name.startswith(references.NOT_IN_THE_FILE)}, file)
    chip, grid = chip_and_grid("dofa_1_0_base", file, 224, layers=[3, 11])
    x = standardised(chip, stats.values())
    limits = torch.tensor([(one.highest - one.mean) / one.std for one in stats.values()])[:, None, None]
    with torch.inference_mode():
        theirs = module(x.minimum(limits))
    assert_close(grid, torch.cat([one[0, 1:] for one in theirs], dim=1))


def test_embeddings_of_clay_are_told_what_the_authors_network_is_told(tmp_path):
    """Shrunken, as the whole network stands above."""
    card = get_card("clay_1_5_large")
    small = replace(card, id="clay_parity", dim=64, arch={"dim": 64, "depth": 2, "heads": 1}, aliases=())
    module = references.small_reference("clay")
    file = tmp_path / "clay.ckpt"
    torch.save({"state_dict": {f"model.encoder.{name}": one for name, one in module.state_dict().items()}}, file)
    chip, grid = chip_and_grid(small, file, 64)
    week = 22 * 2 * np.pi / 52
    lon, lat = (np.radians(np.median(degrees)) for degrees in pixel_centres(chip.geobox))
    told = {
        "pixels": standardised(chip, card.modality("s2").stats.values()),
        "time": torch.tensor([[np.sin(week), np.cos(week), 0, 1]]).float(),
        "latlon": torch.tensor([[np.sin(lat), np.cos(lat), np.sin(lon), np.cos(lon)]]).float(),
        "gsd": torch.tensor(10.0),
        "waves": torch.tensor([one.wavelength_um for one in card.modality("s2").stats.values()]),
    }
    with torch.inference_mode():
        theirs = module(told)[0][0, 1:]
    torch.testing.assert_close(torch.from_numpy(grid), theirs, rtol=0, atol=1e-4)  # centres differ by half a pixel
