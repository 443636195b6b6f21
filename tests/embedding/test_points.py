"""A point is asked of a grid by where it lies; arrays and tables of results keep who is who."""

from dataclasses import replace

import geopandas
import numpy as np
import pandas as pd
import pytest
from made_rows import embedding
from pyproj import Transformer
from shapely import Point, box

from rs_embed import PointBuffer
from rs_embed.embedding.batch import Embeddings
from rs_embed.embedding.embedding import Embedding
from rs_embed.errors import Failure, InputError, NoImagery, RSEmbedError, SpecError

PLACE = PointBuffer(-72.5, -38.8, 400)
GRID = embedding(PLACE, grid=True, dim=5)
"""10 x 10 cells of 80 m."""


def lon_lat(grid: Embedding, col: float, row: float) -> tuple[float, float]:
    """Degrees of a place in cells of a grid."""
    return Transformer.from_crs(str(grid.geobox.crs), "EPSG:4326", always_xy=True).transform(
        *(grid.geobox.affine @ (col, row))
    )


def test_every_cell_is_found_by_any_point_on_it():
    rng = np.random.default_rng(0)
    for row, col in np.ndindex(*GRID.geobox.shape):
        right, down = rng.uniform(0.01, 0.99, 2)
        np.testing.assert_array_equal(GRID.at(*lon_lat(GRID, col + right, row + down)), GRID.data[:, row, col])


def test_the_outer_edges_belong_to_the_grid_and_nothing_beyond():
    for col, row, cell in ((0, 0, (0, 0)), (10, 10, (9, 9)), (10, 0, (0, 9)), (0, 10, (9, 0))):
        np.testing.assert_array_equal(GRID.at(*lon_lat(GRID, col, row)), GRID.data[:, *cell])
    for col, row in ((-0.01, 5), (10.01, 5), (5, -0.01), (5, 10.01)):
        with pytest.raises(SpecError, match="1 of 1 outside it") as caught:
            GRID.at(*lon_lat(GRID, col, row))
        assert "EPSG:32718" in str(caught.value) and caught.value.fix


def test_a_point_on_nodata_has_no_numbers():
    holed = replace(GRID, data=GRID.data.copy())
    holed.data[:, 2, 3] = np.nan
    assert np.isnan(holed.at(*lon_lat(holed, 3.5, 2.5))).all()
    assert np.isfinite(holed.at(*lon_lat(holed, 4.5, 2.5))).all()


CELLS = [(2, 3), (0, 0), (9, 9), (2, 3)]
POINTS = [lon_lat(GRID, col + 0.5, row + 0.5) for row, col in CELLS]
UTM = geopandas.GeoSeries([Point(*lon_lat) for lon_lat in POINTS], crs="EPSG:4326").to_crs("EPSG:32719")


@pytest.mark.parametrize(
    "points",
    [
        POINTS,
        tuple(POINTS),
        np.array(POINTS),
        [Point(*lon_lat) for lon_lat in POINTS],
        UTM,
        geopandas.GeoDataFrame({"id": ["same"] * 4, "year": "?", "buffer_m": -1}, geometry=UTM),
        pd.DataFrame(POINTS, columns=["lon", "lat"]).assign(
            id="same", date="never", buffer=0, species="oak", seen=[[1, 2]] * 4
        ),
    ],
    ids=["list", "tuple", "array", "shapely", "GeoSeries", "GeoDataFrame", "DataFrame"],
)
def test_points_of_every_kind_are_sampled_in_their_order(points):
    expected = np.stack([GRID.data[:, row, col] for row, col in CELLS])
    np.testing.assert_array_equal(GRID.sample(points), expected)


def test_points_beside_the_grid_are_named_or_nan():
    points = [POINTS[0], (0.0, 0.0), POINTS[1], (10.0, 10.0)]
    with pytest.raises(SpecError, match="got 2 of 4 outside") as caught:
        GRID.sample(points)
    assert "(row 1)" in str(caught.value)
    sampled = GRID.sample(points, outside="nan")
    np.testing.assert_array_equal(np.isnan(sampled).all(axis=1), [False, True, False, True])
    np.testing.assert_array_equal(sampled[2], GRID.data[:, 0, 0])


