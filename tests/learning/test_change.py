"""Change is found where it was put, and unchanged ground is called changed as often as the result says."""

from dataclasses import replace

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from made_map import CELL_M, LEFT, TOP, MadeMap
from made_rows import embedding
from pyogrio import read_info

from rs_embed import BBox, PointBuffer, detect_change, open_region
from rs_embed.core.geo import pixel_centres
from rs_embed.errors import NoValidPixels, SpecError, StorageError

pytestmark = pytest.mark.slow

SIDE, DIM = 60, 16
GRID = embedding(PointBuffer(12.94, 47.77, 40 * SIDE), grid=True, dim=DIM)
BLOB = np.s_[10:14, 20:26]
"""Where something changed: 4 x 6 tokens."""


def later(seed, noise=0.05, blob=BLOB):
    """The same ground another day: noise everywhere, another surface in the blob."""
    draw = np.random.default_rng(seed)
    data = GRID.data + draw.normal(0, noise, GRID.data.shape).astype(np.float32)
    if blob is not None:
        data[(slice(None), *blob)] = draw.normal(0, 1, data[(slice(None), *blob)].shape)
    return replace(GRID, data=data)


def inside(polygons):
    """`[H, W]`: tokens whose middle lies in a polygon."""
    rows, cols = np.mgrid[:SIDE, :SIDE] + 0.5
    xs, ys = GRID.geobox.affine @ (cols, rows)
    return shapely.contains_xy(polygons.union_all(), xs, ys)


def stable_box(rows, cols):
    """A polygon around tokens, in the CRS of the grid."""
    (left, top), (right, bottom) = (GRID.geobox.affine @ (cols[at], rows[at]) for at in (0, 1))
    return geopandas.GeoDataFrame(geometry=[shapely.box(left, bottom, right, top)], crs=str(GRID.geobox.crs))


def test_what_changed_is_one_polygon_with_its_days_score_and_area():
    found = detect_change(GRID, later(1), false_alarms=0.001, min_tokens=2)
    (polygon,) = found.polygons.to_dict("records")
    assert polygon["tokens"] == 24
    assert (
        polygon["area_m2"] == pytest.approx(24 * 80**2, rel=1e-3) and polygon["area_m2"] != 24 * 80**2
    )  # on the ground
    np.testing.assert_array_equal(inside(found.polygons)[BLOB], True)
    assert inside(found.polygons).sum() == 24
    values = found.distance.to_numpy()[BLOB]
    assert polygon["distance_mean"] == pytest.approx(values.mean()) and polygon["distance_max"] == values.max()
    assert polygon["score"] == pytest.approx(values.mean() / found.threshold.value) and polygon["score"] > 5
    assert polygon["before"] == polygon["after"] == "2020-06-01 to 2020-06-03 (2 days)"
    assert found.polygons.crs.to_epsg() == 32633
    assert "3,600 tokens" in str(found) and "about 4 would" in str(found) and "Nothing here tests that" in str(found)


@pytest.mark.parametrize("share", [0.01, 0.1])
def test_stable_places_keep_the_share_of_false_alarms_and_the_result_says_so(share):
    stable = stable_box((30, 60), (0, 60))
    shares = []
    for seed in range(20):
        found = detect_change(GRID, later(seed, blob=None), stable=stable, false_alarms=share)
        elsewhere = found.distance.to_numpy()[:30]
        shares.append((elsewhere > found.threshold.value).mean())
    assert np.mean(shares) == pytest.approx(share, abs=0.1 * share + 0.002)
    assert found.threshold.stable_tokens == 1800 and "1,800 tokens of the stable places" in found.threshold.basis
    assert found.expected_false == share * 3600


def test_without_stable_places_half_of_the_ground_may_change_and_unchanged_ground_is_still_told_apart():
    found = detect_change(GRID, later(3, blob=np.s_[:24, :]))
    changed = found.distance.to_numpy() > found.threshold.value
    assert changed[:24].mean() > 0.9
    assert changed[24:].mean() < 0.02
    assert found.changed_tokens == changed.sum()


def test_nothing_changes_between_equal_grids_and_rounding_is_no_change():
    same = detect_change(GRID, GRID)
    assert len(same.polygons) == 0 and same.changed_tokens == 0
    scaled = replace(GRID, data=GRID.data * np.float32(1.1))
    assert detect_change(GRID, scaled).changed_tokens == 0


