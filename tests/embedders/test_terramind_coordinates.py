"""TerraMind told where a place lies: the text, the tokenizer's file, the tokens, and what is missing said early."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from hub_server import HubServer

from rs_embed import OutputSpec, PointBuffer, describe_model, geobox_for, get_embedding, get_embeddings, plan_embedding
from rs_embed.embedders import _coordinates
from rs_embed.embedders._coordinates import text_of
from rs_embed.embedders.cards.terramind import COORDS_TOKENIZER
from rs_embed.embedders.prepare.framing import frame_chip
from rs_embed.embedders.weights.hub import obtain
from rs_embed.encoders.terramind.encoder import TerraMindEncoder
from rs_embed.errors import (
    InputError,
    MissingDependency,
    RSEmbedError,
    SpecError,
    WeightsCorrupt,
    WeightsMismatch,
    WeightsNotFound,
    WeightsUnreachable,
)
from rs_embed.testing import FieldProvider

PIXELS = ("S2L2A", "S2L1C", "RGB", "S1GRD", "S1RTC", "DEM")
PLACE = PointBuffer(lon=12.94, lat=47.77, buffer_m=480)
WORDS = ("[PAD]", "[UNK]", "[SOS]", "[EOS]", "lat=0.00", "lon=0.00", "lat=47.75", "lon=13.00", "lon=12.75", "lat=48.00")
IDS = {word: number for number, word in enumerate(WORDS)}
BOTH = "S2L2A+Coordinates"


def write_tokenizer(path: Path, words: tuple[str, ...] = WORDS) -> Path:
    tokenizers = pytest.importorskip("tokenizers", reason="needs the extra coords (package tokenizers)")
    vocabulary = {word: number for number, word in enumerate(words)}
    made = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    made.save(str(path))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A seeded TerraMind tiny with coordinates, and a tokenizer under a name of its own."""
    folder = tmp_path_factory.mktemp("weights")
    write_tokenizer(folder / "coords.json")
    encoder = TerraMindEncoder(dim=192, depth=12, heads=3, family="B", modalities=(*PIXELS, "Coordinates"))
    encoder.init_random(7)
    torch.save(dict(encoder.state_dict()), folder / "TerraMind_v1_tiny.pt")
    return folder


@pytest.fixture(scope="module")
def encoder(folder) -> TerraMindEncoder:
    bare = TerraMindEncoder(dim=192, depth=12, heads=3, family="B", modalities=(*PIXELS, "Coordinates")).eval()
    bare.load_state_dict(torch.load(folder / "TerraMind_v1_tiny.pt", weights_only=True))
    return bare


@pytest.fixture
def call(folder) -> dict[str, object]:
    return {
        "model_id": "terramind_1_0_tiny",
        "spatial": PLACE,
        "backend": FieldProvider(),
        "ckpt": folder / "TerraMind_v1_tiny.pt",
        "coords_tokenizer": folder / "coords.json",
    }


def by_hand(encoder: TerraMindEncoder, ids: list[int]) -> torch.Tensor:
    """Tokens `[3 + 36, 192]` of the place: the bare encoder on what the adapter prepares for imagery alone."""
    plan = plan_embedding("terramind_1_0_tiny", PLACE, backend=FieldProvider())
    chip = FieldProvider().fetch(plan.items[0].queries[0])
    (image,) = plan.job.embedder.prepare({"S2L2A": chip}, frame_chip((96, 96), "tile", plan.job.embedder.geometry()))
    with torch.inference_mode():
        return encoder({"S2L2A": image.tensors["S2L2A"][None], "Coordinates": torch.tensor([ids])}).values[0]


@pytest.mark.parametrize(
    ("lon", "lat", "text"),
    [
        (12.94, 47.77, "lat=47.75 lon=13.00 [EOS]"),
        (-121.13, -33.88, "lat=-34.00 lon=-121.25 [EOS]"),
        (0.125, 0.375, "lat=0.50 lon=0.00 [EOS]"),  # halves go to the even quarter, as torch rounds
        (-0.1, 0.1, "lat=0.00 lon=-0.00 [EOS]"),
        (179.9, 89.9, "lat=90.00 lon=180.00 [EOS]"),
    ],
)
def test_a_place_becomes_the_text_of_the_authors_code(lon, lat, text):
    assert text_of(lon, lat) == text
    theirs = (torch.tensor([lon, lat]) * 4).round() / 4
    assert text == f"lat={theirs[1].item():.2f} lon={theirs[0].item():.2f} [EOS]"


