from dataclasses import replace

import numpy as np
import pytest
import torch
from asking import RGB, S1, ask, grid

from rs_embed import get_embedding
from rs_embed.core.specs import Series, TemporalSpec
from rs_embed.errors import (
    BandMismatch,
    InputError,
    NoValidPixels,
    PixelWarning,
    SensorNotOffered,
    SpecError,
    UnitMismatch,
)
from rs_embed.providers.arrays import ArrayProvider


@pytest.fixture
def dn(rng):
    return rng.integers(200, 4000, (3, 5, 7)).astype(np.uint16)


@pytest.mark.parametrize("cast", [np.uint16, np.int32, np.float32, np.float64, np.float16])
def test_any_real_type_gives_the_same_float32_pixels(dn, cast):
    chip = ArrayProvider({"M": dn.astype(cast)}).fetch(ask())
    np.testing.assert_array_equal(chip.values, dn.astype(cast).astype(np.float32)[None])
    assert chip.values.dtype == np.float32
    assert chip.band_names == RGB
    assert chip.times == (None,)
    assert chip.geobox is None
    assert chip.source.provider == "array"


def test_the_users_array_is_never_written_to(dn):
    values = dn.astype(np.float32)
    values[:, 0, 0] = 0
    before = values.copy()
    ArrayProvider({"M": values}).fetch(ask())
    np.testing.assert_array_equal(values, before)


def test_torch_tensors_and_masked_arrays_are_read(dn):
    assert (ArrayProvider({"M": torch.tensor(dn.astype(np.int32))}).fetch(ask()).values[0] == dn).all()
    masked = np.ma.masked_equal(dn, dn[1, 2, 3])
    chip = ArrayProvider({"M": masked}).fetch(ask())
    np.testing.assert_array_equal(np.isnan(chip.values[0]), np.ma.getmaskarray(masked))


def test_a_tensor_with_a_gradient_is_refused_with_the_call_that_detaches_it(dn):
    with pytest.raises(InputError, match="detach"):
        ArrayProvider({"M": torch.ones(3, 2, 2, requires_grad=True)})


@pytest.mark.parametrize("composite", ["median", "mean", "mosaic", "first"])
def test_dates_are_composited_as_the_sensor_says(dn, composite):
    series = np.stack([dn, dn + 100, dn + 500]).astype(np.float32)
    chip = ArrayProvider({"M": series}).fetch(ask(composite=composite))
    shift = {"median": 100, "mean": 200, "mosaic": 0, "first": 0}[composite]
    np.testing.assert_allclose(chip.values[0], dn + np.float32(shift))


@pytest.mark.parametrize(
    ("array", "says"),
    [
        ([[[1.0]]], "got list"),
        ("pixels.tif", "got str"),
        (None, "got NoneType"),
        (np.ndarray, "got type"),
        (np.array([[["a"]]]), "real numbers"),
        (np.ones((3, 2, 2), bool), "real numbers"),
        (np.ones((3, 2, 2), complex), "real numbers"),
        (np.full((3, 2, 2), None), "real numbers"),
        (np.ones((2, 2)), r"array\[None\]"),
        (np.ones(4), "3 or 4 axes"),
        (np.ones((1, 1, 3, 2, 2)), "not a batch"),
        (np.ones((3, 0, 2)), "empty"),
    ],
)
def test_what_is_no_array_of_pixels_is_refused_when_it_is_handed_over(array, says):
    with pytest.raises(InputError, match=says):
        ArrayProvider({"S2L2A": array})


@pytest.mark.parametrize("arrays", [{}, np.ones((3, 2, 2)), None])
def test_arrays_come_by_modality(arrays):
    with pytest.raises(InputError, match="by modality"):
        ArrayProvider(arrays)


def test_channels_last_is_told_apart_and_the_message_holds_the_call_that_mends_it(dn):
    last = np.moveaxis(dn, 0, -1)
    with pytest.raises(BandMismatch, match=r"np\.moveaxis\(x, -1, 0\)"):
        ArrayProvider({"M": last}).fetch(ask())
    with pytest.raises(BandMismatch, match=r"np\.moveaxis\(x, -1, 1\)"):
        ArrayProvider({"M": last[None]}).fetch(ask())
    ArrayProvider({"M": np.moveaxis(last, -1, 0)}).fetch(ask())


