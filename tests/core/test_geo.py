"""Space is metres on the ground."""

from pathlib import Path

import numpy as np
import pytest
import shapely
from pyproj import Geod, Transformer

import rs_embed
from rs_embed.core.geo import geobox_for, pixel_size_m, prepared, utm_epsg
from rs_embed.core.specs import BBox, PointBuffer, Region
from rs_embed.errors import SpecError

GEOD = Geod(ellps="WGS84")


def ground_sides_m(geobox) -> tuple[float, float]:
    """Width through the middle and height through the middle, along geodesics."""
    rows, cols = geobox.shape
    to_degrees = Transformer.from_crs(str(geobox.crs), "EPSG:4326", always_xy=True)

    def degrees(col, row):
        return to_degrees.transform(*(geobox.affine @ (col, row)))

    _, _, width = GEOD.inv(*degrees(0, rows / 2), *degrees(cols, rows / 2))
    _, _, height = GEOD.inv(*degrees(cols / 2, 0), *degrees(cols / 2, rows))
    return width, height


@pytest.mark.parametrize("lat", [0, 30, 45, 60, 70, 80, -45, -75])
@pytest.mark.parametrize("lon", [121.5, 0.0, 2.99, -179.9, 179.99])
def test_a_buffer_of_2048_m_is_4096_m_on_the_ground_at_any_latitude(lat, lon):
    geobox = geobox_for(PointBuffer(lon=lon, lat=lat, buffer_m=2048))
    assert geobox.shape == (410, 410)
    for side in ground_sides_m(geobox):
        assert side == pytest.approx(4096, rel=0.005, abs=10)
        assert side / 410 == pytest.approx(10, rel=0.005)


@pytest.mark.parametrize("lat", [88.0, -88.0])
def test_near_the_poles_the_grid_is_ups_within_its_own_scale_factor(lat):
    geobox = geobox_for(PointBuffer(lon=10, lat=lat, buffer_m=2048))
    assert geobox.crs.epsg == (32661 if lat > 0 else 32761)
    for side in ground_sides_m(geobox):
        assert side == pytest.approx(4100, rel=0.007)  # UPS has 0.994 at the pole


@pytest.mark.parametrize("scale_m", [10, 20, 60, 0.2, 300])
def test_pixels_are_square_north_up_and_on_the_sensor_grid(scale_m):
    geobox = geobox_for(PointBuffer(lon=12.9, lat=47.7, buffer_m=3000), scale_m)
    a, b, c, d, e, f = tuple(geobox.affine)[:6]
    assert (a, b, d, e) == (scale_m, 0, 0, -scale_m)
    assert c / scale_m == pytest.approx(round(c / scale_m), abs=1e-6)
    assert f / scale_m == pytest.approx(round(f / scale_m), abs=1e-6)
    assert pixel_size_m(geobox) == pytest.approx(scale_m)


@pytest.mark.parametrize(
    ("lon", "lat", "epsg"),
    [(121.5, 31.2, 32651), (5.0, 60.0, 32632), (8.0, 78.0, 32631), (20.0, 75.0, 32633), (-180, 0, 32601),
     (180, 0, 32660), (12.9, -33, 32733), (0, 85, 32661), (0, -81, 32761)],
)  # fmt: skip
def test_zones_follow_the_sentinel_2_grid_with_norway_and_svalbard(lon, lat, epsg):
    assert utm_epsg(lon, lat) == epsg


def test_a_box_across_the_antimeridian_is_one_small_grid():
    geobox = geobox_for(BBox(179.99, -17.01, -179.99, -16.99))
    width, height = ground_sides_m(geobox)
    assert width == pytest.approx(0.02 * 111_320 * np.cos(np.radians(17)), rel=0.03)
    assert height == pytest.approx(0.02 * 110_600, rel=0.03)


def test_a_box_on_the_grid_keeps_its_edges():
    box = BBox(344_400, 5_290_800, 346_800, 5_294_400, crs="EPSG:32633")
    geobox = geobox_for(box)
    assert geobox.shape == (360, 240)
    assert tuple(geobox.boundingbox) == (344_400, 5_290_800, 346_800, 5_294_400)


def test_a_box_in_degrees_is_covered_by_its_grid():
    box = BBox(12.9, 47.7, 12.95, 47.75)
    geobox = geobox_for(box)
    to_grid = Transformer.from_crs("EPSG:4326", str(geobox.crs), always_xy=True)
    edge_lons, edge_lats = np.meshgrid(np.linspace(12.9, 12.95, 50), np.linspace(47.7, 47.75, 50))
    cols, rows = ~geobox.affine @ to_grid.transform(edge_lons, edge_lats)
    assert cols.min() >= -1e-6
    assert rows.min() >= -1e-6
    assert cols.max() <= geobox.shape[1] + 1e-6
    assert rows.max() <= geobox.shape[0] + 1e-6


@pytest.mark.parametrize(
    ("place", "scale_m", "says"),
    [
        (PointBuffer(1, 2, 1), 10, "at least one pixel"),
        (PointBuffer(1, 2, 400_000), 10, "32768 pixels"),
        (BBox(0, 0, 40, 5), 10, "too wide for one UTM zone"),
        (Region([(179.9, 0), (-179.9, 0), (-179.9, 0.1), (179.9, 0.1)]), 10, "cut it at the antimeridian"),
        (BBox(0, 0, 1, 1, crs="EPSG:nonsense"), 10, "CRS that pyproj knows"),
        ("somewhere", 10, "Expected a PointBuffer"),
        (PointBuffer(1, 2, 100), 0, "scale_m between"),
        (PointBuffer(1, 2, 100), float("nan"), "scale_m between"),
    ],
)
def test_what_cannot_be_gridded_says_why(place, scale_m, says):
    with pytest.raises(SpecError, match=says) as caught:
        geobox_for(place, scale_m)
    assert caught.value.fix


def test_a_polygon_is_gridded_by_its_bounding_box():
    region = Region({"type": "Polygon", "coordinates": [[(12.9, 47.7), (12.95, 47.7), (12.95, 47.75), (12.9, 47.75)]]})
    assert geobox_for(region).shape == geobox_for(BBox(12.9, 47.7, 12.95, 47.75)).shape


def test_only_copies_for_one_thread_are_prepared():
    """In GEOS two questions at once to one prepared geometry end the process."""
    sources = Path(rs_embed.__file__).parent.rglob("*.py")
    assert [path.name for path in sources if "shapely.prepare(" in path.read_text("utf-8")] == ["geo.py"]
    square = shapely.box(0, 0, 1, 1)
    assert shapely.is_prepared(prepared(square)) and not shapely.is_prepared(square)
    assert prepared(square).equals(square)