@pytest.mark.slow
@pytest.mark.parametrize("modality", [BOTH, ["Coordinates", "S2L2A"]])
def test_coordinates_are_tokens_beside_the_image_and_no_part_of_the_grid(call, encoder, modality):
    tokens = by_hand(encoder, [IDS["lat=47.75"], IDS["lon=13.00"], IDS["[EOS]"]])
    grid = get_embedding(**call, modality=modality, output=OutputSpec.grid())
    np.testing.assert_allclose(grid.data, tokens[3:].T.reshape(192, 6, 6), atol=1e-5)
    without = get_embedding(**call, output=OutputSpec.grid())
    assert np.abs(grid.data - without.data).max() > 1e-3, "patches attend to them"
    for merge in ("mean", "max", "concat", "dict"):
        vector = get_embedding(**call, modality=modality, merge_method=merge)
        np.testing.assert_allclose(vector.data, tokens[3:].mean(dim=0), atol=1e-5)
    alike = get_embedding(**call, modality=modality, merge_method="none")
    np.testing.assert_allclose(alike.data, tokens.mean(dim=0), atol=1e-5)
    meta = alike.meta
    assert (meta["modality"], meta["cls_removed"]) == (("S2L2A", "Coordinates"), False)
    assert [one.modality for one in meta.inputs] == ["S2L2A"]
    assert meta.knobs["coords_tokenizer"].startswith("ckpt:coords.json#sha256:")


def test_every_window_is_told_its_own_centre(call):
    place = PointBuffer(lon=12.875, lat=47.77, buffer_m=2048)  # half way between two quarters of a degree
    plan = plan_embedding(**(call | {"spatial": place}), modality=BOTH)
    embedder, query = plan.job.embedder, plan.items[0].queries[0]
    chip = FieldProvider().fetch(query)
    windows = embedder.prepare({"S2L2A": chip}, frame_chip(chip.shape_px, "tile", embedder.geometry()))
    told = [[WORDS[number] for number in window.tensors["Coordinates"].tolist()] for window in windows]
    west, east = (["lat=47.75", f"lon={lon}", "[EOS]"] for lon in ("12.75", "13.00"))
    assert told == [west, east, west, east]
    embedding = get_embedding(**(call | {"spatial": place}), modality=BOTH)
    assert (embedding.meta["windows"], embedding.data.shape) == (4, (192,))


def test_windows_whose_texts_are_of_other_lengths_are_refused_and_not_padded(call, tmp_path):
    longer = ("[PAD]", "[UNK]", "[SOS]", "[EOS]", *WORDS[4:8], "lon=12", "##.75")
    call |= {"coords_tokenizer": write_tokenizer(tmp_path / "coords.json", longer)}
    place = PointBuffer(lon=12.875, lat=47.77, buffer_m=2048)
    with pytest.raises(InputError, match="same number of coordinate tokens") as caught:
        get_embedding(**(call | {"spatial": place}), modality=BOTH)
    assert "lon=12.75" in str(caught.value) and "lon=13.00" in str(caught.value)
    assert get_embedding(**(call | {"spatial": place}), modality=BOTH, input_prep="crop").data.shape == (192,)


def test_a_batch_of_places_is_told_each_its_own(call):
    places = [PLACE, PointBuffer(lon=12.7, lat=48.05, buffer_m=480)]
    options = {name: value for name, value in call.items() if name not in ("model_id", "spatial", "backend")}
    batch = get_embeddings("terramind_1_0_tiny", places, backend=FieldProvider(), modality=BOTH, **options)
    for place, one in zip(places, batch, strict=True):
        single = get_embedding(**(call | {"spatial": place}), modality=BOTH)
        np.testing.assert_allclose(one.data, single.data, atol=2e-5)


def test_arrays_say_where_they_lie_or_are_refused(call):
    dn = FieldProvider().fetch(plan_embedding("terramind", PLACE, backend=FieldProvider()).items[0].queries[0])
    call.pop("backend")
    placed = get_embedding(**call, modality=BOTH, input_chw=dn.values[0])
    np.testing.assert_allclose(
        placed.data, get_embedding(**call, backend=FieldProvider(), modality=BOTH).data, atol=1e-6
    )
    assert geobox_for(PLACE) == placed.geobox
    call.pop("spatial")
    with pytest.raises(SpecError, match="a place for Coordinates, got pixels without one") as caught:
        get_embedding(**call, modality=BOTH, input_chw=dn.values[0])
    assert "spatial=" in caught.value.fix
    with pytest.raises(InputError):
        get_embedding(**call, input_chw={"S2L2A": dn.values[0], "Coordinates": np.array([12.94, 47.77])})


