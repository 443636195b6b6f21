"""A place that lacks an optional modality is embedded without it: masked for the model, and said in the metadata."""

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
    export_embeddings,
    get_embedding,
    get_embeddings,
    inspect_chip,
    open_run,
)
from rs_embed.core.bands import bands_of
from rs_embed.embedders.base import Embedder, ModelInput, Network, Readout
from rs_embed.embedders.card import BandStats, Modality, ModelCard
from rs_embed.embedders.prepare.framing import InputGeometry, cut_windows
from rs_embed.encoders.tokens import TokenGrid, TokenLayout, Tokens
from rs_embed.errors import BatchError, NoImagery, NoValidPixels, OutsideCoverage, ReadError, SensorNotOffered
from rs_embed.testing import FieldProvider, pixel_centres

YEAR, GRID = TemporalSpec.year(2022), OutputSpec.grid()
EAST, WEST = PointBuffer(lon=12.94, lat=47.77, buffer_m=160), PointBuffer(lon=7.0, lat=51.0, buffer_m=160)
"""Radar has seen the east only."""


class Masked(Embedder):
    """Tokens are the mean of each modality, or 0 with a mask of 0 where the place lacks it."""

    readout = Readout(4)

    @staticmethod
    def build(request, settings):
        return Network(torch.nn.Identity(), "none")

    def geometry(self):
        return InputGeometry(32, lattice_px=8, square=False, patch_px=8)

    def prepare(self, chips, frame):
        shape = frame.keep_px
        parts = []
        for modality, _ in self.request.inputs:
            there = modality.name in chips
            values = torch.from_numpy(chips[modality.name].values[0]).nan_to_num() if there else torch.zeros(1, *shape)
            parts += [values, torch.full((1, *shape), float(there))]
        return [ModelInput({"image": cut}) for cut in cut_windows(torch.cat(parts), frame)]

    def encode(self, batch):
        cells = avg_pool2d(batch.tensors["image"], 8)
        return Tokens(cells.flatten(2).mT, TokenLayout((TokenGrid("patch", *cells.shape[2:]),)))


class Apart(Masked):
    """The same numbers, but what each modality sees is a grid of its own."""

    readout = Readout(2, {"s2": ("s2",), "s1": ("s1",)}, pools_merged=True)

    def encode(self, batch):
        cells = avg_pool2d(batch.tensors["image"], 8)
        grids = tuple(TokenGrid(name, *cells.shape[2:]) for name in ("s2", "s1"))
        parts = [cells[:, start : start + 2].flatten(2).mT for start in (0, 2)]
        return Tokens(torch.cat(parts, dim=1), TokenLayout(grids))


def modality(name: str, collection: str, band: str, *, optional: bool = True) -> Modality:
    (known,) = bands_of(collection, (band,))
    stats = {band: BandStats(band, known.unit, 0, 1)}
    return Modality(name, SensorSpec(collection, (band,)), stats, image_px=32, patch_px=8, optional=optional)


def card(kind: type[Embedder] = Masked, **optional: bool) -> ModelCard:
    both = modality("s2", "COPERNICUS/S2_SR_HARMONIZED", "B2"), modality("s1", "COPERNICUS/S1_GRD", "VV")
    modalities = tuple(replace(one, optional=optional.get(one.name, True)) for one in both)
    return replace(ECHO, id=kind.__name__, adapter=kind, modalities=modalities, dim=4, input_prep="tile")


class Radar(FieldProvider):
    """Sees the east. In the west it raises an error, or finds nothing valid."""

    def __init__(self, lacks: type[Exception] | None = NoImagery, everywhere: tuple[str, ...] = ()) -> None:
        super().__init__(lambda lon, lat, band: np.full_like(lon, 700.0 if band == "B2" else -9.0), "radar")
        self._lacks, self._everywhere = lacks, everywhere

    def fetch(self, query):
        chip = super().fetch(query)
        west = pixel_centres(query.geobox)[0].max() < 10
        if query.modality not in self._everywhere and not (query.modality == "s1" and west):
            return chip
        if self._lacks is None:
            return replace(chip, values=np.full_like(chip.values, np.nan))
        raise self._lacks("Expected scenes, got none.", fix="widen the window")


def embed(place, backend, output=OutputSpec.pooled(), **options):
    call = {"modality": "s2+s1", "card": card()} | options
    return get_embedding(call.pop("card"), place, YEAR, output, backend, **call)


@pytest.mark.parametrize("lacks", [NoImagery, OutsideCoverage, None])
def test_a_place_that_lacks_a_modality_is_embedded_without_it_and_says_why(lacks):
    there, lacking = (embed(place, Radar(lacks)) for place in (EAST, WEST))
    np.testing.assert_allclose(there.data, [700, 1, -9, 1])
    np.testing.assert_allclose(lacking.data, [700, 1, 0, 0])
    assert (there.meta.modality, there.meta.absent) == (("s2", "s1"), {})
    assert (lacking.meta.modality, list(lacking.meta.absent)) == (("s2",), ["s1"])
    why = "Expected valid pixels in s1" if lacks is None else "Expected scenes, got none."
    assert lacking.meta.absent["s1"].startswith(f"{(lacks or NoValidPixels).__name__}: {why}")
    assert [one.modality for one in lacking.meta.inputs] == ["s2"]
    assert lacking.meta.valid_fraction == 1
    assert type(lacking.meta).model_validate_json(lacking.meta.model_dump_json()) == lacking.meta