@pytest.mark.parametrize(
    ("points", "says"),
    [
        ([box(0, 0, 1, 1)], "got a box or a polygon in row 0"),
        (geopandas.GeoSeries([box(-72.6, -38.9, -72.4, -38.7)], crs=4326), "got a box or a polygon in row 0"),
        ([], "empty"),
        ("points.csv", "got str"),
        (pd.DataFrame({"east": [1.0], "north": [2.0]}), "east"),
        (None, "got NoneType"),
        ([(47.0, 112.0)], "swapped"),
        ([(12.0, "b")], "number"),
    ],
)
def test_what_are_no_points_is_said(points, says):
    with pytest.raises(RSEmbedError, match=says) as caught:
        GRID.sample(points)
    assert caught.value.fix
    with pytest.raises(SpecError, match="outside to be one of raise, nan"):
        GRID.sample(POINTS, outside="drop")


def test_a_vector_and_a_grid_without_a_place_say_why_there_is_no_point_on_them():
    for one, says in ((embedding(PLACE), "pooled vector"), (replace(GRID, geobox=None), "without a place")):
        with pytest.raises(SpecError, match=says) as caught:
            one.at(*POINTS[0])
        assert caught.value.fix
        with pytest.raises(SpecError, match=says):
            one.sample(POINTS)
    with pytest.raises(SpecError, match="swapped"):
        GRID.at(-38.8, -172.5)


def test_numpy_takes_an_embedding_for_its_numbers():
    vector = embedding(PLACE)
    assert np.asarray(vector) is not None and np.shares_memory(np.asarray(vector), vector.data)
    assert np.asarray(GRID).shape == GRID.data.shape
    assert np.asarray(vector, np.float64).dtype == np.float64
    assert not np.shares_memory(np.array(vector), vector.data)
    assert np.dot(vector, vector) == pytest.approx(float(vector.data @ vector.data))
    np.testing.assert_array_equal(np.stack([vector, vector])[1], vector.data)


@pytest.fixture
def five() -> Embeddings:
    done = [embedding(seed=seed) for seed in range(4)]
    return Embeddings([done[0], done[1], Failure(2, "fetch", NoImagery("none")), *done[2:]], ids="abcde")


def test_some_of_the_results_keep_their_ids(five):
    for some, ids in (
        (five[1:4], "bcd"),
        (five[::-1], "edcba"),
        (five[[4, 0]], "ea"),
        (five[np.array([True, False, False, True, False])], "ad"),
        (five[pd.Series([isinstance(one, Embedding) for one in five])], "abde"),
        (five[np.argsort([3, 1, 2, 5, 4])], "bcaed"),
        (five[:2] + five[4:], "abe"),
        (five[[]], ""),
        (five[5:], ""),
    ):
        assert isinstance(some, Embeddings) and some.ids == tuple(ids)
        assert [five["abcde".index(name)] for name in ids] == list(some)
        assert some.to_frame().index.tolist() == list(ids)


def test_one_result_is_found_by_number_or_id(five):
    assert five[3] is five["d"] is five[-2] is five[np.int64(3)]
    assert len(five) == 5 and list(five)[4] is five["e"] and five[0] in five
    with pytest.raises(IndexError):
        five[5]
    with pytest.raises(SpecError, match="id 'z', got 0 among 5"):
        five["z"]
    with pytest.raises(SpecError, match="got 2"):
        (five + five)["a"]
    for wrong, says in (([True], "mask of 5"), ([0.5], "float64"), ([[0]], r"\(1, 1\)"), (["a"], "Expected indices")):
        with pytest.raises(SpecError, match=says):
            five[wrong]


def test_results_are_as_many_as_ids():
    with pytest.raises(InputError, match="each of 1 results, got 2"):
        Embeddings([embedding()], ["a", "b"])


def test_numpy_takes_results_as_their_stack(five):
    np.testing.assert_array_equal(np.asarray(five), five.stack())
    assert np.asarray(five).shape == (5, 64) and np.isnan(np.asarray(five)[2]).all()
    assert np.asarray(five, np.float16).dtype == np.float16
