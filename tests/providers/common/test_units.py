import numpy as np
import pytest

from rs_embed.core.bands import Unit, unit_named, unit_of_tag
from rs_embed.errors import PixelWarning, SpecError, UnitMismatch
from rs_embed.providers.common.nodata import mask_nodata
from rs_embed.providers.common.plausible import refuse_implausible, warn_of_oddities
from rs_embed.providers.common.recognised import recognise_unit

U16, I16, F32 = np.dtype("uint16"), np.dtype("int16"), np.dtype("float32")


def check_plausible(values, unit, where, *, stored=None, harmonised=False):
    """As the providers do, one after the other."""
    refuse_implausible(values, unit, where, stored)
    return warn_of_oddities(values, unit, where, harmonised=harmonised)


RAMP = np.linspace(0, 1, 972, dtype=np.float32).reshape(3, 18, 18)


@pytest.mark.parametrize(
    ("values", "stored", "wanted", "found"),
    [
        (RAMP * 8000, U16, Unit.DN, Unit.DN),
        (np.round(RAMP * 3), U16, Unit.REFLECTANCE, Unit.DN),
        (RAMP * 0.6, F32, Unit.DN, Unit.REFLECTANCE),
        (RAMP * 8000, F32, Unit.DN, Unit.DN),
        (RAMP * 25 - 30, F32, Unit.DB, Unit.DB),
        (RAMP * 0.5, F32, Unit.DB, Unit.POWER),
        (RAMP * 40 - 30, F32, Unit.POWER, Unit.DB),
        (RAMP * 50 + 250, F32, Unit.KELVIN, Unit.KELVIN),
        (np.full((3, 4, 4), np.nan, np.float32), F32, Unit.DN, Unit.DN),
    ],
)
def test_a_unit_is_recognised(values, stored, wanted, found):
    assert recognise_unit(values, stored, wanted, "here") is found


@pytest.mark.parametrize(
    ("values", "stored", "wanted"),
    [
        (np.round(RAMP * 2), U16, Unit.DN),  # 0, 1, 2: classes, or reflectance cut to integers
        (RAMP * 100, F32, Unit.DN),  # percent
        (RAMP * 400, F32, Unit.DB),  # amplitude
        (RAMP * 20 - 5, F32, Unit.DB),
    ],
)
def test_values_that_could_be_several_units_must_be_declared(values, stored, wanted):
    with pytest.raises(UnitMismatch, match=r"declare it"):
        recognise_unit(values, stored, wanted, "here")


@pytest.mark.parametrize(
    ("values", "unit", "stored", "says"),
    [
        (RAMP, Unit.DN, F32, "looks like reflectance"),
        (RAMP * 255, Unit.DN, np.dtype("uint8"), "8-bit"),
        (RAMP * 100 - 5000, Unit.DN, F32, "strongly negative"),
        (RAMP * 8000, Unit.REFLECTANCE, U16, "looks like DN"),
        (RAMP, Unit.DB, F32, "looks like linear power"),
        (RAMP * -3000, Unit.DB, I16, "scaled integer"),
        (RAMP - 0.5, Unit.POWER, F32, "looks like dB"),
        (RAMP * 600, Unit.POWER, U16, "uncalibrated"),
    ],
)
def test_values_that_cannot_be_in_their_unit_are_refused_with_the_place_and_a_fix(values, unit, stored, says):
    with pytest.raises(UnitMismatch, match=says) as caught:
        check_plausible(values, unit, "scene 7", stored=stored)
    assert "where: scene 7" in str(caught.value)
    assert "fix:" in str(caught.value)


@pytest.mark.parametrize(
    ("values", "unit"),
    [
        (RAMP * 8000, Unit.DN),
        (RAMP * 8000 - 30, Unit.DN),
        (RAMP, Unit.REFLECTANCE),
        (RAMP * 25 - 30, Unit.DB),
        (RAMP, Unit.POWER),
        (np.full((3, 4, 4), np.nan, np.float32), Unit.DN),
    ],
)
def test_good_values_pass_in_silence(values, unit):
    assert check_plausible(values, unit, "here") == ()


def test_unharmonised_sentinel_2_is_warned_of_with_the_offset_that_mends_it():
    with pytest.warns(PixelWarning, match=r"\+1000 of processing baseline 04.00.*offset=-1000"):
        notes = check_plausible(RAMP * 3000 + 1000, Unit.DN, "here")
    assert len(notes) == 1
    assert check_plausible(RAMP * 3000 + 1000, Unit.DN, "here", harmonised=True) == ()


