"""Generation with the authors' sampler, decoder and tokenizers, beside the authors' own model; weights are random."""

import json
import random
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from torch import nn

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
    stir,
)
from authors import their_seed as seed_of
from typer.testing import CliRunner

from rs_embed import BBox, LocalRasters, PointBuffer, Region, generate, tokenize
from rs_embed.cli.main import app
from rs_embed.core.bands import Unit
from rs_embed.core.specs import SensorSpec
from rs_embed.embedders.cards.terramind_tokens import TOKENS
from rs_embed.embedders.catalog import get_card
from rs_embed.embedders.imagining.sampler import Imagination, Sampling
from rs_embed.errors import (
    BandMismatch,
    KnobError,
    SensorNotOffered,
    SpecError,
    StorageError,
    WeightsMismatch,
    WeightsNotFound,
    WeightsUnreachable,
)
from rs_embed.generation.networks import Networks, load_sampler, tokenizer_for
from rs_embed.pipeline.inputs import resolve_request
from rs_embed.pipeline.request import EmbeddingRequest
from rs_embed.testing import FieldProvider

TINY = "terramind_1_0_tiny"
MAPS = {"LULC", "NDVI"}
PLACE = PointBuffer(lon=12.94, lat=47.77, buffer_m=320)
QUICK = {"backend": "sample", "pretrained": False, "steps": 1}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def ckpt(tmp_path_factory):
    path = checkpoint(tmp_path_factory.mktemp("weights"), "terramind_v1_tiny")
    yield path
    path.unlink()


@pytest.fixture(scope="module")
def lulc(tmp_path_factory):
    """A file of a tokenizer; 0.7 GB, so it is removed when these tests are over."""
    path = tmp_path_factory.mktemp("tokenizers") / "TerraMind_Tokenizer_LULC.pt"
    torch.save(tokenizer_for("LULC", None, pretrained=False, device=CPU).network.module.state_dict(), path)
    yield path
    path.unlink()


class Noted(nn.Module):
    """Stands where the authors' model decodes, and keeps the ids."""

    patch_size = 16

    def __init__(self) -> None:
        super().__init__()
        self.seen = None

    def decode_tokens(self, ids, **options):
        self.seen = ids
        return torch.zeros(1)


def of_the_authors(ckpt, held, outputs, seed):
    """Ids `[row, col]` of each output, from the authors' model; maps are read by random tokenizers."""
    model = build("terramind_v1_tiny_generate", modalities=list(held), output_modalities=list(outputs))
    load_as_the_authors_do(model, ckpt)
    notes = {name: Noted() for name in outputs}
    maps = {name: tokenizer_for(name, None, pretrained=False, device=CPU).network.module for name in MAPS & set(held)}
    model.tokenizer = nn.ModuleDict({TOKENS[name].key: one for name, one in (notes | maps).items()})
    state = random.getstate()
    random.seed(seed)
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        model({name: standardised(name, values) for name, values in held.items()})
    random.setstate(state)
    return {name: note.seen[0] for name, note in notes.items()}


def of_ours(ckpt, held, outputs, seed):
    """The same of one window, without decoding it."""
    card = get_card(TINY)
    request = resolve_request(
        card, card.knobs.read({"ckpt": ckpt}), EmbeddingRequest(model_id=card, modality=tuple(held)), "fp32"
    )
    readers = {name: tokenizer_for(name, None, pretrained=False, device=CPU) for name in MAPS & set(held)}
    networks = Networks(load_sampler(request, outputs, CPU), readers)
    given = {name: standardised(name, values)[0] for name, values in held.items()}
    return networks.imagine(given, Sampling(), seed)


@pytest.mark.parametrize(
    ("given", "outputs"),
    [
        (("S2L2A",), ("LULC",)),
        (("S1GRD", "S2L2A"), ("NDVI", "LULC")),
        (("DEM",), ("LULC", "S1RTC")),
        (("LULC",), ("S2L2A",)),
        (("NDVI", "S1GRD", "LULC"), ("DEM",)),
    ],
)
def test_tokens_are_those_of_the_authors_model(ckpt, given, outputs):
    held, seed = {name: pixels(name, 64, 64) for name in given}, a_seed_that_is_positive()
    theirs, ours = of_the_authors(ckpt, held, outputs, seed), of_ours(ckpt, held, outputs, seed_of(seed))
    for name in outputs:
        assert torch.equal(ours[name], theirs[name]), name
        assert len(theirs[name].unique()) > 8, "the case tells ids apart"


