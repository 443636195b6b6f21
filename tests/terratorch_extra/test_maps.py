"""Land cover and NDVI as inputs of TerraMind, beside the authors' own model; weights are random."""

from importlib.util import find_spec

import numpy as np
import pytest
import torch

if find_spec("terratorch") is None:
    pytest.skip("terratorch is not installed here: `make parity` runs this with it", allow_module_level=True)

from authors import build, checkpoint, load_as_the_authors_do, pixels, standardised
from torch import nn

from rs_embed import LocalRasters, OutputSpec, PointBuffer, generate, get_embedding, get_embeddings
from rs_embed.embedders.cards.terramind import MAP_NAMES
from rs_embed.embedders.cards.terramind_tokens import TOKENS
from rs_embed.embedders.imagining.tokenizers import tokenizer_for
from rs_embed.errors import InputError, WeightsMismatch, WeightsNotFound
from rs_embed.testing import FieldProvider

TINY = "terramind_1_0_tiny"
GRID = OutputSpec.grid()


def random_tokenizer(name):
    return tokenizer_for(name, None, pretrained=False, device=torch.device("cpu")).network.module


@pytest.fixture(scope="module")
def ckpt(tmp_path_factory):
    path = checkpoint(tmp_path_factory.mktemp("weights"), "terramind_v1_tiny")
    yield path
    path.unlink()


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    """Knobs that name files of the random tokenizers."""
    folder = tmp_path_factory.mktemp("tokenizers")
    files = {f"{name.lower()}_tokenizer": folder / f"{name}.pt" for name in MAP_NAMES}
    for name, path in zip(MAP_NAMES, files.values(), strict=True):
        torch.save(random_tokenizer(name).state_dict(), path)
    yield files
    for path in files.values():
        path.unlink()


def theirs(ckpt, held, merge):
    """Layers of the authors' model for one place; its tokenizers have the weights of ours."""
    model = build("terramind_v1_tiny", modalities=list(held), merge_method=merge)
    load_as_the_authors_do(model, ckpt)
    maps = [one for one in MAP_NAMES if one in held]
    model.tokenizer = nn.ModuleDict({TOKENS[one].key: random_tokenizer(one) for one in maps})
    with torch.inference_mode():
        return model({one: standardised(one, values) for one, values in held.items()})


def assert_close(ours, theirs):
    tolerance = 2e-5 + 5e-6 * theirs.abs().max().item()
    torch.testing.assert_close(torch.as_tensor(np.asarray(ours)), theirs, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("given", "merge"), [(("S2L2A", "LULC"), "mean"), (("NDVI", "S1GRD", "LULC"), "concat"), (("LULC",), "none")]
)
def test_maps_become_the_tokens_that_terratorch_makes_of_them(ckpt, tokenizers, given, merge):
    held = {name: pixels(name, 96, 96) for name in given}
    layers = theirs(ckpt, held, None if merge == "none" else merge)
    call = {"input_chw": held, "ckpt": ckpt, **tokenizers, "merge_method": merge, "layers": [3, 11]}
    both = torch.cat([layers[3], layers[11]], dim=2)[0]
    if merge == "none":
        assert_close(get_embedding(TINY, **call).data, both.mean(dim=0))
    else:
        assert_close(get_embedding(TINY, **call, output=GRID).data, both.T.reshape(-1, 6, 6))


def test_a_map_counts_and_its_tokenizer_is_named_by_its_content(ckpt, tokenizers):
    imagery, cover = pixels("S2L2A", 64, 64), pixels("LULC", 64, 64)
    call = {"ckpt": ckpt, **tokenizers}
    both = get_embedding(TINY, input_chw={"S2L2A": imagery, "LULC": cover}, **call)
    other = get_embedding(TINY, input_chw={"S2L2A": imagery, "LULC": np.flip(cover, 1)}, **call)
    alone = get_embedding(TINY, input_chw={"S2L2A": imagery}, **call)
    assert np.abs(both.data - other.data).max() > 1e-3
    assert np.abs(both.data - alone.data).max() > 1e-3
    assert both.meta.knobs["lulc_tokenizer"].startswith("ckpt:LULC.pt#sha256:")
    assert (both.meta.knobs["ndvi_tokenizer"], alone.meta.knobs["lulc_tokenizer"]) == (None, None)
    assert both.meta.modality == ("S2L2A", "LULC")
    fast = get_embedding(TINY, input_chw={"S2L2A": imagery, "LULC": cover}, precision="bf16", **call)
    assert both.data @ fast.data / np.linalg.norm(both.data) / np.linalg.norm(fast.data) > 0.999


