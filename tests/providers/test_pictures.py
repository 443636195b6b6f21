"""Pictures of bytes, and what else nobody would notice among Sentinel-2 DN: arrays and files follow the same rule."""

import numpy as np
import pytest
from asking import RGB, S1, ask
from shared_data import terramesh

from rs_embed.core.bands import Unit
from rs_embed.core.specs import Series
from rs_embed.errors import InputError, PixelWarning, SensorNotOffered, SpecError, UnitMismatch
from rs_embed.providers.arrays import ArrayProvider
from rs_embed.providers.cached import CachedProvider
from rs_embed.providers.common.plausible import refuse_implausible
from rs_embed.providers.common.sentinel2 import doubt_dn
from rs_embed.providers.rasters.local import LocalRasters

NAIP = "USDA/NAIP/DOQQ"


@pytest.fixture
def picture(rng):
    return rng.integers(0, 256, (3, 40, 40)).astype(np.uint8)


def units_of(chip):
    return {band.unit for band in chip.bands}


@pytest.mark.parametrize("cast", [np.float32, np.float64, np.int16, np.int32, np.uint16])
def test_an_array_of_bytes_in_another_type_is_not_taken_for_dn(picture, cast):
    with pytest.raises(UnitMismatch, match="no value above 255.*bytes of a picture") as caught:
        ArrayProvider({"M": picture.astype(cast)}).fetch(ask())
    assert 'unit="byte"' in str(caught.value)


@pytest.mark.parametrize("cast", [np.int16, np.int32, np.uint16])
def test_a_file_of_bytes_in_another_type_is_not_taken_for_dn(make_raster, picture, cast):
    with pytest.raises(UnitMismatch, match="bytes of a picture"):
        LocalRasters(make_raster(picture.astype(cast), bands=RGB)).fetch(ask())


@pytest.mark.parametrize("make", [lambda ramp: 255 * ramp, lambda ramp: 40 + 100 * ramp, lambda ramp: 60 * ramp])
def test_ramps_stretched_pictures_and_percent_are_not_taken_for_dn(make):
    ramp = np.stack([np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(64, 64)] * 3)
    with pytest.raises(UnitMismatch, match="or percent"):
        ArrayProvider({"M": make(ramp)}).fetch(ask())


def test_dark_water_is_used_with_a_warning_and_a_note(rng):
    water = np.rint(rng.normal([[[180]], [[150]], [[60]]], 12, (3, 64, 64)))
    with pytest.warns(PixelWarning, match="as dark as deep water"):
        chip = ArrayProvider({"M": water}).fetch(ask())
    np.testing.assert_array_equal(chip.values[0], water)
    assert "A picture of bytes looks like that" in chip.source.notes[0]


def test_dark_water_beside_a_shore_passes_in_silence(rng):
    water = rng.normal(60, 20, (3, 64, 64)).astype(np.float32)
    water[:, 0, 0] = 256
    assert doubt_dn(water, "here", stated=False) == ()


def test_one_dark_band_of_a_forest_is_no_picture(rng):
    with pytest.warns(PixelWarning, match="as dark as deep water"):
        doubt_dn(rng.uniform(100, 220, (1, 40, 40)).astype(np.float32), "here", stated=False)


def test_what_is_said_to_be_dn_is_believed_with_a_warning(make_raster, picture):
    wide = picture.astype(np.int16)
    for provider in (
        ArrayProvider({"M": wide}, unit="dn"),
        ArrayProvider({"M": wide}, unit={"M": Unit.DN}),
        LocalRasters(make_raster(wide, bands=RGB), unit="dn"),
    ):
        with pytest.warns(PixelWarning, match="taken as DN"):
            assert units_of(provider.fetch(ask())) == {Unit.DN}


def test_bytes_come_as_bytes_and_black_is_no_nodata(make_raster, picture):
    picture[:, :3] = 0
    path = make_raster(picture, bands=RGB)
    for provider in (
        ArrayProvider({"M": picture}),
        ArrayProvider({"M": picture.astype(np.float32)}, unit="byte"),
        LocalRasters(path),
        LocalRasters(make_raster(picture.astype(np.uint16), "wide.tif", bands=RGB), unit="byte"),
    ):
        chip = provider.fetch(ask())
        assert units_of(chip) == {Unit.BYTE}
        np.testing.assert_array_equal(chip.values[0], picture)


def test_nodata_of_a_picture_is_what_its_file_says(make_raster, picture):
    picture[:, :3], picture[0, 3:] = 0, 7
    chip = LocalRasters(make_raster(picture, bands=RGB, nodata=0)).fetch(ask())
    assert np.isnan(chip.values[0, :, :3]).all()
    assert chip.valid_fraction <= 37 / 40