def test_land_cover_from_files_of_weights_is_that_of_the_authors_model(ckpt, lulc):
    held, seed = {"S2L2A": pixels("S2L2A", 64, 64)}, a_seed_that_is_positive()
    ids = of_the_authors(ckpt, held, ("LULC",), seed)["LULC"]
    call = {"ckpt": ckpt, "tokenizer_ckpts": {"LULC": lulc}, "seed": seed_of(seed)}
    made = generate(TINY, input_chw=held, output_modalities="LULC", **call)
    with torch.inference_mode():
        logits = tokenizer_for("LULC", None, pretrained=False, device=CPU).network.module.decode_tokens(ids[None])
    assert np.array_equal(made["LULC"].values[0], logits[0].argmax(dim=0))
    assert np.array_equal(made.tokens["LULC"], ids)
    assert made.meta.weights["LULC"].startswith("ckpt:TerraMind_Tokenizer_LULC.pt#sha256:")
    assert made.meta.weights["model"].startswith("ckpt:terramind_v1_tiny.pt#sha256:")
    assert made.meta.weights_note is None


def test_rasters_lie_where_the_imagery_lies_in_units_of_the_modality(tmp_path):
    import rasterio

    outputs = ["S2L2A", "S1GRD", "DEM", "LULC", "NDVI"]
    made = generate(TINY, PLACE, output_modalities=outputs, modality="S2L2A+S1GRD", **QUICK)
    assert list(made) == outputs == list(made.meta.outputs)
    assert [made[name].unit for name in outputs] == [Unit.DN, Unit.DB, Unit.METRE, Unit.CLASS, Unit.INDEX]
    assert [made[name].values.shape[0] for name in outputs] == [12, 2, 1, 1, 1]
    assert made.meta.modality == ("S2L2A", "S1GRD")
    assert made.meta.inputs[0].scene_ids
    for path in made.to_geotiff(tmp_path / "maps"):
        with rasterio.open(path) as file:
            assert (file.crs.to_epsg(), file.shape) == (32633, (64, 64))
            assert file.transform == made.geobox.affine == made[path.stem].geobox.affine
            told = json.loads(file.tags()["RS_EMBED_META"])
            assert told["fingerprint"] == made.meta.fingerprint
            assert file.tags()["NOTE"] == "random weights: shapes only"
            assert file.nodata == 0 if path.stem == "LULC" else np.isnan(file.nodata)
    dataset = made.to_xarray()
    assert dataset["S1GRD"].dims == ("S1GRD_band", "y", "x")
    assert dataset["DEM"].attrs["units"] == "metre"
    assert dataset["LULC"].attrs["flag_meanings"].split()[1] == "water"
    assert float(dataset.x[0]) == made.geobox.affine.c + 5
    limits = made.meta.at_limit
    assert limits["LULC"] == 0 and all(0 <= value <= 1 for value in limits.values())
    reach = TOKENS["DEM"]
    assert np.abs(made["DEM"].values - reach.mean[0]).max() <= reach.std[0] + 0.01


def test_the_same_seed_gives_the_same_pixels_and_another_seed_others():
    call = {**QUICK, "output_modalities": "NDVI"}
    first, again, other = (generate(TINY, PLACE, seed=seed, **call) for seed in (1, 1, 2))
    assert np.array_equal(first["NDVI"].values, again["NDVI"].values)
    assert first.meta.fingerprint == again.meta.fingerprint != other.meta.fingerprint
    assert np.abs(first["NDVI"].values - other["NDVI"].values).max() > 1e-3


def test_variables_meant_for_embeddings_change_nothing(monkeypatch):
    call = {**QUICK, "output_modalities": "LULC", "modality": "S2L2A+S1GRD"}
    before = generate(TINY, PLACE, **call)
    for name, value in {"NORMALIZE": "none", "MERGE_METHOD": "none", "LAYERS": "3", "TIM_MODALITIES": "NDVI"}.items():
        monkeypatch.setenv(f"RS_EMBED_TERRAMIND_{name}", value)
    after = generate(TINY, PLACE, **call)
    assert np.array_equal(before["LULC"].values, after["LULC"].values)
    assert before.meta.fingerprint == after.meta.fingerprint