def test_places_with_and_without_it_are_one_batch_in_order():
    found = get_embeddings(card(), [EAST, WEST, EAST], YEAR, backend=Radar(), modality="s2+s1", progress=False)
    np.testing.assert_allclose(np.stack([one.data for one in found])[:, 3], [1, 0, 1])


def test_the_grid_that_all_share_is_that_of_what_is_there():
    grid = embed(WEST, Radar(), GRID, modality="s1+s2")
    assert grid.data.shape == (4, 4, 4)
    assert grid.geobox == embed(WEST, Radar(), GRID).geobox
    np.testing.assert_array_equal(grid.valid, 1)


def test_tokens_of_an_absent_modality_are_merged_into_nothing():
    options = {"card": card(Apart)}
    np.testing.assert_allclose(embed(EAST, Radar(), **options).data, [345.5, 1])
    np.testing.assert_allclose(embed(WEST, Radar(), **options).data, [700, 1])
    np.testing.assert_allclose(embed(WEST, Radar(), GRID, **options).data[:, 2, 2], [700, 1])


def test_too_little_of_an_optional_modality_is_none_of_it():
    def half(lon, lat, band):
        return np.where((band == "VV") & (lon > np.median(lon)), np.nan, 500.0)

    lacking = embed(EAST, FieldProvider(half), min_valid_fraction=0.9)
    assert "floor 90%" in lacking.meta.absent["s1"]


def test_a_modality_that_the_model_needs_still_fails_the_row():
    strict = card(s1=False)
    with pytest.raises(NoImagery):
        embed(WEST, Radar(), card=strict)
    with pytest.raises(NoValidPixels):
        embed(WEST, Radar(None), card=strict)
    with pytest.raises(BatchError) as caught:
        get_embeddings(strict, [EAST, WEST], YEAR, backend=Radar(), modality="s2+s1", progress=False)
    assert [failure.index for failure in caught.value.failures] == [1]


def test_one_modality_at_least_must_be_there():
    with pytest.raises(NoImagery):
        embed(EAST, Radar(everywhere=("s1", "s2")))
    with pytest.raises(NoValidPixels):
        embed(EAST, Radar(None, ("s1", "s2")))


def test_an_error_that_is_no_absence_fails_the_row():
    with pytest.raises(ReadError):
        embed(WEST, Radar(ReadError))


@pytest.mark.parametrize("modality", ["s2+s1", "s1+s2"])
@pytest.mark.parametrize("share_reads", [False, True])
def test_an_export_keeps_rows_that_lack_a_modality(tmp_path, modality, share_reads):
    call = {"temporal": YEAR, "backend": Radar(), "modality": modality, "share_reads": share_reads, "progress": False}
    assert export_embeddings(card(), [EAST, WEST, WEST, EAST], tmp_path / "run", **call).failed == 0
    found = np.sort(open_run(tmp_path / "run").matrix(), axis=1)
    np.testing.assert_allclose(found, [[-9, 1, 1, 700], [0, 0, 1, 700], [0, 0, 1, 700], [-9, 1, 1, 700]])


class OpticalOnly(FieldProvider):
    """A backend that has no radar at all."""

    def require(self, modality, sensor):
        if sensor.collection == "COPERNICUS/S1_GRD":
            raise SensorNotOffered("Expected Sentinel-2, got radar.", fix="ask for s2")

    def fetch(self, query):
        self.require(query.modality, query.sensor)
        return super().fetch(query)


BOTH_BY_DEFAULT = replace(card(s2=False), default=("s2", "s1"))


def test_of_the_default_inputs_what_the_backend_does_not_offer_is_masked_and_named(tmp_path):
    found = embed(EAST, OpticalOnly(), card=BOTH_BY_DEFAULT, modality=None)
    assert list(found.meta.absent) == ["s1"]
    assert found.meta.absent["s1"].startswith("SensorNotOffered: Expected Sentinel-2, got radar.")
    assert (found.meta.modality, found.data[3]) == (("s2",), 0)
    assert list(inspect_chip(BOTH_BY_DEFAULT, EAST, YEAR, OpticalOnly()).chips) == ["s2"]
    call = {"temporal": YEAR, "backend": OpticalOnly(), "progress": False}
    assert export_embeddings(BOTH_BY_DEFAULT, [EAST, WEST], tmp_path / "run", **call).failed == 0


def test_an_array_without_a_name_is_what_the_model_cannot_do_without():
    array = np.linspace(600, 800, 1024, dtype=np.float32).reshape(1, 32, 32)
    found = get_embedding(BOTH_BY_DEFAULT, input_chw=array)
    np.testing.assert_allclose(found.data, [700, 1, 0, 0], rtol=1e-5)
    assert list(found.meta.absent) == ["s1"]


def test_what_the_user_named_must_be_offered():
    for named in ("s2+s1", "s1"):
        with pytest.raises(SensorNotOffered):
            embed(EAST, OpticalOnly(), card=BOTH_BY_DEFAULT, modality=named)
    strict = replace(card(s1=False), default=("s2", "s1"))
    with pytest.raises(SensorNotOffered):
        embed(EAST, OpticalOnly(), card=strict, modality=None)
