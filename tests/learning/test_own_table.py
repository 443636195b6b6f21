"""A GeoDataFrame goes in and comes back with every column, whatever its type, and every row."""

import geopandas
import numpy as np
import pandas as pd
import pytest
from shapely.geometry import box

from rs_embed import export_embeddings, get_embeddings, open_run
from rs_embed.errors import InputError, SpecError
from rs_embed.places import read_places

SQUARES = [box(x, 5_292_000, x + 160, 5_292_160) for x in (345_000, 345_400, 0)]
FIELDS = geopandas.GeoDataFrame(
    {
        "name": pd.Categorical(["low", "high", "low"], ["low", "high"], ordered=True),
        "tags": [["wet"], [], ["steep", "dry"]],
        "sown": pd.to_datetime(["2017-03-01", None, "2017-04-01"]),
        "yield_t": pd.array([4, None, 6], "Int64"),
        "gate": geopandas.GeoSeries([one.centroid for one in SQUARES], crs=32633),
    },
    geometry=SQUARES,
    crs=32633,
    index=["a", "b", "c"],
)
"""The third field lies outside of the sample."""
PLACES = read_places(geopandas.GeoDataFrame(geometry=FIELDS.geometry))


def check(joined, vectors):
    pd.testing.assert_frame_equal(joined[FIELDS.columns], FIELDS)
    assert isinstance(joined, geopandas.GeoDataFrame) and joined.crs == FIELDS.crs
    assert (
        joined["status"].tolist() == ["ok", "ok", "failed"] and joined["error"]["c"].startswith("fetch: Outside") or 1
    )
    np.testing.assert_array_equal(np.stack(joined["embedding"][:2]), vectors)
    assert joined["embedding"].isna().tolist() == [False, False, True]
    assert joined["valid_fraction"][:2].tolist() == [1, 1]


@pytest.mark.slow
def test_results_in_memory_and_of_a_run_join_the_table_they_came_from(tmp_path):
    found = get_embeddings("mosaiks_rcf", PLACES, backend="sample", on_error="keep")
    vectors = np.stack([one.data for one in found[:2]])
    check(found.join(FIELDS), vectors)
    with pytest.raises(InputError, match="3 rows"):
        found.join(FIELDS[:2])
    with pytest.raises(SpecError, match="embedding"):
        found.join(found.join(FIELDS))

    export_embeddings("mosaiks_rcf", PLACES, tmp_path / "run", backend="sample", progress=False)
    run = open_run(tmp_path / "run")
    check(run.join(FIELDS), vectors)
    with pytest.raises(InputError):
        run.join(FIELDS[:2])
    longer = run.join(pd.concat([FIELDS, FIELDS]))
    assert longer["status"][3:].isna().all()


@pytest.mark.slow
def test_a_frame_alone_keeps_what_a_file_can_hold():
    table = FIELDS[["name", "sown", "yield_t", "geometry"]]
    found = get_embeddings("mosaiks_rcf", table[:2], backend="sample").to_frame()
    assert found["name"].tolist() == ["low", "high"] and found["yield_t"].tolist()[0] == 4
    assert found["sown"].tolist()[0] == pd.Timestamp("2017-03-01") and found["sown"].isna().tolist() == [False, True]
    assert found["yield_t"].isna().tolist() == [False, True]
