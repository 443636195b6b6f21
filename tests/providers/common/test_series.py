"""Several dated frames of one place."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pytest
from asking import RGB, S2, grid
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import TINY_ANYSAT

from rs_embed import LocalRasters, PointBuffer, SensorSpec, TemporalSpec, get_embedding, plan_embedding
from rs_embed.core.specs import Series
from rs_embed.errors import InputError, NoImagery, SpecError
from rs_embed.providers.arrays import ArrayProvider
from rs_embed.providers.base import Query
from rs_embed.providers.common.checked import Checked
from rs_embed.providers.common.series import frame_slots, mean_time
from rs_embed.providers.sample import SampleScene
from rs_embed.testing import FieldProvider

YEAR = TemporalSpec.year(2022)
FOUR = Series(4, "composite")


def ask(series, window=None, geobox=None, composite="median"):
    return Query("M", SensorSpec(S2, RGB, composite=composite), geobox, window, series)


def at(*days):
    return [datetime(2022, 1, 1, tzinfo=UTC) + timedelta(days=day) for day in days]


@pytest.fixture
def dn(rng):
    return rng.integers(500, 4000, (3, 8, 9)).astype(np.uint16)


@settings(deadline=None)
@given(st.dates(date(2000, 1, 1), date(2030, 1, 1)), st.integers(1, 800), st.integers(1, 40))
def test_sub_windows_follow_each_other_and_cover_every_day_once(start, days, parts):
    window = TemporalSpec(start, start + timedelta(days=days))
    found = window.split(parts)
    assert len(found) == min(parts, days)
    assert found[0].start == window.start and found[-1].end == window.end
    assert all(before.end == after.start for before, after in zip(found, found[1:], strict=False))
    lengths = [(one.end - one.start).days for one in found]
    assert max(lengths) - min(lengths) <= 1


@settings(deadline=None)
@given(st.lists(st.integers(0, 364), max_size=30), st.integers(1, 12), st.sampled_from(["composite", "scenes"]))
def test_a_scene_serves_one_frame_and_none_is_left_out(days, frames, sampling):
    slots = frame_slots(at(*days), YEAR, Series(frames, sampling))
    assert len(slots) <= frames
    assert sorted(index for slot in slots for index in slot) == list(range(len(days)))
    ordered = [[days[i] for i in slot] for slot in slots]
    assert all(max(a) <= min(b) for a, b in zip(ordered, ordered[1:], strict=False))


def test_few_scenes_are_frames_of_their_own_even_within_one_sub_window():
    assert frame_slots(at(3, 1, 2), YEAR, Series(4, "scenes")) == [(1,), (2,), (0,)]
    assert frame_slots(at(3, 1, 2), YEAR, FOUR) == [(1, 2, 0)]


def test_without_a_window_the_days_are_those_of_the_scenes():
    assert frame_slots(at(100, 101, 107), None, Series(2, "composite")) == [(0, 1), (2,)]


def test_the_time_of_a_frame_is_the_mean_of_its_scenes_not_the_middle():
    assert mean_time(at(0, 0, 3)) == datetime(2022, 1, 2, tzinfo=UTC)
    assert mean_time(()) is None


@pytest.fixture
def months(make_raster, dn):
    """Scenes of January, twice May, and December, each 100 DN brighter."""
    files = [make_raster(dn + np.uint16(100 * i), f"s{i}.tif", bands=RGB) for i in range(4)]
    return LocalRasters(files, dates=["2022-01-10", "2022-05-10", "2022-05-20", "2022-12-10"], offset=0)


def test_a_composite_series_has_a_frame_per_sub_window_with_its_true_date_and_skips_empty_ones(months, dn):
    chip = months.fetch(ask(FOUR, YEAR))
    assert [time.date().isoformat() for time in chip.times] == ["2022-01-10", "2022-05-15", "2022-12-10"]
    assert chip.source.scenes_per_frame == (1, 2, 1)
    for frame, shift in zip(chip.values, (0, 150, 300), strict=True):
        np.testing.assert_allclose(frame, dn + np.float32(shift))


def test_a_series_of_scenes_takes_each_as_it_is(months, dn):
    chip = months.fetch(ask(Series(8, "scenes"), YEAR))
    assert [time.month for time in chip.times] == [1, 5, 5, 12]
    np.testing.assert_allclose(chip.values[2], dn + np.float32(200))


@pytest.mark.parametrize("composite", ["median", "first"])
def test_of_too_many_scenes_the_clearest_of_each_sub_window_is_taken(make_raster, dn, composite):
    holes = dn.copy()
    holes[:, :4] = 0
    files = [make_raster(holes, "cloudy.tif", bands=RGB), make_raster(dn, "clear.tif", bands=RGB)]
    provider = LocalRasters(files, dates=["2022-05-10", "2022-05-11"], offset=0)
    chip = provider.fetch(ask(Series(1, "scenes"), YEAR, composite=composite))
    assert chip.source.scene_ids == ("clear",)
    assert chip.times[0].day == 11


def test_a_frame_without_a_valid_pixel_is_dropped(make_raster, dn):
    files = [make_raster(dn * np.uint16(0), "empty.tif", bands=RGB), make_raster(dn, "full.tif", bands=RGB)]
    chip = LocalRasters(files, dates=["2022-02-01", "2022-07-01"], offset=0).fetch(ask(FOUR, YEAR))
    assert len(chip.values) == len(chip.times) == 1
    assert chip.source.scene_ids == ("full",)
    assert "1 of 2 frames have no valid pixel and are left out." in chip.source.notes


def test_a_series_of_undated_files_is_refused(make_raster, dn):
    with pytest.raises(NoImagery, match="no date for scene") as caught:
        LocalRasters(make_raster(dn, bands=RGB)).fetch(ask(FOUR))
    assert "dates=" in str(caught.value)


def test_the_sample_is_a_series_of_one():
    chip = SampleScene().fetch(ask(FOUR, YEAR))
    assert chip.values.shape[0] == 1
    assert chip.times[0].date() == date(2017, 6, 13)


def test_arrays_keep_their_frames_and_dates(dn):
    frames = np.stack([dn, dn * np.uint16(0), dn])
    provider = ArrayProvider({"M": frames}, dates=["2022-01-01", "2022-02-01", "2022-03-01"])
    chip = provider.fetch(ask(Series(1, "composite")))
    assert [time.month for time in chip.times] == [1, 3]
    assert "1 of 3 frames have no valid pixel and are left out." in chip.source.notes
    np.testing.assert_array_equal(chip.values[1], dn)


@pytest.mark.parametrize(
    ("dates", "window", "problem"),
    [
        (None, None, "date of each frame"),
        (["2022-01-01"], None, "each of the 2 frames of M, got 1"),
        ({"N": ["2022-01-01"] * 2}, None, "some for 'N'"),
        (["2022-01-01", "2021-12-31"], YEAR, "one of 2021-12-31"),
    ],
)
def test_dates_that_do_not_fit_the_frames_are_refused(dn, dates, window, problem):
    with pytest.raises(InputError, match=problem):
        ArrayProvider({"M": np.stack([dn, dn])}, dates=dates).fetch(ask(FOUR, window))


def test_what_is_no_date_is_refused(dn):
    with pytest.raises(SpecError, match="ISO date"):
        ArrayProvider({"M": dn}, dates=["June"])


def test_other_dates_are_other_imagery(dn):
    one, other = (ArrayProvider({"M": dn}, dates=[day]).identity() for day in ("2022-01-01", "2022-01-02"))
    assert one != other


def test_the_stand_in_has_a_frame_per_sub_window():
    chip = FieldProvider().fetch(ask(FOUR, YEAR, grid(0, 0, 4, 4)))
    assert chip.values.shape == (4, 3, 4, 4)
    assert [time.date() for time in chip.times] == [part.start for part in YEAR.split(4)]


def months_of(start, end):
    return [(str(part.start), str(part.end)) for part in TemporalSpec.range(start, end).months()]


@given(st.dates(date(2000, 1, 1), date(2030, 1, 1)), st.integers(1, 800))
def test_months_follow_each_other_and_none_has_days_of_two(start, days):
    window = TemporalSpec(start, start + timedelta(days=days))
    found = window.months()
    assert found[0].start == window.start and found[-1].end == window.end
    assert all(before.end == after.start for before, after in zip(found, found[1:], strict=False))
    lasts = [one.end - timedelta(days=1) for one in found]
    assert all(
        (one.start.year, one.start.month) == (last.year, last.month) for one, last in zip(found, lasts, strict=True)
    )
    assert all(one.start.day == 1 for one in found[1:])


def test_a_series_by_month_has_a_frame_of_each_calendar_month():
    assert months_of("2022-12-15", "2023-02-01") == [("2022-12-15", "2023-01-01"), ("2023-01-01", "2023-02-01")]
    by_month = Series(12, "month")
    assert frame_slots(at(0, 30, 31, 60), YEAR, by_month) == [(0, 1), (2,), (3,)]
    assert frame_slots(at(0, 30, 31, 60), YEAR, Series(12, "composite"))[0] == (0,)  # 30 days, not January
    with pytest.raises(SpecError, match="at most 3 calendar months, got 12") as caught:
        Series(3, "month").windows(YEAR)
    assert "frames=12" in caught.value.fix


MONTHS = Series(12, "month", keep_empty=True)


def test_empty_months_are_kept_as_nodata_where_a_series_wants_its_frames_aligned():
    provider = Checked(FieldProvider(acquired=at(40, 50, 200)))
    chip = provider.fetch(ask(MONTHS, YEAR, grid(0, 0, 9, 8)))
    there = [bool(np.isfinite(frame).all()) for frame in chip.values]
    assert [i for i, one in enumerate(there) if one] == [1, 6] and np.isnan(chip.values[0]).all()
    assert chip.times[1] == at(45)[0] and chip.times[0] == datetime(2022, 1, 16, 12, tzinfo=UTC)
    assert chip.source.scenes_per_frame == (0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0)
    dropped = provider.fetch(ask(Series(12, "month"), YEAR, grid(0, 0, 9, 8)))
    np.testing.assert_array_equal(dropped.values, chip.values[[1, 6]])


def test_frames_are_kept_for_equal_sub_windows_and_single_scenes_too():
    provider = Checked(FieldProvider(acquired=at(40, 200)))
    for sampling in ("composite", "scenes"):
        chip = provider.fetch(ask(Series(4, sampling, keep_empty=True), YEAR, grid(0, 0, 9, 8)))
        assert np.isfinite(chip.values).all(axis=(1, 2, 3)).tolist() == [True, False, True, False]


def test_arrays_and_files_are_laid_on_the_months_as_well(dn, make_raster):
    arrays = ArrayProvider({"M": np.stack([dn, dn + 1])}, dates=["2022-03-05", "2022-11-02"])
    paths = [make_raster(dn, name="a.tif", bands=RGB), make_raster(dn + 1, name="b.tif", bands=RGB)]
    files = LocalRasters([str(path) for path in paths], dates=["2022-03-05", "2022-11-02"], offset=0)
    for provider in (arrays, files):
        chip = Checked(provider).fetch(ask(MONTHS, YEAR))
        assert np.flatnonzero(np.isfinite(chip.values).all(axis=(1, 2, 3))).tolist() == [2, 10]
        np.testing.assert_array_equal(chip.values[[2, 10]], np.stack([dn, dn + 1]).astype(np.float32))
    twice = ArrayProvider({"M": np.stack([dn, dn])}, dates=["2022-03-05", "2022-03-06"])
    with pytest.raises(InputError, match="at most one frame in each of 12"):
        Checked(twice).fetch(ask(MONTHS, YEAR))
    assert Checked(arrays).fetch(ask(MONTHS)).values.shape[0] == 2  # no days were asked for


def test_the_sample_scene_keeps_its_own_date_where_frames_are_to_be_aligned():
    whole = Query("M", SensorSpec("COPERNICUS/S2_SR_HARMONIZED", ("B4",)), None, YEAR, MONTHS)
    chip = Checked(SampleScene()).fetch(replace(whole, geobox=SampleScene().native_geobox(whole)))
    assert [time.month for time in chip.times] == [6]


def test_users_ask_a_model_of_series_for_months():
    place, asked = PointBuffer(12.9, 47.8, 80), {"frames": 12, "temporal_sampling": "month", "modality": "s2"}
    (item,) = plan_embedding("anysat", place, YEAR, backend=FieldProvider(), **asked).items
    assert item.queries[0].series == Series(12, "month")
    (short,) = plan_embedding("anysat", place, YEAR.months()[3], backend=FieldProvider(), **asked).items
    assert item.queries[0].nbytes == 12 * short.queries[0].nbytes


@pytest.mark.filterwarnings("ignore::rs_embed.errors.RSEmbedWarning")  # random weights, and little of it is valid
def test_a_card_that_keeps_empty_frames_gets_a_frame_of_each_month_in_every_modality():
    wanting = tuple(replace(modality, keeps_empty=modality.is_series) for modality in TINY_ANYSAT.modalities)
    card = replace(TINY_ANYSAT, id="anysat_aligned", modalities=wanting)
    provider = FieldProvider(acquired=at(40, 200))
    emb = get_embedding(
        card, PointBuffer(12.9, 47.8, 80), YEAR, backend=provider, pretrained=False, modality="s2+s1", frames=12,
        temporal_sampling="month", min_valid_fraction=0, normalize="none",
    )  # fmt: skip
    assert [one.series.keep_empty for one in provider.queries] == [True, True]
    assert [len(one.frame_times) for one in emb.meta.inputs] == [12, 12]
    assert emb.meta.inputs[0].frame_times[0].startswith("2022-01-16")


@pytest.mark.parametrize("wrong", [(0, "composite"), (4, "week"), (2.5, "month")])
def test_a_series_that_cannot_be_meant_is_refused(wrong):
    with pytest.raises(SpecError):
        Series(*wrong)