def test_snow_and_single_bands_of_dry_land_are_not_taken_for_unharmonised():
    assert check_plausible(RAMP * 3000 + 5000, Unit.DN, "here") == ()
    assert check_plausible(RAMP[:1] * 3000 + 1000, Unit.DN, "here") == ()


def test_a_chip_of_few_pixels_is_not_taken_for_unharmonised():
    assert check_plausible(RAMP[:, :10, :10] * 3000 + 1000, Unit.DN, "here") == ()


def test_one_dark_band_is_enough_to_see_that_the_offset_is_gone():
    values = RAMP * 3000 + 1200
    values[2] = RAMP[0] * 800
    assert check_plausible(values, Unit.DN, "here") == ()


def test_a_constant_chip_is_warned_of_but_a_single_pixel_is_not():
    with pytest.warns(PixelWarning, match="every band is constant"):
        assert len(check_plausible(np.full((2, 4, 4), 700, np.float32), Unit.DN, "here")) == 1
    assert check_plausible(np.full((2, 1, 1), 700, np.float32), Unit.DN, "here") == ()


@pytest.mark.parametrize(
    ("unit", "good", "fill"),
    [
        (Unit.DN, 700, -9999),
        (Unit.DN, 700, -32768),
        (Unit.DN, 700, -5000),
        (Unit.DN, 700, 65535),
        (Unit.DN, 700, 64535),  # 65535 with the offset of baseline 04.00 removed
        (Unit.DB, -12, -9999),
        (Unit.DB, -12, -100),
        (Unit.POWER, 0.1, -32768),
        (Unit.REFLECTANCE, 0.1, -3.4028235e38),
        (Unit.KELVIN, 280, 9.96921e36),
    ],
)
def test_values_that_look_like_nodata_become_nodata(unit, good, fill):
    values = np.full((2, 3, 3), good, np.float32)
    values[1, 0, 0] = fill
    with pytest.warns(PixelWarning, match="look like nodata"):
        masked, notes = mask_nodata(values, unit, "here")
    assert np.argwhere(np.isnan(masked)).tolist() == [[1, 0, 0]]
    assert len(notes) == 1
    assert values[1, 0, 0] == np.float32(fill)  # the caller's array is not touched


def test_infinity_is_nodata_with_a_note_and_no_warning():
    values = np.full((1, 2, 2), 700, np.float32)
    values[0, 0, 0], values[0, 1, 1] = np.inf, -np.inf
    masked, notes = mask_nodata(values, Unit.DN, "here")
    assert np.isnan(masked).sum() == 2
    assert "2 infinite values" in notes[0]


def test_zero_in_every_band_is_nodata_and_zero_in_one_is_not():
    values = np.full((2, 2, 2), 700, np.float32)
    values[:, 0, 0] = 0
    values[0, 1, 1] = 0
    masked, notes = mask_nodata(values, Unit.DN, "here")
    assert np.argwhere(np.isnan(masked)).tolist() == [[0, 0, 0], [1, 0, 0]]
    assert notes == ()
    assert not np.isnan(mask_nodata(values, Unit.DN, "here", zero_is_nodata=False)[0]).any()
    assert not np.isnan(mask_nodata(values * 0, Unit.DB, "here")[0]).any()  # 0 dB is a value


def test_the_ten_largest_chips_are_judged_from_a_sample_that_is_never_empty():
    values = np.full((3, 600, 600), np.nan, np.float32)
    values[:, 1, 1] = 0.3  # not on the sampled rows
    with pytest.raises(UnitMismatch, match="looks like reflectance"):
        check_plausible(values, Unit.DN, "here")


@pytest.mark.parametrize(
    ("tag", "unit"), [("dB", Unit.DB), ("dn", Unit.DN), (" K ", Unit.KELVIN), ("1", None), (None, None)]
)
def test_units_of_file_tags(tag, unit):
    assert unit_of_tag(tag) is unit


def test_a_misspelt_unit_is_met_with_the_right_one():
    with pytest.raises(SpecError, match="did you mean 'reflectance'"):
        unit_named("reflectence")
    with pytest.raises(SpecError, match="Expected a unit, got 3"):
        unit_named(3)
