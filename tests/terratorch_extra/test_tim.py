"""TerraMind that thinks in modalities, beside the authors' own; weights are random."""

import random
from importlib.metadata import version
from importlib.util import find_spec

import numpy as np
import pytest
import torch

if find_spec("terratorch") is None:
    pytest.skip("terratorch is not installed here: `make parity` runs this with it", allow_module_level=True)

from authors import (
    a_seed_that_is_positive,
    build,
    checkpoint,
    load_as_the_authors_do,
    pixels,
    places_tokenizer,
    standardised,
)
from authors import their_seed as seed_of

from rs_embed import OutputSpec, PointBuffer, export_embeddings, get_embedding, get_embeddings, open_run, plan_embedding
from rs_embed.errors import BandMismatch, SpecError, WeightsMismatch
from rs_embed.testing import FieldProvider

TINY = "terramind_1_0_tiny"
GRID = OutputSpec.grid()


@pytest.fixture(scope="module")
def ckpt(tmp_path_factory):
    path = checkpoint(tmp_path_factory.mktemp("weights"), "terramind_v1_tiny")
    yield path
    path.unlink()


def theirs(ckpt, tim, merge, given, seed):
    """Layers of the authors' model for one place."""
    model = build("terramind_v1_tiny_tim", modalities=list(given), tim_modalities=list(tim), merge_method=merge)
    load_as_the_authors_do(model, ckpt)
    state = random.getstate()
    random.seed(seed)
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        layers = model({name: standardised(name, values) for name, values in given.items()})
    random.setstate(state)
    return layers


def assert_close(ours, theirs):
    tolerance = 2e-5 + 5e-6 * theirs.abs().max().item()
    torch.testing.assert_close(torch.as_tensor(np.asarray(ours)), theirs, rtol=0, atol=tolerance)


@pytest.mark.parametrize("merge", ["mean", "concat", "none"])
@pytest.mark.parametrize(("given", "tim"), [(("S2L2A",), ("LULC",)), (("S1GRD", "DEM"), ("S2L2A", "NDVI"))])
def test_raw_and_imagined_tokens_become_what_terratorch_makes_of_them(ckpt, given, tim, merge):
    held = {name: pixels(name, 96, 96) for name in given}
    seed = a_seed_that_is_positive()
    layers = theirs(ckpt, tim, {"none": None, "concat": None}.get(merge, merge), held, seed)
    call = {"input_chw": held, "ckpt": ckpt, "tim_modalities": tim, "tim_seed": seed_of(seed), "layers": [3, 11]}
    both = torch.cat([layers[3], layers[11]], dim=2)[0]
    if merge == "mean":
        grid = get_embedding(TINY, **call, merge_method="mean", output=GRID)
        assert_close(grid.data, both.T.reshape(-1, 6, 6))
    elif merge == "none":
        assert_close(get_embedding(TINY, **call, merge_method="none").data, both.mean(dim=0))
    else:
        grid = get_embedding(TINY, **call, merge_method="concat", output=GRID)
        maps = both.reshape(len(given) + len(tim), 6, 6, 2, 192).permute(3, 0, 4, 1, 2)
        assert_close(grid.data, maps.reshape(-1, 6, 6))
        assert [one["modality"] for one in grid.meta["channels"][: len(given)]] == list(given)


def test_what_is_imagined_knows_the_place_where_its_coordinates_are_told(ckpt, tmp_path):
    made, seed = places_tokenizer(tmp_path / "coords.json"), a_seed_that_is_positive()
    place = PointBuffer(lon=-121.13, lat=-33.88, buffer_m=320)
    call = {"backend": FieldProvider(), "ckpt": ckpt, "tim_modalities": ["LULC"], "tim_seed": seed_of(seed)}
    query = plan_embedding(TINY, place, backend=FieldProvider()).items[0].queries[0]
    told = {"S2L2A": standardised("S2L2A", FieldProvider().fetch(query).values[0]),
            "coords": torch.tensor([[place.lon, place.lat]])}  # fmt: skip
    model = build("terramind_v1_tiny_tim", modalities=["S2L2A", "coords"], tim_modalities=["LULC"], merge_method="mean")
    load_as_the_authors_do(model, ckpt).tokenizer["coords"].text_tokenizer = made
    state = random.getstate()
    random.seed(seed)
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        expected = model(told)[-1][0].mean(dim=0)
    random.setstate(state)
    found = get_embedding(
        TINY, place, **call, modality=["S2L2A", "Coordinates"], coords_tokenizer=tmp_path / "coords.json"
    )
    assert_close(found.data, expected)
    assert np.abs(found.data - get_embedding(TINY, place, **call).data).max() > 1e-4


def test_another_seed_imagines_other_tokens_and_the_same_seed_the_same(ckpt):
    held = {"S2L2A": pixels("S2L2A", 64, 64)}
    call = {"input_chw": held, "ckpt": ckpt, "tim_modalities": ["LULC"]}
    first, again = (get_embedding(TINY, **call, tim_seed=1).data for _ in range(2))
    other = get_embedding(TINY, **call, tim_seed=2)
    assert np.array_equal(first, again)
    assert np.abs(first - other.data).max() > 1e-3
    assert (other.meta.knobs["tim_seed"], other.meta["imagined"]) == (2, ["LULC"])
    assert get_embedding(TINY, **call, tim_seed=1).meta.fingerprint != other.meta.fingerprint
    assert other.meta["terratorch"] == version("terratorch")
    without = get_embedding(TINY, input_chw=held, ckpt=ckpt)
    assert "tim_seed" not in without.meta.knobs
    assert np.abs(first - without.data).max() > 1e-3


