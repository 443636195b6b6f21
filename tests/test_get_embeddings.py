"""Many places in memory: whatever holds them, results come in their order, and imagery is fetched once."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from rs_embed import Embedding, OutputSpec, PointBuffer, TemporalSpec, get_embedding, get_embeddings
from rs_embed.embedders.card import ModelCard
from rs_embed.embedders.catalog import get_card
from rs_embed.errors import BatchError, Failure, InputError, NoImagery, SpecError
from rs_embed.testing import FieldProvider, pixel_centres

MODEL, YEAR = "mosaiks_rcf", TemporalSpec.year(2021)
PAIRS = [(12.0, 47.0), (12.3, 47.1), (11.8, 46.9)]


class Holed(FieldProvider):
    """Has nothing around 12.3 degrees east."""

    def fetch(self, query):
        lon, _ = pixel_centres(query.geobox)
        if abs(lon.mean() - 12.3) < 0.05:
            raise NoImagery("Expected imagery, got none.", fix="look elsewhere")
        return super().fetch(query)


def single(lon: float, lat: float, buffer_m: float = 160, temporal: TemporalSpec = YEAR) -> np.ndarray:
    return get_embedding(MODEL, PointBuffer(lon, lat, buffer_m), temporal, backend=FieldProvider()).data


def same(found, places, **options) -> None:
    """Equal to single calls; batches of other sizes round otherwise."""
    for one, (lon, lat) in zip(found, places, strict=True):
        np.testing.assert_allclose(one.data, single(lon, lat, **options), rtol=1e-5, atol=1e-6)


def other(scale_m: float = 10) -> ModelCard:
    """The same model by another name, on pixels of this size."""
    card = get_card(MODEL)
    modalities = tuple(replace(one, sensor=replace(one.sensor, scale_m=scale_m)) for one in card.modalities)
    return replace(card, id="other", aliases=(), modalities=modalities)


@pytest.mark.parametrize("given", [PAIRS, np.array(PAIRS), [PointBuffer(lon, lat, 160) for lon, lat in PAIRS]])
def test_pairs_arrays_and_specs_give_what_single_calls_give(given):
    options = {} if isinstance(given[0], PointBuffer) else {"buffer_m": 160}
    found = get_embeddings(MODEL, given, YEAR, backend=FieldProvider(), progress=False, **options)
    same(found, PAIRS)
    assert found.ids == ("0", "1", "2") and found.failures == []


def test_a_table_brings_ids_days_and_buffers_from_memory_and_from_a_file(tmp_path):
    frame = pd.DataFrame(PAIRS, columns=["lon", "lat"]).assign(
        id=["c", "a", "b"], year=[2019, 2020, 2021], buffer_m=[80, 160, 240]
    )
    frame.to_csv(tmp_path / "plots.csv", index=False)
    for given in (frame, tmp_path / "plots.csv", str(tmp_path / "plots.csv")):
        found = get_embeddings(MODEL, given, backend=FieldProvider(), progress=False)
        assert found.ids == ("c", "a", "b")
        for one, row in zip(found, frame.itertuples(), strict=True):
            expected = single(row.lon, row.lat, row.buffer_m, TemporalSpec.year(row.year))
            np.testing.assert_allclose(one.data, expected, rtol=1e-5, atol=1e-6)
            assert one.meta.temporal == repr(TemporalSpec.year(row.year))


def test_several_models_come_by_id_and_fetch_what_they_share_once():
    provider = FieldProvider()
    found = get_embeddings([MODEL, other()], PAIRS, YEAR, buffer_m=160, backend=provider, progress=False)
    assert list(found) == [MODEL, "other"]
    assert len(provider.queries) == len(PAIRS)
    same(found[MODEL], PAIRS)
    np.testing.assert_array_equal(found[MODEL].stack(), found["other"].stack())


def test_models_on_other_imagery_fetch_their_own():
    provider = FieldProvider()
    get_embeddings([MODEL, other(scale_m=20)], PAIRS, YEAR, buffer_m=320, backend=provider, progress=False)
    assert len(provider.queries) == 2 * len(PAIRS)
    assert {query.geobox.resolution.x for query in provider.queries} == {10, 20}


def test_failures_are_kept_where_asked_in_stack_and_frame_too():
    found = get_embeddings(MODEL, PAIRS, YEAR, buffer_m=160, backend=Holed(), on_error="keep", progress=False)
    assert [type(one) for one in found] == [Embedding, Failure, Embedding]
    (failure,) = found.failures
    assert (failure.index, failure.stage) == (1, "fetch") and isinstance(failure.error, NoImagery)
    stacked = found.stack()
    assert stacked.shape == (3, 1024) and stacked.dtype == np.float32
    assert np.isnan(stacked[1]).all() and np.isfinite(stacked[[0, 2]]).all()
    frame = found.to_frame()
    assert frame["status"].tolist() == ["ok", "failed", "ok"] and list(frame.index) == ["0", "1", "2"]
    assert "NoImagery" in frame["error"]["1"]
    np.testing.assert_array_equal(frame["embedding"]["2"], found[2].data)


def test_otherwise_one_error_at_the_end_holds_the_others():
    with pytest.raises(BatchError, match="1 of 3 items failed") as caught:
        get_embeddings(MODEL, PAIRS, YEAR, buffer_m=160, backend=Holed(), progress=False)
    assert [one is None for one in caught.value.embeddings] == [False, True, False]


def test_grids_stack_where_their_shapes_agree():
    options = {"backend": FieldProvider(), "progress": False}
    grids = get_embeddings(MODEL, PAIRS, YEAR, OutputSpec.grid(), buffer_m=160, **options)
    assert grids.stack().shape == (3, 1024, 4, 4)
    sizes = [PointBuffer(12, 47, 160), PointBuffer(12, 47, 320)]
    with pytest.raises(InputError, match="one shape"):
        get_embeddings(MODEL, sizes, YEAR, OutputSpec.grid(), **options).stack()


def test_what_cannot_be_meant_is_said_before_anything_is_fetched():
    provider = FieldProvider()
    for places, options, said in (
        ([(12.0, 47.0), (12.0, 147.0)], {"buffer_m": 160}, "row 1"),
        (PAIRS, {}, "buffer"),
        (PAIRS, {"buffer_m": 160, "on_error": "ignore"}, "on_error"),
    ):
        with pytest.raises(SpecError, match=said):
            get_embeddings(MODEL, places, YEAR, backend=provider, progress=False, **options)
    with pytest.raises(SpecError, match="at least one model"):
        get_embeddings([], PAIRS, YEAR, buffer_m=160, backend=provider)
    assert provider.queries == []


def test_other_columns_of_the_table_stand_in_the_frame_and_stay_with_their_rows():
    table = pd.DataFrame(PAIRS, columns=["lon", "lat"]).assign(plot_id=["c", "a", "b"], species=["x", None, "z"])
    table = table.assign(trees=pd.array([1, None, 3], "Int64"))
    found = get_embeddings(MODEL, table, YEAR, backend=Holed(), buffer_m=160, progress=False, on_error="keep")
    frame = found.to_frame()
    assert list(frame.columns[:4]) == ["plot_id", "species", "trees", "status"] and list(frame.index) == ["c", "a", "b"]
    assert frame["species"].fillna("?").tolist() == ["x", "?", "z"] and frame["trees"].sum() == 4
    again = (found[[2, 0]] + found[1:2]).to_frame()
    assert again["plot_id"].tolist() == ["b", "c", "a"] == list(again.index)
    plain = get_embeddings(MODEL, PAIRS[:1], YEAR, backend=FieldProvider(), buffer_m=160, progress=False).to_frame()
    assert plain.columns[0] == "status" and len(found[:0].to_frame()) == 0
