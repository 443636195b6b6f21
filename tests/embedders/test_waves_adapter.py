"""What networks of any bands are told, what of other sensors they take, and what they refuse."""

from dataclasses import replace
from datetime import date

import numpy as np
import pytest
import torch
from tiny import shrunken

from rs_embed import (
    Band,
    Collection,
    ModelCard,
    OutputSpec,
    PointBuffer,
    Region,
    SensorSpec,
    TemporalSpec,
    Unit,
    describe_model,
    get_embedding,
    get_embeddings,
    list_models,
    plan_embedding,
    register_collection,
)
from rs_embed.core.bands import COLLECTIONS
from rs_embed.core.chip import Chip
from rs_embed.embedders.card import BandStats, Modality
from rs_embed.embedders.prepare.framing import frame_chip
from rs_embed.errors import BandMismatch, InputError, PixelWarning, SpecError
from rs_embed.testing import FieldProvider, hills

pytestmark = pytest.mark.filterwarnings("ignore::rs_embed.errors.ScaleWarning")
SIZE = {"dim": 64, "depth": 2, "heads": 1}
CLAY, DOFA, COPERNICUS = (
    shrunken(model_id, **SIZE) for model_id in ("clay_1_5_large", "dofa_1_0_base", "copernicus_fm_base")
)
FAMILIES = [CLAY, DOFA, COPERNICUS]
PLACE = PointBuffer(lon=12.94, lat=47.77, buffer_m=480)
SUMMER = TemporalSpec.range("2022-06-01", "2022-09-01")


def embed(card: ModelCard, **options):
    call = {"spatial": PLACE, "temporal": SUMMER, "backend": FieldProvider(), "pretrained": False} | options
    if "input_chw" in call:
        call = {name: value for name, value in call.items() if name not in ("backend", "temporal", "spatial")}
    return get_embedding(card, **call)


def inputs_of(card: ModelCard, *, dated: bool = True, placed: bool = True, **options) -> dict[str, torch.Tensor]:
    """The tensors of the network for the first window of a place."""
    plan = plan_embedding(card, PLACE, SUMMER, backend=FieldProvider(), pretrained=False, **options)
    embedder, query = plan.job.embedder, plan.items[0].queries[0]
    chip = FieldProvider().fetch(query)
    chip = replace(chip, times=chip.times if dated else (None,), geobox=chip.geobox if placed else None)
    frame = frame_chip(chip.values.shape[2:], plan.prep, embedder.geometry())
    return dict(embedder.prepare({query.modality: chip}, frame)[0].tensors)


@pytest.mark.parametrize("card", FAMILIES, ids=lambda card: card.id)
def test_they_need_no_extra_and_are_listed(card):
    model_id = card.id.removesuffix("_shrunken")
    assert model_id in list_models()
    assert describe_model(model_id)["extra"] is None


@pytest.mark.parametrize("card", FAMILIES, ids=lambda card: card.id)
@pytest.mark.parametrize("name", ["s2", "s1", "l8", "l9_l1", "naip", "linz", "modis", "gaofen", "s1_rtc", "s2_l1c"])
def test_every_modality_is_embedded_in_its_own_unit_and_pixel(card, name):
    if name not in card.modality_names:
        return
    modality = card.modality(name)
    scale_m, unit = modality.sensor.scale_m, COLLECTIONS[modality.sensor.collection].bands[0].unit
    level = {Unit.BYTE: 100, Unit.DB: -15, Unit.REFLECTANCE: 0.2}.get(unit, 9000)
    provider = FieldProvider(lambda lon, lat, band: level * (1 + 0.2 * np.sin(1e4 * lon)))
    place = PointBuffer(lon=12.94, lat=47.77, buffer_m=32 * scale_m)
    with pytest.warns(PixelWarning) if unit is Unit.DN and card is DOFA else nothing():
        embedding = embed(card, modality=name, spatial=place, backend=provider)
    assert np.isfinite(embedding.data).all()
    assert embedding.meta["wavelengths_um"] == [modality.stats[band].wavelength_um for band in modality.sensor.bands]
    assert provider.queries[0].geobox.resolution.x == scale_m


class nothing:
    def __enter__(self): ...

    def __exit__(self, *_): ...


def test_clay_is_told_week_and_hour_and_place_as_angles_and_zeros_where_they_are_unknown():
    known = inputs_of(CLAY)
    week = date(2022, 6, 1).isocalendar().week * 2 * np.pi / 52
    lat, lon = np.radians([47.77, 12.94])
    np.testing.assert_allclose(known["date"], [np.sin(week), np.cos(week), 0, 1], atol=1e-6)
    np.testing.assert_allclose(known["place"], [np.sin(lat), np.cos(lat), np.sin(lon), np.cos(lon)], atol=1e-4)
    for unknown in (inputs_of(CLAY, dated=False, placed=False), inputs_of(CLAY, metadata=False)):
        assert not unknown["date"].any() and not unknown["place"].any()
    assert embed(CLAY).meta["told"] == ["date", "place"]
    assert embed(CLAY, metadata=False).meta["told"] == []