@pytest.mark.parametrize("values", [-1.0, 256.0])
def test_what_is_said_to_be_bytes_must_be_from_0_to_255(picture, values):
    wrong = picture.astype(np.float32)
    wrong[0, 0, 0] = values
    with pytest.raises(UnitMismatch, match="not from 0 to 255"):
        ArrayProvider({"M": wrong}, unit="byte").fetch(ask())


def test_a_picture_keeps_its_unit_in_the_cache(make_raster, picture, tmp_path):
    cached = CachedProvider(LocalRasters(make_raster(picture, bands=RGB)), tmp_path / "chips", 1)
    assert units_of(cached.fetch(ask())) == units_of(cached.fetch(ask())) == {Unit.BYTE}


def test_pictures_and_measurements_are_not_composed(make_raster, picture, rng):
    dn = rng.integers(300, 4000, (3, 40, 40)).astype(np.uint16)
    files = [make_raster(dn, "dn.tif", bands=RGB), make_raster(picture, "picture.tif", bands=RGB)]
    rasters = LocalRasters(files, dates=["2022-05-01", "2022-06-01"])
    with pytest.raises(UnitMismatch, match="dn in dn and byte in picture"):
        rasters.fetch(ask())
    query = ask()
    with pytest.raises(UnitMismatch, match="one unit"):
        rasters.fetch(type(query)(query.modality, query.sensor, None, None, Series(2, "scenes")))


def test_a_picture_without_names_says_which_band_is_red(make_raster, picture):
    path = make_raster(picture, photometric="RGB")
    chip = LocalRasters(path).fetch(ask(("B2", "B4")))
    np.testing.assert_array_equal(chip.values[0], picture[[2, 0]])
    assert [note for note in chip.source.notes if "the red, green and blue that the file says" in note]
    np.testing.assert_array_equal(LocalRasters(path).fetch(ask(("R", "B"), collection=NAIP)).values[0], picture[[0, 2]])
    named = LocalRasters(path, bands=["B8", "B4", "B3"]).fetch(ask(("B4", "B3")))
    np.testing.assert_array_equal(named.values[0], picture[1:])
    assert not any("red, green" in note for note in named.source.notes)


def test_bands_without_names_that_are_no_picture_stay_without(make_raster, rng):
    path = make_raster(rng.integers(300, 4000, (3, 8, 8)).astype(np.uint16), photometric="RGB")
    with pytest.raises(SensorNotOffered, match="without names"):
        LocalRasters(path).fetch(ask())


@pytest.mark.parametrize("path", range(2))
def test_terrameshs_pictures_are_read_as_they_are(path):
    file = terramesh("S2RGB")[path]
    chip = LocalRasters(file).fetch(ask())
    assert units_of(chip) == {Unit.BYTE}
    assert chip.valid_fraction == 1  # black pixels and all
    assert (chip.values.min(), chip.values.max()) == ((0, 255), (68, 255))[path] or chip.values.max() == 255


def test_arrays_in_another_unit_are_converted_once_it_is_said(rng):
    dn = rng.integers(300, 4000, (3, 8, 8))
    chip = ArrayProvider({"M": dn / 10_000}, unit="reflectance").fetch(ask())
    np.testing.assert_allclose(chip.values[0], dn, rtol=1e-5)
    db = rng.normal(-12, 3, (2, 8, 8))
    chip = ArrayProvider({"M": 10 ** (db / 10)}, unit="power").fetch(ask(("VV", "VH"), collection=S1))
    np.testing.assert_allclose(chip.values[0], db, rtol=1e-4)


def test_a_unit_that_is_none_or_measures_something_else_is_refused(picture):
    with pytest.raises(SpecError, match="did you mean 'reflectance'"):
        ArrayProvider({"M": picture}, unit="reflectence")
    with pytest.raises(InputError, match="got one for 'N'"):
        ArrayProvider({"M": picture}, unit={"N": "byte"})
    with pytest.raises(UnitMismatch, match="one cannot be computed from the other"):
        ArrayProvider({"M": picture}, unit="byte").fetch(ask(("VV", "VH", "HH"), collection=S1))


def test_the_unit_said_is_part_of_the_identity(picture):
    assert ArrayProvider({"M": picture}).identity() != ArrayProvider({"M": picture}, unit="byte").identity()


@pytest.mark.parametrize(
    ("values", "unit", "says"),
    [
        (20.0, Unit.KELVIN, "degrees Celsius"),
        (44_000.0, Unit.KELVIN, "scaled integer"),
        (43_000.0, Unit.METRE, "centimetres"),
        (3.5, Unit.CLASS, "fractions"),
        (0.4, Unit.BYTE, "0 to 255"),
        (35.0, Unit.REFLECTANCE, "percent"),
    ],
)
def test_other_units_that_are_easily_confused_are_refused(values, unit, says):
    with pytest.raises(UnitMismatch, match=says):
        refuse_implausible(np.full((1, 8, 8), values, np.float32) + np.eye(8, dtype=np.float32) * 0, unit, "here")
