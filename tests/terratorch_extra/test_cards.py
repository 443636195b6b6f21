"""Models that are cards of TerraTorch backbones: what TerraTorch computes from the same file and the same pixels."""

from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from rs_embed import (
    OutputSpec,
    PointBuffer,
    TemporalSpec,
    describe_model,
    geobox_for,
    get_embedding,
    get_embeddings,
    list_models,
    plan_embedding,
)
from rs_embed.embedders.cards.terratorch import TerraTorchCard
from rs_embed.embedders.catalog import CARDS, get_card
from rs_embed.errors import MissingDependency, SpecError, WeightsMismatch
from rs_embed.testing import FieldProvider, pixel_centres

pytestmark = [
    pytest.mark.filterwarnings("ignore::rs_embed.errors.ScaleWarning"),
    pytest.mark.filterwarnings("ignore:More than 5%:rs_embed.errors.PixelWarning"),
]
INSTALLED = find_spec("terratorch") is not None
with_terratorch = pytest.mark.skipif(not INSTALLED, reason="terratorch is not installed here: `make parity`")
PLACE = PointBuffer(lon=12.94, lat=47.77, buffer_m=3360)
SUMMER = TemporalSpec.range("2022-06-01", "2022-09-01")
CHEAP = {
    "clay": get_card("clay_1_0_base"),
}
"""One of each family."""
OF_TERRATORCH = [card for card in CARDS if isinstance(card, TerraTorchCard)]


def embed(card: TerraTorchCard, **options):
    call = {"spatial": PLACE, "temporal": SUMMER, "backend": FieldProvider(), "pretrained": "ckpt" in options} | options
    if "input_chw" in call:
        del call["backend"]
        call.pop("temporal")
    return get_embedding(card, **call)


def test_listing_and_describing_name_the_extra_and_need_nothing_of_it():
    assert {card.id for card in OF_TERRATORCH} < set(list_models())
    assert len(OF_TERRATORCH) == 1
    for card in OF_TERRATORCH:
        assert describe_model(card.id)["extra"] == "terratorch"
        assert card.weights is not None and card.weights.licence == card.licence


@pytest.mark.skipif(INSTALLED, reason="terratorch is installed here")
@pytest.mark.parametrize("family", CHEAP)
def test_without_the_extra_the_error_comes_before_anything_is_fetched(family):
    provider = FieldProvider()
    with pytest.raises(MissingDependency, match=r"eo-rs-embed\[terratorch\]"):
        embed(CHEAP[family], backend=provider)
    assert provider.queries == []


@pytest.mark.parametrize("card", OF_TERRATORCH, ids=lambda card: card.id)
def test_several_modalities_are_refused_where_the_network_has_one_image(card):
    provider = FieldProvider()
    names = [*card.modality_names, "s2"][:2]
    with pytest.raises(SpecError, match="modalit"):
        embed(card, backend=provider, modality=names)
    assert provider.queries == []


def authors_facts(card: TerraTorchCard) -> dict[str, object]:
    """What TerraTorch and TorchGeo say of the same model."""
    from rs_embed.embedders.runtime.terratorch import load_terratorch

    load_terratorch()
    from terratorch.models.backbones.clay_v1.embedder import default_cfgs

    clay = default_cfgs["clay_v1_base"].default
    return {"file": (clay.hf_hub_id, None, clay.hf_hub_filename)}


@with_terratorch
@pytest.mark.parametrize("card", OF_TERRATORCH, ids=lambda card: card.id)
def test_every_card_says_what_terratorch_and_torchgeo_say(card):
    facts = authors_facts(card)
    assert facts == {"file": (card.weights.hub, card.weights.revision, card.weights.file)}
    with torch.device("meta"):
        module = build(card)
    millions = sum(one.numel() for one in module.parameters()) / 1e6
    assert millions == pytest.approx(card.parameters_m, rel=0.005)


def build(card: TerraTorchCard, **options):
    from rs_embed.embedders.runtime.terratorch import leaving_no_trace, load_terratorch

    with leaving_no_trace():
        name, given = card.backbone.builder, {**card.backbone.options, **card.arch}
        return load_terratorch().backbones.build(name, **{"pretrained": False, **given, **options}).eval()


def published(card: TerraTorchCard, path: Path) -> tuple[Path, dict]:
    """A file laid out as the authors' own, and the options with which TerraTorch loads it."""

    torch.manual_seed(5)
    state = varied(build(card).state_dict())
    bare = {name.removeprefix(card.backbone.prepend): tensor for name, tensor in state.items()}
    others = {"model.decoder.mask": torch.zeros(3), "model.teacher.norm.weight": torch.ones(3)}
    lightning = {f"model.encoder.{name}": tensor for name, tensor in bare.items()} | others
    torch.save({"state_dict": lightning, "epoch": 1}, path)
    return path, {"ckpt_path": str(path)}