def test_the_tokenizer_is_found_beside_the_checkpoint_and_counts_by_its_content(call, folder, tmp_path):
    named = get_embedding(**call, modality=BOTH)
    ckpt = tmp_path / "TerraMind_v1_tiny.pt"
    ckpt.symlink_to(folder / "TerraMind_v1_tiny.pt")
    write_tokenizer(tmp_path / "coords_tokenizer.json")
    beside = get_embedding(**(call | {"ckpt": ckpt, "coords_tokenizer": None}), modality=BOTH)
    np.testing.assert_array_equal(beside.data, named.data)
    other = write_tokenizer(tmp_path / "coords.json", (*WORDS[:6], *reversed(WORDS[6:])))
    swapped = get_embedding(**(call | {"coords_tokenizer": other}), modality=BOTH)
    assert np.abs(swapped.data - named.data).max() > 1e-4
    assert swapped.meta.fingerprint != named.meta.fingerprint


def test_the_tokenizer_is_had_from_the_hub_once(call, folder, tmp_path, monkeypatch):
    content = (folder / "coords.json").read_bytes()
    with HubServer({COORDS_TOKENIZER.hub: {"main": {"config.json": content}}}) as hub:
        asking = {"endpoint": hub.endpoint}  # HF_ENDPOINT is read once a process
        monkeypatch.setattr(_coordinates, "obtain", lambda weights, **how: obtain(weights, **(how | asking)))
        monkeypatch.setenv("RS_EMBED_CACHE_DIR", str(tmp_path))
        first = get_embedding(**(call | {"coords_tokenizer": None}), modality=BOTH)
        asked = len(hub.requests)
        second = get_embedding(**(call | {"coords_tokenizer": None}), modality=BOTH)
        assert len(hub.requests) == asked > 0
    assert first.meta.knobs["coords_tokenizer"].startswith(f"hub:{COORDS_TOKENIZER.hub}@")
    np.testing.assert_array_equal(first.data, second.data)


def refused(call: dict[str, object], error: type[RSEmbedError], *said: str, **options: object) -> None:
    provider = FieldProvider()
    with pytest.raises(error) as caught:
        get_embedding(**(call | {"backend": provider, "modality": BOTH} | options))
    for text in said:
        assert text in str(caught.value)
    assert caught.value.fix
    assert provider.queries == []


def test_a_tokenizer_that_is_not_there_is_said_before_anything_is_fetched(call, tmp_path, monkeypatch):
    monkeypatch.setenv("RS_EMBED_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("RS_EMBED_OFFLINE", "1")
    said = (COORDS_TOKENIZER.hub, "coords_tokenizer.json", "offline", "RS_EMBED_TERRAMIND_COORDS_TOKENIZER")
    refused(call, WeightsUnreachable, *said, coords_tokenizer=None)
    refused(call, WeightsNotFound, "/no/such.json", coords_tokenizer=Path("/no/such.json"))
    (tmp_path / "page.json").write_text("<html>")
    refused(call, WeightsCorrupt, "not a tokenizer file", coords_tokenizer=tmp_path / "page.json")
    other = write_tokenizer(tmp_path / "captions.json", ("[PAD]", "[UNK]", "[SOS]", "[EOS]", "a", "field"))
    refused(call, WeightsMismatch, "a tokenizer that knows coordinates", "[UNK] [UNK] [EOS]", coords_tokenizer=other)


def test_coordinates_alone_and_in_a_model_without_them_are_refused(call):
    refused(call, SpecError, "got Coordinates alone", "modality='S2L2A+Coordinates'", modality="Coordinates")
    refused(call, SpecError, "no modality 'Coordinates'", model_id="terramind_0_1_base", ckpt=None)
    refused(call, SpecError, "no modality 'coordinates'", "did you mean 'Coordinates'", modality="S2L2A+coordinates")
    assert describe_model("terramind")["place_modalities"] == ["Coordinates"]
    assert describe_model("thor")["place_modalities"] == []


@pytest.mark.slow
def test_a_checkpoint_without_coordinates_serves_everything_else(call, folder, tmp_path):
    state = torch.load(folder / "TerraMind_v1_tiny.pt", weights_only=True)
    short = {name: tensor for name, tensor in state.items() if ".coords." not in name}
    torch.save(short, tmp_path / "short.pt")
    np.testing.assert_array_equal(
        get_embedding(**(call | {"ckpt": tmp_path / "short.pt"})).data, get_embedding(**call).data
    )
    refused(call, WeightsMismatch, "encoder_embeddings.coords.mod_emb", ckpt=tmp_path / "short.pt")


def test_without_the_package_the_extra_is_named_when_the_call_is_planned(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr("rs_embed.core.optional.find_spec", lambda name: None if name == "tokenizers" else find(name))
    with pytest.raises(MissingDependency, match="tokenizers") as caught:
        plan_embedding("terramind", PLACE, backend=FieldProvider(), modality=BOTH)
    assert caught.value.fix == "pip install 'eo-rs-embed[coords]'"