@pytest.mark.parametrize("kind", ["points", "polygon", "box", "file"])
def test_stable_places_in_any_form_mean_their_tokens(tmp_path, kind):
    lons, lats = (values[40:50, 5:15].ravel() for values in pixel_centres(GRID.geobox))
    square = stable_box((40, 50), (5, 15))
    square.to_crs(4326).to_file(tmp_path / "stable.geojson")
    forms = {
        "points": list(zip(lons, lats, strict=True)),
        "polygon": square.to_crs(4326).geometry[0],
        "box": BBox(*square.total_bounds, crs="EPSG:32633"),
        "file": tmp_path / "stable.geojson",
    }
    found = detect_change(GRID, later(1), stable=forms[kind], false_alarms=0.02)
    assert found.threshold.stable_tokens == 100
    assert found.threshold.value == np.sort(found.distance.to_numpy()[40:50, 5:15].ravel())[98]


def test_a_geopackage_and_a_raster_say_what_the_threshold_rests_on(tmp_path):
    found = detect_change(GRID, later(1), raster=tmp_path / "distance.tif")
    path = found.save(tmp_path / "change.gpkg")
    again = geopandas.read_file(path)
    assert again["tokens"].tolist() == found.polygons["tokens"].tolist()
    np.testing.assert_array_equal(again["score"], found.polygons["score"])
    about = read_info(path, layer="change")["layer_metadata"]
    assert about["basis"] == found.threshold.basis and float(about["threshold"]) == found.threshold.value
    with rasterio.open(tmp_path / "distance.tif") as file:
        np.testing.assert_array_equal(file.read(1), found.distance)
        assert file.transform == GRID.geobox.affine
    nothing = detect_change(GRID, GRID).save(tmp_path / "none.gpkg")
    assert len(geopandas.read_file(nothing)) == 0
    with pytest.raises(StorageError, match=".gpkg"):
        found.save(tmp_path / "change.shp")


def test_two_times_of_a_map_and_two_maps_are_compared_with_or_without_a_file(tmp_path):
    region = open_region(MadeMap().write(tmp_path / "map"))
    found = detect_change(region, times=("2021", "2022"), false_alarms=0.05)
    np.testing.assert_array_equal(found.distance, region.change("2021", "2022"))
    assert (found.before, found.after) == ("2021-01-01 to 2022-01-01", "2022-01-01 to 2023-01-01")
    written = detect_change(region, times=(0, 1), false_alarms=0.05, raster=tmp_path / "distance.tif")
    np.testing.assert_array_equal(written.distance, found.distance)
    assert written.polygons.equals(found.polygons) and len(found.polygons)
    assert written.polygons.total_bounds[3] <= TOP and written.polygons.total_bounds[0] >= LEFT
    both = detect_change(region, region, times=(0, 1), level=1, false_alarms=0.05)
    assert both.distance.shape == (11, 15) and both.polygons["area_m2"].min() >= 0.99 * (2 * CELL_M) ** 2
    assert "random weights, seed 7" in str(both)
    with pytest.raises(SpecError, match="two times"):
        detect_change(region)


def test_what_cannot_be_decided_is_refused():
    tiny = stable_box((0, 3), (0, 3))
    with pytest.raises(SpecError, match="at least 99 tokens") as caught:
        detect_change(GRID, later(1), stable=tiny)
    assert "false_alarms=0.1" in caught.value.fix
    assert detect_change(GRID, later(1), stable=tiny, false_alarms=0.1).threshold.stable_tokens == 9
    with pytest.raises(SpecError, match="false_alarms"):
        detect_change(GRID, later(1), false_alarms=0.6)
    with pytest.raises(SpecError, match="with grids"):
        detect_change(GRID, later(1), times=(0, 1))
    with pytest.raises(SpecError, match="two grids or one or two maps"):
        detect_change(GRID, None)
    with pytest.raises(NoValidPixels):
        detect_change(GRID, replace(GRID, data=np.full_like(GRID.data, np.nan)))
    small = replace(GRID, data=GRID.data[:, :2, :2], geobox=GRID.geobox[:2, :2])
    with pytest.raises(SpecError, match="at least 30 tokens"):
        detect_change(small, small)