def varied(state: dict) -> dict:
    """Nothing at its default, so that a tensor that was not loaded shows."""
    return {
        name: tensor if "pos_embed" in name else tensor + 0.02 * torch.randn_like(tensor)
        for name, tensor in state.items()
    }


@with_terratorch
@pytest.mark.parametrize("family", CHEAP)
def test_tokens_are_those_of_terratorch_from_the_same_file_and_pixels(family, tmp_path):
    card = CHEAP[family]
    file, options = published(card, tmp_path / "weights.pt")
    modality = card.modalities[0]
    provider, side = FieldProvider(), modality.image_px
    place = PointBuffer(lon=12.94, lat=47.77, buffer_m=side * modality.sensor.scale_m / 2)
    grid = embed(card, ckpt=file, spatial=place, backend=provider, output=OutputSpec.grid(), input_prep="crop")

    chip = provider.fetch(provider.queries[0])
    mean, std = (np.array([getattr(one, part) for one in modality.stats.values()]) for part in ("mean", "std"))
    x = torch.from_numpy(((chip.values[0].T - mean) / std).T.astype(np.float32))[None]
    told, week = {}, datetime(2022, 6, 1, tzinfo=UTC).isocalendar().week * 2 * np.pi / 52
    lon, lat = (float(np.median(degrees)) for degrees in pixel_centres(chip.geobox))
    if family == "clay":
        angles = np.radians([lat, lat, lon, lon])
        told = {"time": torch.tensor([[np.sin(week), np.cos(week), 0, 1]], dtype=torch.float32), "gsd": 10.0}
        told["latlon"] = torch.tensor([[np.sin(angles[0]), np.cos(angles[0]), np.sin(angles[2]), np.cos(angles[2])]])
        told["latlon"] = told["latlon"].float()
    with torch.no_grad():
        last = build(card, **options)(x, **told)[-1]
    rows = side // modality.patch_px
    expected = last[0] if last.ndim == 4 else last[0, 1:].T.reshape(-1, rows, rows)
    tolerance = 2e-5 + 5e-6 * expected.abs().max().item()
    np.testing.assert_allclose(grid.data, expected.numpy(), rtol=0, atol=max(tolerance, 1e-4 if told else 0))
    assert grid.data.shape == (card.dim, rows, rows)


@with_terratorch
@pytest.mark.parametrize("family", CHEAP)
def test_a_file_of_another_model_is_refused(family, tmp_path):
    file, _ = published(CHEAP[family], tmp_path / "weights.pt")
    state = torch.load(file, weights_only=True)
    tensors = state.get("state_dict", state)
    name = next(name for name in tensors if "blocks" in name or "layers" in name)
    tensors[f"{name}_of_another"] = tensors.pop(name)
    torch.save(state, file)
    with pytest.raises(WeightsMismatch, match="1 tensors missing, 1 unexpected"):
        embed(CHEAP[family], ckpt=file)


@with_terratorch
@pytest.mark.parametrize("family", ["clay"])
def test_date_and_place_change_the_numbers_unless_they_are_not_to_be_told(family):
    card, day = CHEAP[family], TemporalSpec.range("2021-01-10", "2021-02-01")
    field = FieldProvider(lambda lon, lat, band: np.full_like(lon, 1500.0))
    elsewhere = PointBuffer(lon=12.94, lat=-20, buffer_m=PLACE.buffer_m)
    ways = [{}, {"temporal": day}, {"spatial": elsewhere}]
    told = [embed(card, backend=field, **way).data for way in ways]
    untold = [embed(card, backend=field, metadata=False, **way).data for way in ways]
    assert all(np.abs(told[0] - one).max() > 1e-4 for one in [*told[1:], untold[0]])
    for one in untold[1:]:
        np.testing.assert_allclose(one, untold[0], atol=1e-5)


@with_terratorch
@pytest.mark.parametrize("family", ["clay"])
def test_an_array_without_date_and_place_is_taken_without_them(family):
    card, provider = CHEAP[family], FieldProvider()
    untold = embed(card, backend=provider, metadata=False).data
    chip = provider.fetch(provider.queries[0])
    alone = get_embedding(card, input_chw=chip.values[0], pretrained=False)
    np.testing.assert_allclose(alone.data, untold, atol=2e-5)