def test_clay_is_told_the_size_of_a_pixel_on_the_ground():
    fine, coarse = (embed(CLAY, sensor=replace(CLAY.modality("s2").sensor, scale_m=m)).meta for m in (10.0, 20.0))
    assert fine["ground_cover_m"] == coarse["ground_cover_m"] == 960
    assert (fine["gsd_m"], coarse["gsd_m"]) == pytest.approx((10, 20), rel=0.01)


def test_the_vector_of_clay_is_its_class_token_unless_patches_are_asked_for():
    vector, grid = embed(CLAY), embed(CLAY, output=OutputSpec.grid())
    patches = embed(CLAY, pooled="patch")
    assert (vector.meta["pooling"], patches.meta["pooling"]) == ("class_token", "patch_mean")
    np.testing.assert_allclose(patches.data, grid.data.mean(axis=(1, 2)), atol=2e-5)
    assert np.abs(vector.data - patches.data).max() > 1e-2
    for refused in ({"output": OutputSpec.pooled("max")}, {"spatial": Region([(7, 51), (7.01, 51), (7, 51.01)])}):
        with pytest.raises(SpecError) as caught:
            embed(CLAY, **refused)
        assert 'pooled="patch"' in caught.value.fix


def test_copernicus_fm_is_told_days_degrees_and_the_ground_of_a_patch():
    known = inputs_of(COPERNICUS)
    assert known["date"].item() == (date(2022, 6, 1) - date(1970, 1, 1)).days
    np.testing.assert_allclose(known["place"], [12.94, 47.77], atol=1e-3)
    assert embed(COPERNICUS).meta["told"] == ["date", "place", "area"]
    assert embed(COPERNICUS, metadata=False).meta["told"] == []
    assert inputs_of(COPERNICUS, dated=False).keys() == {"image", "place"}


def test_places_with_and_without_a_date_never_share_a_batch_of_copernicus_fm():
    """The authors' code takes one unknown date for all unknown."""

    class Undated(FieldProvider):
        def fetch(self, query) -> Chip:
            chip = super().fetch(query)
            return chip if query.geobox.boundingbox.left > 345_000 else replace(chip, times=(None,))

    places = [PointBuffer(lon=12.9 + i / 10, lat=47.77, buffer_m=480) for i in range(3)]
    batch = get_embeddings(COPERNICUS, places, SUMMER, backend=Undated(), pretrained=False)
    assert [one.meta["told"] for one in batch] == [["place", "area"], *[["date", "place", "area"]] * 2]
    for place, one in zip(places, batch, strict=True):
        np.testing.assert_allclose(one.data, embed(COPERNICUS, spatial=place, backend=Undated()).data, atol=2e-5)


def test_patches_too_small_for_the_code_of_areas_are_refused_with_the_way_out():
    tiny = PointBuffer(lon=12.94, lat=47.77, buffer_m=60)
    with pytest.raises(InputError, match="0.001"):
        embed(COPERNICUS, spatial=tiny, input_prep="resize")
    assert np.isfinite(embed(COPERNICUS, spatial=tiny, input_prep="resize", metadata=False).data).all()


@pytest.mark.parametrize("card", FAMILIES, ids=lambda card: card.id)
def test_some_of_the_bands_in_any_order_are_taken_by_their_wavelengths(card):
    some, turned = (embed(card, bands=bands) for bands in (["B4", "B3", "B8"], ["B8", "B4", "B3"]))
    np.testing.assert_allclose(some.data, turned.data, atol=1e-4)
    assert np.abs(some.data - embed(card).data).max() > 1e-3
    assert some.meta["wavelengths_um"] == [card.modality("s2").stats[band].wavelength_um for band in ("B4", "B3", "B8")]


def test_statistics_of_landsat_are_those_of_its_numbers_as_delivered():
    stats, dn = CLAY.modality("l8").stats["SR_B4"], np.array([13705.0, 13705 + 9578])
    reflectance = 2.75e-05 * dn - 0.2
    np.testing.assert_allclose((reflectance - stats.mean) / stats.std, [0, 1], atol=1e-6)
    ours = DOFA.modality("l8").stats["SR_B4"]
    assert (ours.mean, ours.std) == (stats.mean, stats.std)