def test_a_generated_map_is_an_input_from_its_file_alone_and_in_a_batch(ckpt, tokenizers, tmp_path):
    place = PointBuffer(lon=12.94, lat=47.77, buffer_m=320)
    files = {"LULC": tokenizers["lulc_tokenizer"]}
    made = generate(TINY, place, output_modalities="LULC", backend="sample", ckpt=ckpt, tokenizer_ckpts=files)
    raster = LocalRasters(made["LULC"].to_geotiff(tmp_path / "LULC.tif"))
    call = {"backend": raster, "modality": "LULC", "ckpt": ckpt, **tokenizers}
    whole = get_embedding(TINY, output=GRID, **call)
    assert whole.geobox.affine @ (0, 0) == made.geobox.affine @ (0, 0)
    places = [PointBuffer(lon=12.94 + shift, lat=47.77, buffer_m=100) for shift in (0, 0.001)]
    together = get_embeddings(TINY, places, **call)
    np.testing.assert_allclose(together[1].data, get_embedding(TINY, places[1], **call).data, rtol=0, atol=2e-6)
    assert np.abs(together[0].data - together[1].data).max() > 1e-4


@pytest.mark.filterwarnings("ignore::rs_embed.errors.ScaleWarning")
@pytest.mark.parametrize("prep", ["resize", "crop", "tile"])
def test_class_codes_are_never_mixed(ckpt, tokenizers, prep):
    cover = np.full((1, 40, 50), 7, np.float32)
    cover[:, :, 25:] = 2
    call = {"ckpt": ckpt, **tokenizers, "input_prep": prep, "img": 64, "output": GRID}
    found = get_embedding(TINY, input_chw={"LULC": cover}, **call)
    if prep == "resize":
        nearest = ((np.arange(64) + 0.5) * 50 / 64).astype(int)
        shown = np.pad(cover, ((0, 0), (0, 10), (0, 0)))[:, nearest][:, :, nearest]
    else:
        shown = np.pad(cover, ((0, 0), (0, 24), (0, 14)))
    whole = get_embedding(TINY, input_chw={"LULC": shown}, ckpt=ckpt, **tokenizers, output=GRID)
    rows, cols = found.data.shape[1:]
    assert (rows, cols) == ((4, 4) if prep == "resize" else (3, 4))
    np.testing.assert_array_equal(found.data, whole.data[:, :rows, :cols])


def test_what_was_given_as_a_map_conditions_what_is_imagined(ckpt, tokenizers):
    call = {"ckpt": ckpt, **tokenizers, "tim_modalities": "NDVI", "tim_temperature": 0, "output": GRID}
    cover = pixels("LULC", 64, 64)
    first, other = (
        get_embedding(TINY, input_chw={"LULC": one}, merge_method="dict", **call) for one in (cover, np.flip(cover, 1))
    )
    assert list(first.by_modality()) == ["LULC", "NDVI"]
    assert np.abs(first.by_modality()["NDVI"] - other.by_modality()["NDVI"]).max() > 1e-4


def test_codes_that_are_no_classes_and_tokenizers_that_do_not_fit_are_refused(ckpt, tokenizers, tmp_path):
    call = {"input_chw": {"LULC": pixels("LULC", 32, 32)}, "ckpt": ckpt}
    with pytest.raises(InputError, match="class codes 0 to 9 for LULC, got 0 to 70"):
        get_embedding(TINY, input_chw={"LULC": pixels("LULC", 96, 96) * 10}, ckpt=ckpt, **tokenizers)
    provider = FieldProvider()
    with pytest.raises(WeightsNotFound, match=r"tokenizer of LULC at '.*none\.pt'"):
        get_embedding(
            TINY, PointBuffer(12.9, 47.7, 320), backend=provider, modality="LULC", lulc_tokenizer=tmp_path / "none.pt"
        )
    assert provider.queries == []
    with pytest.raises(WeightsMismatch):
        get_embedding(TINY, **call, lulc_tokenizer=tokenizers["ndvi_tokenizer"])
    state = torch.load(ckpt, weights_only=True)
    short = {name: values for name, values in state.items() if "tok_lulc" not in name}
    torch.save(short, tmp_path / "short.pt")
    with pytest.raises(WeightsMismatch, match="tok_lulc"):
        get_embedding(TINY, **call | {"ckpt": tmp_path / "short.pt"}, **tokenizers)
    get_embedding(TINY, input_chw=pixels("S2L2A", 32, 32), ckpt=tmp_path / "short.pt")
