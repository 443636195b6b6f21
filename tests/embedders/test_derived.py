"""Channels that a card computes from bands: NDVI and slope, with statistics, nodata and errors of their own."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from echo import CARD as ECHO
from torch.nn.functional import avg_pool2d

from rs_embed import (
    OutputSpec,
    PointBuffer,
    SensorSpec,
    TemporalSpec,
    describe_model,
    geobox_for,
    get_embedding,
    inspect_chip,
    register_model,
    save_statistics,
)
from rs_embed.core.bands import Unit
from rs_embed.embedders import catalog
from rs_embed.embedders.base import Embedder, ModelInput, Network
from rs_embed.embedders.card import BandStats, DerivedBand, Modality
from rs_embed.embedders.prepare.framing import InputGeometry, cut_windows
from rs_embed.embedders.prepare.normalize import to_frames, to_image, unscaled, z_score
from rs_embed.encoders.tokens import TokenGrid, TokenLayout, Tokens
from rs_embed.errors import BandMismatch, SpecError
from rs_embed.testing import FieldProvider, pixel_centres

PLACE, YEAR, GRID = PointBuffer(lon=12.94, lat=47.77, buffer_m=160), TemporalSpec.year(2022), OutputSpec.grid()


def _ndvi(bands, pixel_m):
    return (bands["B8"] - bands["B4"]) / (bands["B8"] + bands["B4"])


def _slope(bands, pixel_m):
    south, east = np.gradient(bands["DEM"], pixel_m, axis=(1, 2))
    return np.degrees(np.arctan(np.hypot(south, east))).astype(np.float32)


NDVI = DerivedBand("NDVI", Unit.INDEX, ("B8", "B4"), _ndvi)
SLOPE = DerivedBand("slope", Unit.METRE, ("DEM",), _slope)
"""In degrees, for which there is no unit."""
S2 = Modality(
    "s2",
    SensorSpec("COPERNICUS/S2_SR_HARMONIZED", ("B4", "B8")),
    {
        "B4": BandStats("red", Unit.DN, 0, 1),
        "B8": BandStats("nir", Unit.DN, 0, 1),
        "NDVI": BandStats("ndvi", Unit.INDEX, 0.5, 0.25),
    },
    image_px=32,
    patch_px=1,
    derived=(NDVI,),
)
DEM = Modality(
    "dem",
    SensorSpec("COPERNICUS/DEM/GLO30", ("DEM",), scale_m=10),
    {"DEM": BandStats("height", Unit.METRE, 0, 1), "slope": BandStats("slope", Unit.METRE, 0, 1)},
    image_px=32,
    patch_px=1,
    derived=(SLOPE,),
)


class Channels(Embedder):
    """Every channel of a pixel, as it is given to the network."""

    scaling = staticmethod(lambda modality, sensor: z_score(modality, sensor, clamp_sigma=None))

    @staticmethod
    def build(request, settings):
        return Network(torch.nn.Identity(), "none")

    def geometry(self):
        return InputGeometry(32, lattice_px=1, square=False, patch_px=1)

    def prepare(self, chips, frame):
        images = [to_image(chips[m.name], m, sensor, self.scaling(m, sensor)) for m, sensor in self.request.inputs]
        return [ModelInput({"image": cut}) for cut in cut_windows(torch.cat(images), frame)]

    def encode(self, batch):
        image = avg_pool2d(batch.tensors["image"], 1)
        return Tokens(image.flatten(2).mT, TokenLayout((TokenGrid("patch", *image.shape[2:]),)))


class Unscaled(Channels):
    scaling = staticmethod(unscaled)


def card(kind=Channels, **changes):
    facts = {"id": kind.__name__, "adapter": kind, "modalities": (S2, DEM), "input_prep": "tile", "dim": 3}
    return replace(ECHO, **facts, **changes)


def meadow(lon, lat, band):
    """NDVI of 0.6 everywhere, on a plane that rises by a metre a metre to the north."""
    return {"B4": np.full_like(lon, 500.0), "B8": np.full_like(lon, 2000.0)}.get(band, 0 * lon)


def embed(kind=Channels, field=meadow, **options):
    return get_embedding(card(kind), PLACE, YEAR, GRID, FieldProvider(field), **options)


def test_a_derived_band_is_the_last_channel_standardised_with_its_own_statistics():
    np.testing.assert_allclose(embed().data[:, 3, 3], [500, 2000, (0.6 - 0.5) / 0.25], rtol=1e-5)
    np.testing.assert_allclose(embed(Unscaled).data[:, 3, 3], [500, 2000, 0.6], rtol=1e-5)


def test_it_is_told_the_pixel_size():
    geobox = geobox_for(PLACE)
    rows = np.arange(geobox.shape[0])[:, None] * np.ones(geobox.shape[1])

    def plane(lon, lat, band):
        return 10.0 * rows

    found = get_embedding(card(), PLACE, YEAR, GRID, FieldProvider(plane), modality="dem")
    np.testing.assert_allclose(found.data[1], 45, rtol=1e-5)


def test_nodata_of_a_source_is_nodata_of_what_is_derived_and_becomes_its_mean():
    def hole(lon, lat, band):
        values = meadow(lon, lat, band)
        values[:4] = np.nan if band == "B4" else values[:4]
        return values

    def zero(lon, lat, band):
        values = meadow(lon, lat, band)
        values[5, 5] = 0  # 0 / 0
        return values

    chips = inspect_chip(card(), PLACE, YEAR, FieldProvider(hole)).chips
    image = to_image(chips["s2"], S2, S2.sensor, z_score(S2, S2.sensor, None))
    assert image[2, 0, 0] == 0
    assert image[2, 8, 8] == pytest.approx(0.4)
    with np.errstate(invalid="ignore"):
        assert embed(field=zero).data[2, 5, 5] == 0


def test_a_series_has_it_in_every_frame():
    values = pixel_centres(geobox_for(PLACE))[0].astype(np.float32)
    chip = inspect_chip(card(), PLACE, YEAR, FieldProvider(meadow)).chips["s2"]
    many = replace(chip, values=np.concatenate([chip.values, 2 * chip.values]), times=chip.times * 2)
    frames = to_frames(many, S2, S2.sensor, z_score(S2, S2.sensor, None))
    assert frames.shape == (2, 3, *values.shape)
    np.testing.assert_allclose(frames[:, 2], 0.4, rtol=1e-5)


def test_without_a_source_it_is_refused_before_anything_is_fetched():
    ground = FieldProvider(meadow)
    with pytest.raises(BandMismatch, match="Expected B8 among the bands of s2") as caught:
        get_embedding(card(), PLACE, YEAR, GRID, ground, bands=["B4"])
    assert caught.value.facts == {"found": "B4"}
    assert ground.queries == []


def test_a_card_must_have_statistics_of_every_channel():
    with pytest.raises(SpecError, match="got none of NDVI"):
        replace(S2, stats={name: stats for name, stats in S2.stats.items() if name != "NDVI"})


def test_it_is_described_and_counted_in_statistics(tmp_path, monkeypatch):
    monkeypatch.setattr(catalog, "_REGISTERED", {})
    register_model(card())
    assert describe_model("Channels")["modalities"][0]["derived"] == ["NDVI"]
    assert describe_model("anysat")["modalities"][1]["derived"] == ["VV/VH"]
    chips = inspect_chip(card(), PLACE, YEAR, FieldProvider(meadow)).chips
    text = save_statistics(tmp_path / "mine.json", [chips], derived=[NDVI, SLOPE]).read_text()
    assert '"NDVI"' in text
    assert '"slope"' not in text