def test_what_is_brighter_than_the_training_data_of_dofa_could_be_is_cut_off_as_they_were():
    def bright(dn: float) -> FieldProvider:
        return FieldProvider(lambda lon, lat, band: np.full_like(lon, dn) + 100 * (lon > 12.94))

    with pytest.warns(PixelWarning, match="are clipped"):
        same = [embed(DOFA, backend=bright(dn)).data for dn in (8160, 12_000)]
    np.testing.assert_array_equal(*same)
    with pytest.warns(PixelWarning, match="are clipped"):
        assert np.abs(embed(DOFA, backend=bright(4000)).data - same[0]).max() > 1e-4


SUPERDOVE = {
    "blue": (1715.0, 698.0, 0.49),
    "green": (2088.0, 768.0, 0.565),
    "red": (2290.0, 868.0, 0.665),
    "nir": (3970.0, 914.0, 0.865),
}


@pytest.mark.parametrize("card", [CLAY, DOFA], ids=lambda card: card.id)
def test_a_sensor_of_one_s_own_is_a_collection_with_wavelengths(card):
    collection = "TEST/SUPERDOVE"
    register_collection(Collection(collection, tuple(Band(name, Unit.DN, 3) for name in SUPERDOVE)), replace=True)
    stats = {name: BandStats(name, Unit.DN, mean, std, um) for name, (mean, std, um) in SUPERDOVE.items()}
    sensor = SensorSpec(collection, tuple(stats), scale_m=3, fill_value="mean")
    own = replace(card, id=f"{card.id}_own", modalities=(Modality("planet", sensor, stats, 224, 8),))
    if card is DOFA:
        own = replace(own, modalities=(replace(own.modalities[0], patch_px=16),))
    place = PointBuffer(lon=12.94, lat=47.77, buffer_m=100)
    embedding = embed(own, spatial=place, backend=FieldProvider(hills))
    assert embedding.meta["wavelengths_um"] == [0.49, 0.565, 0.665, 0.865]
    blind = {name: replace(one, wavelength_um=None) for name, one in stats.items()}
    provider = FieldProvider(hills)
    with pytest.raises(BandMismatch, match="wavelength_um of blue") as caught:
        embed(replace(own, modalities=(replace(own.modalities[0], stats=blind),)), spatial=place, backend=provider)
    assert "BandStats(..., wavelength_um=...)" in caught.value.fix
    assert provider.queries == []


@pytest.mark.parametrize("card", FAMILIES, ids=lambda card: card.id)
def test_several_modalities_are_refused_where_the_network_has_one_image(card):
    provider = FieldProvider()
    with pytest.raises(SpecError, match="Expected one modality"):
        embed(card, backend=provider, modality=list(card.modality_names[:2]))
    assert provider.queries == []


def test_the_file_of_clay_is_read_without_decoder_and_teacher_which_are_named(tmp_path):
    network = plan_embedding(CLAY, PLACE, SUMMER, backend=FieldProvider(), pretrained=False).job.embedder.network
    state = {f"model.encoder.{name}": tensor for name, tensor in network.module.state_dict().items()}
    state |= {"model.decoder.mask_patch": torch.zeros(8), "model.proj.weight": torch.ones(2, 2)}
    state |= {"model.teacher.cls_token": torch.zeros(1, 1, 4), "model.teacher.blocks.0.norm1.weight": torch.ones(4)}
    path = tmp_path / "clay-v1.5.ckpt"
    torch.save({"state_dict": state, "epoch": 76, "hyper_parameters": {"model_size": "large", "dolls": [16]}}, path)
    loaded = embed(CLAY, ckpt=path, pretrained=True)
    np.testing.assert_array_equal(loaded.data, embed(CLAY).data)
    assert loaded.meta["weights_note"] == "beside the encoder, not used: decoder (1), proj (1), teacher (2)"


def test_the_file_of_copernicus_fm_holds_a_second_patch_embedding_which_is_named(tmp_path):
    network = plan_embedding(COPERNICUS, PLACE, SUMMER, backend=FieldProvider(), pretrained=False).job.embedder.network
    state = dict(network.module.state_dict()) | {"patch_embed_variable.language_proj.weight": torch.ones(2, 2)}
    path = tmp_path / "copernicus.pth"
    torch.save({"model": state}, path)
    loaded = embed(COPERNICUS, ckpt=path, pretrained=True)
    assert loaded.meta["weights_note"] == "beside the encoder, not used: patch_embed_variable (1)"


@pytest.mark.parametrize("card", [CLAY, COPERNICUS], ids=lambda card: card.id)
def test_pixels_are_standardised_with_the_card_s_statistics_or_taken_as_they_are(card):
    raw, scaled = (inputs_of(card, normalize=how, input_prep="crop")["image"] for how in ("none", "card_stats"))
    stats = [card.modality("s2").stats[band] for band in card.modality("s2").sensor.bands]
    mean, std = (torch.tensor([getattr(one, part) for one in stats])[:, None, None] for part in ("mean", "std"))
    torch.testing.assert_close(scaled, (raw - mean) / std, rtol=0, atol=1e-5)