def test_too_few_bands_are_refused_with_the_names_wanted(dn):
    with pytest.raises(BandMismatch, match="Expected 3 bands.*got 2") as caught:
        ArrayProvider({"M": dn[:2]}).fetch(ask())
    assert "B4, B3, B2" in str(caught.value)


def test_reflectance_where_dn_is_wanted_is_refused(dn):
    with pytest.raises(UnitMismatch, match="looks like reflectance"):
        ArrayProvider({"M": dn / 10_000}).fetch(ask())


def test_nodata_is_nan_infinite_a_fill_value_or_zero_in_every_band(dn):
    values = dn.astype(np.float64)
    values[0, 0, 0], values[1, 0, 1], values[2, 0, 2], values[:, 0, 3] = np.nan, np.inf, -9999, 0
    with pytest.warns(PixelWarning, match="-9999"):
        chip = ArrayProvider({"M": values}).fetch(ask())
    assert np.isnan(chip.values).sum() == 6
    assert [note for note in chip.source.notes if "infinite" in note]
    assert chip.valid_fraction == pytest.approx(31 / 35)


def test_numbers_too_large_for_float32_are_nodata(dn):
    values = dn.astype(np.float64)
    values[0, 0, 0] = 1e300
    assert np.isnan(ArrayProvider({"M": values}).fetch(ask()).values[0, 0, 0, 0])


@pytest.mark.parametrize("nothing", [np.full((3, 4, 4), np.nan), np.zeros((3, 4, 4), np.uint16)])
def test_nothing_but_nodata_is_refused(nothing):
    with pytest.raises(NoValidPixels, match="got only nodata"):
        ArrayProvider({"M": nothing}).fetch(ask())


def test_a_missing_modality_is_named_with_what_was_given(dn):
    with pytest.raises(SensorNotOffered, match="Expected an array for M, got none") as caught:
        ArrayProvider({"S2L2A": dn}).fetch(ask())
    assert "S2L2A" in str(caught.value)


def test_the_grid_is_that_of_the_query_and_must_fit(dn):
    fits, other = grid(0, 0, 7, 5), grid(0, 0, 5, 7)
    assert ArrayProvider({"M": dn}).fetch(ask(geobox=fits)).geobox == fits
    assert ArrayProvider({"M": dn}, fits).fetch(ask()).geobox == fits
    assert ArrayProvider({"M": dn}, fits).native_geobox(ask()) == fits
    assert ArrayProvider({"M": dn}).native_geobox(ask()) is None
    with pytest.raises(InputError, match="Expected 7 x 5 pixels, got 5 x 7") as caught:
        ArrayProvider({"M": dn}).fetch(ask(geobox=other))
    assert "geobox_for" in str(caught.value)


def test_a_window_is_not_checked_and_a_note_says_so(dn):
    chip = ArrayProvider({"M": dn}).fetch(ask(window=TemporalSpec.year(2022)))
    assert "not checked" in chip.source.notes[0]


def test_radar_comes_in_db(rng):
    values = rng.normal(-12, 3, (2, 8, 8))
    chip = ArrayProvider({"M": values}).fetch(ask(("VV", "VH"), collection=S1))
    np.testing.assert_allclose(chip.values[0], values, rtol=1e-6)
    with pytest.raises(UnitMismatch, match="linear power"):
        ArrayProvider({"M": 10 ** (values / 10)}).fetch(ask(("VV", "VH"), collection=S1))


def test_the_identity_follows_type_shape_bytes_modality_and_grid(dn):
    def identity(array, modality="M", geobox=None):
        return ArrayProvider({modality: array}, geobox).identity()

    changed = dn.copy()
    changed[0, 0, 0] += 1
    known = [
        identity(dn),
        identity(changed),
        identity(dn.astype(np.int32)),
        identity(dn.reshape(3, 7, 5)),
        identity(dn, "N"),
        identity(dn, geobox=grid(0, 0, 7, 5)),
    ]
    assert len(set(known)) == len(known)
    assert identity(dn) == identity(np.asfortranarray(dn)) == identity(dn.copy())


