"""Chips cut from shared reads: the same pixels, each window once, requests that grow with the area."""

import numpy as np
import pytest
from echo import SENSOR
from export_worker import MODEL, LoggedField, asked, export
from hypothesis import given, settings
from hypothesis import strategies as st

from rs_embed import PointBuffer, TemporalSpec, geobox_for
from rs_embed.errors import NoValidPixels, RequestTooLarge, StorageError
from rs_embed.exports.fetching.reader import PlannedFetches
from rs_embed.exports.fetching.shared_reads import WINDOW_BYTES, SharedReads, count_reads, cut_windows
from rs_embed.providers.base import Query
from rs_embed.testing import FieldProvider, pixel_centres


def query(east_m: float, north_m: float, days=None) -> Query:
    """A chip of 24 px, so far from a corner within one zone."""
    return Query("s2", SENSOR, geobox_for(PointBuffer(15 + east_m / 76_000, 47 + north_m / 111_000, 120)), days)


def shared(provider, queries) -> SharedReads:
    reader = SharedReads(provider)
    reader.announce("u000000", [PlannedFetches(str(i), (one,)) for i, one in enumerate(queries)])
    return reader


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 3000)), min_size=1, max_size=25))
def test_a_chip_cut_from_a_window_is_the_chip_that_would_have_been_read_alone(places):
    queries = [query(*place) for place in places]
    provider, alone = FieldProvider(), FieldProvider()
    reader = shared(provider, queries)
    for one in queries:
        chip, wanted = reader.fetch(one), alone.fetch(one)
        np.testing.assert_allclose(chip.values, wanted.values, rtol=2e-6)  # sines of other sums
        assert chip.geobox == wanted.geobox
        assert (chip.bands, chip.times, chip.source) == (wanted.bands, wanted.times, wanted.source)
    reads, pixels = count_reads(list(dict.fromkeys(queries)))
    assert len(provider.queries) == reads <= len(set(queries))
    assert pixels <= 4 * 24 * 24 * len(set(queries))
    assert not reader._reads


def test_requests_grow_with_the_area_and_not_with_the_points():
    rng = np.random.default_rng(0)
    counts = []
    for points in (100, 400, 1600):
        spots = rng.uniform(0, 8000, (points, 2))
        spots = spots[np.lexsort((spots[:, 1] // 800, spots[:, 0] // 800))]
        counts.append(count_reads([query(*spot) for spot in spots])[0])
    assert counts[2] < 1.5 * counts[1]
    assert counts[2] < 60


def test_a_window_stays_within_what_one_request_may_bring_and_of_one_kind():
    many = [query(200 * i, 0) for i in range(3000)]
    for window in cut_windows(many):
        height, width = window.query.geobox.shape
        assert height * width * 2 * (len(SENSOR.bands) + 1) <= WINDOW_BYTES
    assert len(cut_windows([query(0, 0), query(0, 0, TemporalSpec.year(2022)), query(100, 0)])) == 2
    assert len(cut_windows([query(0, 0), query(50_000, 0)])) == 2


class Holes(FieldProvider):
    """Nothing but nodata west of a line."""

    def fetch(self, query):
        chip = super().fetch(query)
        lon, _ = pixel_centres(query.geobox)
        chip.values[:, :, lon < 15.01] = np.nan
        return chip


def test_a_chip_without_a_valid_pixel_fails_alone():
    queries = [query(0, 0), query(300, 0), query(600, 0), query(900, 0), query(1200, 0)]
    reader = shared(Holes(), queries)
    with pytest.raises(NoValidPixels, match="got only nodata") as caught:
        reader.fetch(queries[0])
    assert np.isfinite(reader.fetch(queries[-1]).values).all()
    frames = []
    traceback = caught.value.__traceback__
    while traceback is not None:
        frames += list(traceback.tb_frame.f_locals.values())
        traceback = traceback.tb_next
    assert not [one for one in frames if type(one).__name__ == "Chip"]  # errors are kept: windows must not be


@pytest.mark.slow
def test_an_export_with_shared_reads_asks_less_gives_the_same_and_is_another_run(tmp_path):
    places = [PointBuffer(15 + 0.001 * (i % 10), 47 + 0.001 * (i // 10), 120) for i in range(100)]
    options = {"places": places, "buffer_m": None, "unit_rows": 50}
    single, together = tmp_path / "single", tmp_path / "together"
    one = export(single, tmp_path / "log1", **options)
    other = export(together, tmp_path / "log2", share_reads=True, **options)
    assert (one.ok, other.ok) == (100, 100)
    np.testing.assert_allclose(one.open().matrix(), other.open().matrix(), atol=1e-4)
    assert len(asked(tmp_path / "log1")) == 100
    assert len(asked(tmp_path / "log2")) <= 6
    with pytest.raises(StorageError, match="shared:1"):
        export(single, tmp_path / "log1", share_reads=True, **options)
    (together / MODEL / "records/u000001.json").unlink()
    (together / MODEL / "units/u000001.parquet").unlink()
    assert export(together, tmp_path / "log2", share_reads=True, **options).ok == 100


def test_a_window_that_is_too_much_for_the_service_is_read_chip_by_chip():
    class Small(FieldProvider):
        def fetch(self, query):
            if query.geobox.shape != (24, 24):
                raise RequestTooLarge("Expected less.")
            return super().fetch(query)

    queries, provider = [query(200 * i, 0) for i in range(5)], Small()
    reader = shared(provider, queries)
    assert [reader.fetch(one).geobox for one in queries] == [one.geobox for one in queries]


def test_a_window_that_fails_fails_its_chips_and_the_same_call_tries_again(tmp_path):
    places = [PointBuffer(15 + 0.002 * i, 47, 120) for i in range(20)]
    backend = LoggedField(tmp_path / "log", fails=lambda key, times: len(asked(tmp_path / "log")) == 1)
    options = {"places": places, "buffer_m": None, "unit_rows": 20, "backend": backend, "save_inputs": True}
    assert export(tmp_path / "run", tmp_path / "log", share_reads=True, **options).failed == 20
    assert export(tmp_path / "run", tmp_path / "log", share_reads=True, **options).ok == 20
    kept = list((tmp_path / "run/inputs").rglob("*.npz"))
    assert len(kept) == 20
    assert np.load(kept[0])["values"].shape == (1, 12, 24, 24)
    assert len(asked(tmp_path / "log")) == 2