def test_random_numbers_of_the_process_go_on_undisturbed():
    state = torch.get_rng_state()
    generate(TINY, PLACE, output_modalities="LULC", seed=8, **QUICK)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_order_of_the_outputs_counts_since_each_sees_those_before_it(ckpt):
    held = {"S2L2A": pixels("S2L2A", 64, 64)}
    first = of_ours(ckpt, held, ("LULC", "NDVI"), 0)
    second = of_ours(ckpt, held, ("NDVI", "LULC"), 0)
    alone = of_ours(ckpt, held, ("LULC",), 0)
    assert torch.equal(first["LULC"], alone["LULC"]), "the first sees only what is given"
    assert not torch.equal(first["LULC"], second["LULC"])


def test_a_large_region_is_tiled_and_each_tile_is_what_it_would_be_alone():
    field = FieldProvider()
    call = {"backend": field, "output_modalities": "LULC", "pretrained": False, "img": 64, "temperature": 0}
    box = BBox(400000, 5290000, 401600, 5291100, crs="EPSG:32633")
    made = generate(TINY, box, **call)
    assert made.meta.tiles == 6 and made.meta.tile_px == 64
    assert made["LULC"].values.shape == (1, 110, 160)
    corner = generate(TINY, BBox(400000, 5290460, 400640, 5291100, crs="EPSG:32633"), **call)
    assert np.array_equal(made.tokens["LULC"][:2, :2], corner.tokens["LULC"][:2, :2])
    assert made.geobox.affine == corner.geobox.affine


def test_a_seam_is_no_steeper_than_the_pixels_around_it():
    made = generate(TINY, PLACE, output_modalities="NDVI", img=32, **QUICK)["NDVI"].values[0]
    assert np.isfinite(made).all()
    steps = np.abs(np.diff(made, axis=1)).mean(axis=0)
    assert steps[31] < 3 * np.median(steps)


def test_a_polygon_leaves_nothing_outside_of_it():
    ring = ((12.937, 47.768), (12.943, 47.768), (12.943, 47.772), (12.937, 47.768))
    made = generate(TINY, Region([ring]), output_modalities="LULC+NDVI", **QUICK)
    outside = np.isnan(made["NDVI"].values[0])
    assert 0.3 < outside.mean() < 0.7
    assert (made["LULC"].values[0][outside] == 0).all()


def test_arrays_without_a_place_give_pixels_that_no_geotiff_takes(tmp_path):
    made = generate(TINY, input_chw=pixels("S2L2A", 40, 50), output_modalities="LULC", pretrained=False)
    assert made.geobox is None
    assert made["LULC"].values.shape == (1, 40, 50)
    assert made["LULC"].to_xarray().dims == ("band", "y", "x")
    with pytest.raises(StorageError, match="got no place"):
        made.to_geotiff(tmp_path)


def test_a_picture_says_what_it_is(tmp_path):
    made = generate(TINY, PLACE, output_modalities="S2L2A+LULC+DEM", **QUICK)
    figure = made.plot(tmp_path / "maps.png")
    titles = [axes.get_title() for axes in figure.axes]
    assert len(titles) == 3 and all("generated" in title and "random weights" in title for title in titles)
    assert (tmp_path / "maps.png").stat().st_size > 1000