def test_one_place_alone_is_one_place_in_a_batch_and_random_numbers_go_on_undisturbed(ckpt):
    places = [PointBuffer(lon=12.94 + 0.02 * i, lat=47.77, buffer_m=320) for i in range(5)]
    call = {"backend": FieldProvider(), "ckpt": ckpt, "tim_modalities": "LULC+NDVI", "tim_seed": 3}
    together = get_embeddings(TINY, places, **call)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()  # Python's: the tests' type checks draw
    alone = get_embedding(TINY, places[3], **call)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state[1])
    np.testing.assert_allclose(together[3].data, alone.data, rtol=0, atol=2e-6)
    assert np.abs(together[3].data - together[2].data).max() > 1e-3


def test_the_order_of_what_is_imagined_counts_since_each_sees_those_before_it(ckpt):
    call = {"input_chw": {"S2L2A": pixels("S2L2A", 64, 64)}, "ckpt": ckpt, "merge_method": "dict", "output": GRID}
    first = get_embedding(TINY, **call, tim_modalities=["LULC", "NDVI"], tim_temperature=0).by_modality()
    second = get_embedding(TINY, **call, tim_modalities=["NDVI", "LULC"], tim_temperature=0).by_modality()
    assert list(first) == ["S2L2A", "LULC", "NDVI"]
    assert list(second) == ["S2L2A", "NDVI", "LULC"]
    assert np.abs(first["NDVI"] - second["NDVI"]).max() > 1e-4


def test_more_steps_of_decoding_give_other_tokens(ckpt):
    call = {"input_chw": {"S2L2A": pixels("S2L2A", 64, 64)}, "ckpt": ckpt, "tim_modalities": ["LULC"]}
    one, four = (get_embedding(TINY, **call, tim_decoding_steps=steps).data for steps in (1, 4))
    assert np.abs(one - four).max() > 1e-3


def test_a_large_chip_is_thought_over_in_square_windows(ckpt):
    held = {"S2L2A": pixels("S2L2A", 100, 130)}
    grid = get_embedding(TINY, input_chw=held, ckpt=ckpt, tim_modalities=["LULC"], img=64, output=GRID)
    assert grid.data.shape == (192, 7, 9)
    assert np.isfinite(grid.data).all()
    assert grid.meta.input_px == (64, 64)
    assert grid.meta.windows == 6


def test_bfloat16_imagines_the_same_tokens(ckpt):
    call = {"input_chw": {"S2L2A": pixels("S2L2A", 64, 64)}, "ckpt": ckpt, "tim_modalities": ["LULC"]}
    exact, fast = (get_embedding(TINY, **call, precision=precision).data for precision in ("fp32", "bf16"))
    assert exact @ fast / np.linalg.norm(exact) / np.linalg.norm(fast) > 0.999


def test_an_export_thinks_as_a_single_call_does(ckpt, tmp_path):
    places = [PointBuffer(lon=12.94 + 0.02 * i, lat=47.77, buffer_m=160) for i in range(3)]
    call = {"ckpt": str(ckpt), "tim_modalities": ["LULC"], "tim_seed": 2, "backend": FieldProvider()}
    report = export_embeddings(TINY, places, tmp_path / "run", progress=False, **call)
    assert report.failed == 0
    vectors = open_run(tmp_path / "run").matrix()
    np.testing.assert_allclose(vectors[1], get_embedding(TINY, places[1], **call).data, rtol=0, atol=2e-6)


def test_variables_are_knobs(ckpt, monkeypatch):
    monkeypatch.setenv("RS_EMBED_TERRAMIND_TIM_MODALITIES", "LULC,DEM")
    monkeypatch.setenv("RS_EMBED_TERRAMIND_TIM_SEED", "5")
    found = get_embedding(TINY, input_chw={"S2L2A": pixels("S2L2A", 32, 32)}, ckpt=ckpt)
    assert found.meta["imagined"] == ["LULC", "tok_DEM"]
    assert found.meta.knobs["tim_seed"] == 5


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"modality": "S2L2A", "tim_modalities": ["S2L2A"]}, SpecError, "got both for S2L2A"),
        ({"bands": ["B2", "B3"], "tim_modalities": ["LULC"]}, BandMismatch, "requires all bands of S2L2A"),
        ({"model_id": "terramind_0_1_base", "tim_modalities": ["LULC"]}, SpecError, "Expected a model with a decoder"),
    ],
)
def test_what_cannot_be_imagined_is_said_before_fetching_or_loading(options, error, says):
    provider = FieldProvider()
    model_id = options.pop("model_id", TINY)
    with pytest.raises(error, match=says):
        get_embedding(model_id, PointBuffer(12.9, 47.7, 320), backend=provider, ckpt="/does/not/exist.pt", **options)
    assert provider.queries == []


def test_a_file_without_the_decoder_is_refused_by_name(ckpt, tmp_path):
    state = torch.load(ckpt, weights_only=True)
    torch.save({name: values for name, values in state.items() if not name.startswith("decoder.2")}, tmp_path / "x.pt")
    with pytest.raises(WeightsMismatch, match=r"decoder\.2"):
        get_embedding(TINY, input_chw=pixels("S2L2A", 32, 32), ckpt=tmp_path / "x.pt", tim_modalities=["LULC"])


def test_random_weights_say_so_and_are_the_same_again():
    call = {"input_chw": pixels("S2L2A", 32, 32), "pretrained": False, "tim_modalities": ["LULC"]}
    found = get_embedding(TINY, **call)
    assert found.meta.weights_note == "random weights: shapes only"
    assert np.isfinite(found.data).all()
