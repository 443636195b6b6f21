"""Footprints are polygons wherever on Earth, also where degrees run out."""

import numpy as np
import pytest
import shapely
from affine import Affine
from made_rows import failed
from odc.geo.geobox import GeoBox
from pyproj import Geod

from rs_embed.core.geo import geobox_for
from rs_embed.core.specs import BBox, PointBuffer, Region
from rs_embed.formats.footprint import center, footprint, footprint_of

GEOD = Geod(ellps="WGS84")
PLACES = [(0, 0), (12.9, 47.7), (179.999, -17), (-179.999, 65), (-180, 0), (180, 10), (45, 83.9), (45, 84.5),
          (0, 90), (12, -89.99), (-60, -80.1), (0.001, -79.9)]  # fmt: skip


@pytest.mark.parametrize("half_m", [300, 20_000])
@pytest.mark.parametrize(("lon", "lat"), PLACES)
def test_a_footprint_is_valid_and_has_the_area_of_its_chip(lon, lat, half_m):
    shape = footprint_of(geobox_for(PointBuffer(lon, lat, half_m)))
    assert shape.is_valid
    west, south, east, north = shape.bounds
    assert -180 <= west <= east <= 180 and -90 <= south <= north <= 90
    parts = list(getattr(shape, "geoms", [shape]))
    assert all(part.exterior.is_ccw for part in parts)
    if abs(lat) < 89:  # a cap's edge along the pole has no length; its area is checked below
        area = sum(abs(GEOD.geometry_area_perimeter(part)[0]) for part in parts)
        assert area == pytest.approx((2 * half_m) ** 2, rel=0.02), "UTM and UPS are up to 0.6 % off in length"


@pytest.mark.parametrize("lat", [90, -90])
def test_around_a_pole_every_longitude_is_inside(lat):
    shape = footprint_of(geobox_for(PointBuffer(0, lat, 5000)))
    assert shape.geom_type == "Polygon"
    inside = lat - np.sign(lat) * 0.04  # 4.5 km from the pole
    for lon in range(-180, 181, 15):
        assert shape.intersects(shapely.Point(lon, inside))
        assert not shape.intersects(shapely.Point(lon, lat - np.sign(lat) * 0.07))


def test_a_chip_across_the_antimeridian_is_cut_there():
    shape = footprint_of(geobox_for(PointBuffer(179.999, -17, 5000)))
    assert shape.geom_type == "MultiPolygon" and len(shape.geoms) == 2
    widths = sorted(part.bounds[2] - part.bounds[0] for part in shape.geoms)
    assert sum(widths) < 0.1, "not around the world"


@pytest.mark.parametrize("left_px", [0, -50])
def test_a_chip_with_its_corner_or_edge_on_the_pole_is_no_cap(left_px):
    grid = GeoBox((100, 100), Affine(10, 0, 2_000_000 + 10 * left_px, 0, -10, 2_000_000), "EPSG:32661")
    shape = footprint_of(grid)
    assert shape.is_valid
    west, _, east, _ = shape.bounds
    assert east - west == pytest.approx(90 if left_px == 0 else 180, abs=1e-6)


def test_the_place_of_a_failed_row_is_what_was_asked_for():
    region = Region([(12, 47), (12.1, 47), (12.1, 47.1)])
    shape = footprint(failed(place=region))
    assert shape.equals_exact(
        shapely.Polygon([(12, 47), (12.1, 47), (12.1, 47.1)]), 1e-6
    ) or shape.area == pytest.approx(0.005)
    assert footprint(failed(place=BBox(179.9, -17, -179.9, -16.8))).geom_type == "MultiPolygon"
    utm = footprint(failed(place=BBox(300_000, 5_000_000, 310_000, 5_010_000, crs="EPSG:32633")))
    assert utm.contains(shapely.Point(center(failed(place=BBox(300_000, 5_000_000, 310_000, 5_010_000, "EPSG:32633")))))
    assert center(failed(place=PointBuffer(1.5, 2.5, 100))) == (1.5, 2.5)


def test_a_place_that_no_grid_can_hold_has_no_footprint_and_no_error():
    too_wide = BBox(-60, 0, 60, 10)
    assert center(failed(place=too_wide)) is None
    assert footprint(failed(place=too_wide)) is not None
    assert footprint(failed(place=PointBuffer(0, 0, 0.001))) is None