def test_the_command_writes_a_geotiff_for_each_modality(tmp_path):
    command = ["generate", TINY, "--outputs", "LULC,NDVI", "--out", str(tmp_path / "maps"), "--backend", "sample"]
    command += ["--steps", "1"]
    command += ["--lon", "12.94", "--lat", "47.77", "--buffer", "320", "--set", "pretrained=0", "--seed", "3"]
    answer = CliRunner().invoke(app, command)
    assert answer.exit_code == 0, answer.output
    assert sorted(path.name for path in (tmp_path / "maps").iterdir()) == ["LULC.tif", "NDVI.tif"]
    assert "random weights: shapes only" in answer.output
    told = CliRunner().invoke(app, [*command, "--json"])
    assert json.loads(told.stdout)["seed"] == 3
    (tmp_path / "file").touch()
    for wrong in (["--only-bands", "B2"], ["--out", str(tmp_path / "file" / "maps")], ["--tokenizer", "LULC"]):
        assert CliRunner().invoke(app, [*command, *wrong]).exit_code == 2
    lost = CliRunner().invoke(app, [*command, "--tokenizer", "LULC=/no.pt"])
    assert lost.exit_code == 1 and "a tokenizer of LULC at '/no.pt'" in lost.output


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"output_modalities": ["RGB"]}, SpecError, "output_modalities to be one of S2L2A"),
        ({"output_modalities": ["LULC", "LULC"]}, SpecError, "each output modality once"),
        ({"output_modalities": "NDVI", "img": 48}, SpecError, "img as a multiple of 32 px to generate NDVI, got 48"),
        ({"modality": "LULC"}, SpecError, "Expected LULC to be given or generated, got both"),
        ({"merge_method": "mean"}, KnobError, "Expected a knob that generation has, got 'merge_method'"),
        ({"steps": 0}, SpecError, "from 1 to 1000 for steps, got 0"),
        ({"seed": -1}, SpecError, "for seed, got -1"),
        ({"seed": 1.5}, SpecError, "for seed, got 1.5"),
        ({"model_id": "terramind_0_1_base"}, SpecError, "Expected a model with a decoder"),
        ({"model_id": "thor"}, SpecError, "Expected a model with a decoder"),
        ({"sensor": SensorSpec("COPERNICUS/S2_SR_HARMONIZED", ("B4", "B3"))}, BandMismatch, "requires all bands"),
        ({"modality": "DEM", "backend": "sample"}, SensorNotOffered, "COPERNICUS/DEM/GLO30"),
        ({"output_modalities": None}, SpecError, "names of output modalities, got None"),
        ({"temperature": -1}, SpecError, "0 takes the most likely token"),
        ({"tokenizer_ckpts": {"lulc": "/no.pt"}}, SpecError, "tokenizers of LULC, got one of lulc"),
        ({"tokenizer_ckpts": {"DEM": "/no.pt"}}, SpecError, "tokenizers of LULC, got one of DEM"),
        ({"tokenizer_ckpts": "/no.pt"}, SpecError, "a mapping of modality to file, got '/no.pt'"),
        ({"tokenizer_ckpts": {"LULC": "/no.pt"}, "pretrained": True}, WeightsNotFound, "tokenizer of LULC at '/no.pt'"),
        ({"pretrained": True, "ckpt": "/none.pt"}, WeightsNotFound, "/none.pt"),
        (
            {"spatial": replace(PLACE, buffer_m=160_000)},
            SpecError,
            "of memory, got 32000 x 32000 px",
        ),
    ],
)
def test_what_cannot_be_generated_is_said_before_anything_is_fetched(options, error, says):
    provider = FieldProvider()
    call = {"model_id": TINY, "spatial": PLACE, "output_modalities": "LULC", "backend": provider} | options
    call = {"pretrained": False} | call
    with pytest.raises(error, match=says):
        generate(**call)
    assert provider.queries == []


def test_without_weights_and_offline_nothing_is_fetched_and_nothing_random_stands_in(tmp_path, monkeypatch):
    monkeypatch.setenv("RS_EMBED_OFFLINE", "1")
    monkeypatch.setenv("RS_EMBED_CACHE_DIR", str(tmp_path))
    provider = FieldProvider()
    with pytest.raises(WeightsUnreachable, match="TerraMind-1.0-tiny"):
        generate(TINY, PLACE, output_modalities="LULC", backend=provider)
    with pytest.raises(WeightsUnreachable, match="TerraMind-1.0-Tokenizer-DEM"):
        tokenize("DEM", pixels("DEM", 32, 32))
    assert provider.queries == []


def test_a_tokenizer_of_another_modality_is_refused_by_name(ckpt, lulc):
    with pytest.raises(WeightsMismatch):
        generate(
            TINY, PLACE, output_modalities="NDVI", backend="sample", ckpt=ckpt, tokenizer_ckpts={"NDVI": lulc}, steps=1
        )


