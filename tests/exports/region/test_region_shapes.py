"""Whatever a user calls a region becomes the same polygons."""

import json

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine

from rs_embed import BBox, GridBlock, PointBuffer, Region
from rs_embed.errors import ReadError, SpecError
from rs_embed.exports.region.shape import shapes_of

CRS = "EPSG:32633"
BOX = shapely.box(12.90, 47.76, 12.94, 47.79)
TWO = [BOX, shapely.box(13.00, 47.76, 13.02, 47.78)]


def same(region, expected) -> None:
    (found,) = shapes_of(region, CRS).values()
    (wanted,) = shapes_of(expected, CRS).values()
    assert shapely.symmetric_difference(found, wanted).area < 1e-4 * wanted.area  # edges are curves: 21 points or more


def features(shapes) -> dict:
    return json.loads(geopandas.GeoSeries(shapes, crs="EPSG:4326").to_json())


def test_a_box_a_geometry_geojson_and_a_spec_are_the_same_region():
    corners = [list(corner) for corner in BOX.exterior.coords]
    for region in (BOX, shapely.geometry.mapping(BOX), features([BOX]), features([BOX])["features"][0], [BOX]):
        same(region, BBox(12.90, 47.76, 12.94, 47.79))
    same(Region([corners]), BOX)


@pytest.mark.parametrize("suffix", [".geojson", ".gpkg", ".shp"])
def test_all_polygons_of_a_file_are_the_region(tmp_path, suffix):
    path = tmp_path / f"region{suffix}"
    geopandas.GeoDataFrame(geometry=TWO, crs="EPSG:4326").to_file(path)
    same(path, shapely.MultiPolygon(TWO))
    same(str(path), features(TWO))


def raster(path, west: float, north: float, day: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"driver": "GTiff", "width": 50, "height": 30, "count": 1, "dtype": "uint16", "crs": CRS}
    with rasterio.open(path, "w", transform=Affine(10, 0, west, 0, -10, north), **profile) as file:
        file.write(np.ones((1, 30, 50), np.uint16))
        if day is not None:
            file.update_tags(TIFFTAG_DATETIME=day)


def test_the_footprint_of_rasters_is_a_region_whatever_their_names_and_dates(tmp_path):
    raster(tmp_path / "scene" / "B02.tif", 340_000, 5_290_000)
    raster(tmp_path / "scene" / "B03.TIF", 340_000, 5_290_000)  # the same ground
    raster(tmp_path / "scene" / "next" / "B02.tiff", 340_500, 5_290_000, "2022:06:01 10:00:00")
    (tmp_path / "scene" / "readme.txt").write_text("no raster")
    same(tmp_path / "scene", GridBlock(340_000, 5_289_700, 341_000, 5_290_000, CRS))
    same(tmp_path / "scene" / "B02.tif", GridBlock(340_000, 5_289_700, 340_500, 5_290_000, CRS))
    same(str(tmp_path / "scene" / "*.tif"), GridBlock(340_000, 5_289_700, 340_500, 5_290_000, CRS))


def test_a_folder_without_rasters_is_refused(tmp_path):
    with pytest.raises(SpecError, match="rasters"):
        shapes_of(tmp_path, None)
    with pytest.raises(ReadError):
        shapes_of(tmp_path / "nothing.tif", None)


def test_a_region_is_cut_where_zones_and_hemispheres_meet_and_nothing_is_lost():
    found = shapes_of(BBox(11.9, -0.1, 12.1, 0.1), None)
    assert sorted(found) == ["EPSG:32632", "EPSG:32633", "EPSG:32732", "EPSG:32733"]
    (whole,) = shapes_of(BBox(11.9, -0.1, 12.1, 0.1), "EPSG:6933").values()  # equal areas
    parts = [shapely.area(one) for one in found.values()]
    assert sum(parts) == pytest.approx(whole.area, rel=3e-3)  # UTM is 0.2 % off there
    across = shapes_of(BBox(179.9, 10, -179.9, 10.2), None)
    assert sorted(across) == ["EPSG:32601", "EPSG:32660"]


def test_a_hole_stays_a_hole_and_parts_that_overlap_count_once():
    hole = shapely.box(12.91, 47.77, 12.92, 47.78)
    (found,) = shapes_of(shapely.difference(BOX, hole), CRS).values()
    (whole,) = shapes_of(BOX, CRS).values()
    (inner,) = shapes_of(hole, CRS).values()
    assert found.area == pytest.approx(whole.area - inner.area, rel=1e-9)
    (twice,) = shapes_of([BOX, BOX], CRS).values()
    assert twice.area == pytest.approx(whole.area, rel=1e-9)
    (square,) = shapes_of(PointBuffer(12.94, 47.77, 500), CRS).values()
    assert square.area == pytest.approx(1e6, rel=1e-6)