@with_terratorch
@pytest.mark.parametrize("family", CHEAP)
def test_single_and_batch_give_the_same_numbers_and_the_card_their_size(family):
    card = CHEAP[family]
    places = [PointBuffer(lon=12.94 + i / 10, lat=47.77, buffer_m=1500 + 300 * i) for i in range(2)]
    grids = get_embeddings(card, places, SUMMER, OutputSpec.grid(), FieldProvider(), pretrained=False)
    for place, grid in zip(places, grids, strict=True):
        assert grid.data.shape[0] == card.dim and np.isfinite(grid.data).all()
        single = embed(card, spatial=place, output=OutputSpec.grid())
        np.testing.assert_allclose(grid.data, single.data, atol=5e-5)
    vector = embed(card, spatial=places[0])
    assert vector.meta["terratorch"] == version("terratorch")
    np.testing.assert_allclose(vector.data, grids[0].data.mean(axis=(1, 2)), atol=5e-5)


@with_terratorch
@pytest.mark.parametrize(("family", "prep"), [*((family, "crop") for family in CHEAP), ("clay", "tile")])
def test_a_bright_square_is_found_where_it_lies(family, prep):
    card = CHEAP[family]
    modality = card.modalities[0]
    scale_m, cell_px = modality.sensor.scale_m, 2 * modality.patch_px
    place = PointBuffer(lon=12.94, lat=47.77, buffer_m=(modality.image_px + 4 * cell_px) * scale_m / 2)

    def at(row, col):
        def field(lon, lat, band):
            rows, cols = np.mgrid[: lon.shape[0], : lon.shape[1]] // cell_px
            return np.where((rows == row) & (cols == col), 3000.0, 1000.0)

        return embed(card, spatial=place, output=OutputSpec.grid(), input_prep=prep, backend=FieldProvider(field))

    flat, square = at(-1, -1), at(7, 4)
    change = np.abs(square.data - flat.data).mean(axis=0)
    row, col = np.unravel_index(change.argmax(), change.shape)
    east, north = flat.geobox.affine @ (col + 0.5, row + 0.5)
    chip = geobox_for(place, scale_m).boundingbox
    cell_m = cell_px * scale_m
    assert (int((chip.top - north) // cell_m), int((east - chip.left) // cell_m)) == (7, 4)


@with_terratorch
def test_half_precision_keeps_the_date(tmp_path):
    file, _ = published(CHEAP["clay"], tmp_path / "weights.pt")
    full, half = (embed(CHEAP["clay"], ckpt=file, precision=precision).data for precision in ("fp32", "bf16"))
    assert np.corrcoef(full, half)[0, 1] > 0.999


@with_terratorch
def test_using_them_leaves_the_precision_of_the_process_and_its_random_numbers_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    embed(replace(CHEAP["clay"], id="clay_other", aliases=()))
    assert torch.equal(torch.rand(2), expected)
    assert torch.get_float32_matmul_precision() == "highest"


@with_terratorch
@pytest.mark.parametrize("family", CHEAP)
def test_layers_are_what_terratorch_gives_behind_each_block(family):
    card = CHEAP[family]
    numbers = [0, -1]
    each = [embed(card, layers=one, output=OutputSpec.grid()) for one in numbers]
    both = embed(card, layers=numbers, output=OutputSpec.grid())
    np.testing.assert_array_equal(both.data, np.concatenate([one.data for one in each]))
    usual = embed(card, output=OutputSpec.grid())
    np.testing.assert_array_equal(usual.data, each[1].data)
    assert usual.meta["layers"] == each[1].meta["layers"] and each[0].meta["layers"] == [0]
    assert np.abs(each[0].data - each[1].data).max() > 1e-3


SECOND_BLOCK = {
    "clay": "clay_encoder.transformer.layers.1.0",
}


@with_terratorch
@pytest.mark.parametrize("family", CHEAP)
def test_a_first_layer_is_what_enters_the_second_block(family):
    card, caught = CHEAP[family], []
    call = {"temporal": SUMMER, "backend": FieldProvider(), "pretrained": False, "input_prep": "crop", "layers": 0}
    plan = plan_embedding(card, PLACE, output=OutputSpec.grid(), **call)
    block = plan.job.embedder.network.module.get_submodule(SECOND_BLOCK[family])
    hook = block.register_forward_pre_hook(lambda module, given: caught.append(given[0]))
    (found,) = plan.run()
    hook.remove()
    (state,) = caught
    np.testing.assert_allclose(found.data.reshape(card.dim, -1), state[0, 1:].T, atol=2e-6)