def test_a_generated_map_can_be_given_again_from_its_file(tmp_path):
    made = generate(TINY, PLACE, output_modalities="LULC+NDVI", **QUICK)
    made.to_geotiff(tmp_path)
    for name in ("LULC", "NDVI"):
        path = tmp_path / f"{name}.tif"
        call = {"modality": name, "output_modalities": "S1GRD", "pretrained": False, "steps": 1}
        back = generate(TINY, backend=LocalRasters(path), **call)
        assert back.geobox == made.geobox
        assert back.meta.inputs[0].collection == f"TERRAMESH/{name}"
        given = np.where(made[name].values == 0, np.nan, made[name].values) if name == "LULC" else made[name].values
        same = generate(TINY, input_chw={name: given}, **{**call, "modality": None})
        assert np.array_equal(same["S1GRD"].values, back["S1GRD"].values)
    assert set(back.meta.weights) == {"model", "S1GRD", "NDVI"}


@pytest.mark.parametrize(
    ("name", "scale", "says"),
    [("LULC", 3, "class codes 0 to 9 for LULC, got 0 to 15"), ("NDVI", 10_000, "values beyond -1 to 1")],
)
def test_maps_in_other_codes_or_units_are_refused(name, scale, says):
    held = {name: pixels(name, 64, 64) * scale}
    with pytest.raises(ValueError, match=says):
        generate(TINY, input_chw=held, output_modalities="DEM", pretrained=False, steps=1)


def test_coordinates_stand_beside_imagery(ckpt, lulc, tmp_path):
    places_tokenizer(tmp_path / "coords.json")
    place = PointBuffer(lon=-121.13, lat=-33.88, buffer_m=320)
    call = {"output_modalities": "LULC", "ckpt": ckpt, "tokenizer_ckpts": {"LULC": lulc}, "seed": 1}
    told = {"modality": "S2L2A+Coordinates", "coords_tokenizer": tmp_path / "coords.json"}
    without, beside = (generate(TINY, place, backend=FieldProvider(), **call, **more) for more in ({}, told))
    assert beside.meta.modality == ("S2L2A", "Coordinates")
    assert beside.meta.knobs["coords_tokenizer"].startswith("ckpt:coords.json#sha256:")
    assert not np.array_equal(without.tokens["LULC"], beside.tokens["LULC"])


@pytest.mark.filterwarnings("ignore:.*DN of a band lie under:rs_embed.errors.PixelWarning")  # of random weights
def test_rasters_of_ones_own_go_in(tmp_path):
    first = generate(TINY, PLACE, output_modalities="S2L2A", **QUICK)["S2L2A"]
    path = first.to_geotiff(tmp_path / "s2.tif")
    again = generate(TINY, backend=LocalRasters(path, unit="dn", offset=0), output_modalities="LULC", pretrained=False)
    assert again.geobox == first.geobox


@pytest.mark.parametrize("size", ["small", "base", "large"])
def test_encoder_and_decoder_of_every_size_are_those_of_the_authors_builder(size):
    theirs = build(f"terramind_v1_{size}_generate", modalities=["S2L2A"], output_modalities=["LULC"])
    ours = Imagination(get_card(f"terramind_1_0_{size}"), ["S2L2A"], ["LULC"])
    state = theirs.sampler.model.state_dict()
    shapes = {name: values.shape for name, values in ours.model.state_dict().items()}
    beside = {name for name in shapes if name.startswith("encoder_embeddings.tok_lulc@224.")}
    assert {name: shape for name, shape in shapes.items() if name not in beside} == {
        name: values.shape for name, values in state.items()
    }, "ours embeds its last output, too, so that later steps see earlier ones"
    stir(state)
    ours.model.load_state_dict(state, strict=False)
    seed, note = a_seed_that_is_positive(), Noted()
    given = standardised("S2L2A", pixels("S2L2A", 48, 48))
    theirs.tokenizer = nn.ModuleDict({TOKENS["LULC"].key: note})
    before = random.getstate()
    drawn = seed_of(seed)
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        theirs.eval()({"S2L2A": given})
    random.setstate(before)
    found = ours.eval().imagine({"S2L2A": given[0]}, Sampling(drawn))["LULC"]
    assert torch.equal(found, note.seen[0])