@pytest.mark.parametrize("unit", ["D", "s", "ns"])
def test_dates_may_be_those_of_an_xarray(dn, unit):
    days = np.array(["2022-05-01", "2022-06-01"], f"datetime64[{unit}]")
    chip = ArrayProvider({"M": np.stack([dn, dn])}, dates=days).fetch(replace(ask(), series=Series(2, "scenes")))
    assert [time.isoformat() for time in chip.times] == ["2022-05-01T00:00:00+00:00", "2022-06-01T00:00:00+00:00"]


def test_a_date_that_is_not_a_time_is_refused(dn):
    with pytest.raises(SpecError, match="Expected an ISO date, got 'NaT'"):
        ArrayProvider({"M": dn}, dates=np.array(["NaT"], "datetime64[D]"))


SERIES = Series(3, "scenes")


def test_days_of_the_year_are_dates_of_the_window(dn):
    provider = ArrayProvider({"M": np.stack([dn] * 3)}, dates=np.array([60, 121, 300]))
    chip = provider.fetch(replace(ask(window=TemporalSpec.year(2023)), series=SERIES))
    assert [f"{time:%Y-%m-%d}" for time in chip.times] == ["2023-03-01", "2023-05-01", "2023-10-27"]
    over_new_year = TemporalSpec.range("2022-10-01", "2023-06-01")
    chip = provider.fetch(replace(ask(window=over_new_year), series=SERIES))
    assert [f"{time:%Y-%m-%d}" for time in chip.times] == ["2023-03-01", "2023-05-01", "2022-10-27"]
    assert not any("year" in note for note in chip.source.notes)
    with pytest.raises(InputError, match="got one of 2023-10-27"):
        provider.fetch(replace(ask(window=TemporalSpec.range("2023-01-01", "2023-06-01")), series=SERIES))


def test_days_of_the_year_without_a_year_say_that_they_have_none(dn):
    provider = ArrayProvider({"M": np.stack([dn] * 3)}, dates=[1, 60, 366])
    chip = provider.fetch(replace(ask(), series=SERIES))
    assert [time.timetuple().tm_yday for time in chip.times] == [1, 60, 366]
    assert "without a year" in chip.source.notes[0]
    single = provider.fetch(ask())  # where the day alone is no use, a year is not made up
    assert single.times == (None,)


@pytest.mark.slow
def test_a_model_of_series_takes_days_of_the_year(dn):
    values = np.resize(dn.astype(np.float32), (2, 10, 12, 12))
    by_day = get_embedding("anysat", input_chw=values, dates=[121, 196], pretrained=False)
    by_date = get_embedding("anysat", input_chw=values, dates=["2021-05-01", "2021-07-15"], pretrained=False)
    np.testing.assert_array_equal(by_day.data, by_date.data)


@pytest.mark.parametrize(("day", "says"), [(0, "add 1"), (367, "from 1 to 366"), (-1, "from 1 to 366")])
def test_a_day_that_no_year_has_is_refused(dn, day, says):
    with pytest.raises(InputError, match=says):
        ArrayProvider({"M": dn}, dates=[day])
    with pytest.raises(SpecError, match="Expected an ISO date"):
        ArrayProvider({"M": dn}, dates=[True])


def test_a_single_day_is_answered_with_the_list_that_it_should_be(dn):
    with pytest.raises(SpecError, match=r"fix: use dates=\[121\]"):
        get_embedding("anysat", input_chw=np.resize(dn, (10, 12, 12)), dates=121, pretrained=False)


@pytest.mark.parametrize("backend", ["array", "file"])
@pytest.mark.slow
def test_advice_fits_the_backend(dn, backend, make_raster):
    dn[:, :, :5] = 0
    given = {"input_chw": dn} if backend == "array" else {"backend": make_raster(dn, bands=RGB)}
    with pytest.raises(NoValidPixels, match="Expected valid pixels") as caught:
        get_embedding("thor", bands=RGB, min_valid_fraction=0.9, pretrained=False, **given)
    assert "cloudy_pct" not in str(caught.value)
    assert "nodata" in caught.value.fix
