"""Maps of classes: the same as predictions one by one, with georeference, colours and names."""

from xml.etree import ElementTree

import geopandas
import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from made_heads import CELL_M, LEFT, MADE, TOP, points, truth
from made_heads import region as made_region
from odc.geo.geobox import GeoBox

from rs_embed.errors import NoValidPixels, SpecError, StorageError
from rs_embed.learning.class_map import ClassMap, MapTokens, map_classes
from rs_embed.learning.fit import fit

pytestmark = pytest.mark.slow


def expected(head, region):
    """Codes computed token by token."""
    tokens = region.levels[0].tokens(0, region.levels[0].whole)
    there = np.isfinite(tokens).all(axis=-1)
    codes = np.zeros(there.shape, np.uint8)
    codes[there] = head.fitted.predict(tokens[there]) + 1
    return codes


def test_a_map_is_what_the_head_predicts_of_each_token(head, region, tmp_path):
    codes = expected(head, region)
    assert (codes == 0).sum() == 1  # the token of nodata
    found = head.map(region, tmp_path / "cover.tif", probabilities=tmp_path / "p.tif")
    np.testing.assert_array_equal(found.read()[0], codes)
    np.testing.assert_array_equal(head.map(region).read()[0], codes)
    rows, cols = np.indices(codes.shape)
    assert (truth(rows, cols) == np.array(["", *head.classes])[codes]).mean() > 0.95
    with rasterio.open(tmp_path / "p.tif") as file:
        proba = file.read()
        assert file.descriptions == tuple(f"probability of {name}" for name in head.classes)
        assert np.isnan(file.nodata)
    tokens = region.levels[0].tokens(0, region.levels[0].whole)
    there = codes > 0
    np.testing.assert_array_equal(proba[:, there].T, head.fitted.proba(tokens[there]).astype(np.float32))
    assert np.isnan(proba[:, ~there]).all()


def test_the_geotiff_keeps_georeference_nodata_colours_and_names(head, region, tmp_path):
    path = tmp_path / "cover.tif"
    head.map(region, path)
    with rasterio.open(path) as file:
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert (file.crs.to_epsg(), file.nodata, file.dtypes) == (32633, 0, ("uint8",))
        assert tuple(file.transform)[:6] == (CELL_M, 0, LEFT, 0, -CELL_M, TOP)
        assert file.colormap(1)[3] == (0, 0, 255, 255) and file.colormap(1)[0][3] == 0
        assert file.tags()["CLASSES"] == "1: forest & co; 2: meadow; 3: water"
        assert file.tags()["MODEL"] == "plain" and "balanced accuracy" in file.tags()["SCORE"]
        assert file.tags()["DAYS"] == "2021-01-01 to 2022-01-01"
        assert str(tmp_path / "cover.tif.aux.xml") in file.files
    rasterio.shutil.copy(path, tmp_path / "as-gdal-reads-it.vrt", driver="VRT")
    band = ElementTree.parse(tmp_path / "as-gdal-reads-it.vrt").find("VRTRasterBand")
    assert [one.text or "" for one in band.find("CategoryNames")] == ["", "forest & co", "meadow", "water"]
    style = ElementTree.parse(tmp_path / "cover.qml").findall(".//paletteEntry")
    assert [one.get("label") for one in style] == list(head.classes)
    assert style[2].attrib == {"value": "3", "label": "water", "color": "#0000ff", "alpha": "255"}


def test_a_map_opens_again_from_its_file(head, region, tmp_path):
    head.map(region, tmp_path / "cover.tif")
    again = ClassMap.open(tmp_path / "cover.tif")
    assert again.facts == head.facts and again.geobox == region.geobox
    assert "1 forest & co, 2 meadow, 3 water" in repr(again)
    array = again.to_xarray()
    assert array.shape == region.shape and array.rio.crs == 32633 if hasattr(array, "rio") else True
    assert array.attrs["flag_values"] == [1, 2, 3] and array["x"][0] == LEFT + CELL_M / 2
    region.to_geotiff(tmp_path / "tokens.tif")
    with pytest.raises(StorageError, match="tells of no head"):
        ClassMap.open(tmp_path / "tokens.tif")


def test_polygons_cover_the_same_ground(head, region, tmp_path):
    found = head.map(region, tmp_path / "cover.tif")
    frame = geopandas.read_file(found.polygons(tmp_path / "polygons.gpkg"))
    cells = found.areas().table.set_index("class")["cells"]
    assert frame.crs.to_epsg() == 32633
    by_class = frame.dissolve("class").area / CELL_M**2
    np.testing.assert_allclose(by_class[cells.index], cells)
    mapped = found.areas().table.set_index("class")["mapped_ha"]
    np.testing.assert_allclose(frame.groupby("class").area_m2.sum()[mapped.index] / 1e4, mapped, rtol=1e-4)
    assert (tmp_path / "polygons.qml").is_file()
    memory = geopandas.read_file(head.map(region).polygons(tmp_path / "memory.gpkg"))
    assert memory.geometry.geom_equals(frame.geometry).all()
    largest = geopandas.read_file(found.polygons(tmp_path / "large.gpkg", min_area_m2=frame.area_m2.max()))
    assert len(largest) == 1
    with pytest.raises(NoValidPixels, match="min_area_m2"):
        found.polygons(tmp_path / "none.gpkg", min_area_m2=1e12)
    with pytest.raises(StorageError, match=r"\.gpkg"):
        found.polygons(tmp_path / "polygons.shp")
    assert not list(tmp_path.glob(".part*"))


def test_polygons_leave_the_style_of_a_raster_of_the_same_name_alone(head, region, tmp_path):
    head.map(region, tmp_path / "cover.tif").polygons(tmp_path / "cover.gpkg")
    assert "paletteEntry" in (tmp_path / "cover.qml").read_text()


def test_a_grid_of_one_call_is_mapped_like_a_region_and_overviews_too(head, region):
    coarse = head.map(region, level=1)
    assert coarse.geobox == region.level(1).geobox and coarse.read().shape[1:] == (20, 28)


def test_numbers_become_float32(tmp_path):
    rows, cols = np.divmod(np.arange(0, 2184, 15), MADE.columns)
    rows = rows + 1
    frame = points(rows, cols, rows * 1.5 + 0.25, "depth")
    made = made_region(tmp_path)
    head = fit(frame, "depth", region=made)
    assert head.facts.head == "ridge" and head.validation.scores["R2"][0] > 0.99
    found = head.map(made, tmp_path / "depth.tif")
    with rasterio.open(found.path) as file:
        values = file.read(1)
        assert file.dtypes == ("float32",) and file.descriptions == ("depth",)
    assert np.isnan(values[3, 5]) and np.nanmax(np.abs(values[30] - 45.25)) < 0.5
    assert head.predict(frame.head(3), region=made)["predicted"].tolist() == pytest.approx([1.75] * 3, abs=0.5)
    for wrong in (lambda: found.areas(), lambda: found.polygons(tmp_path / "p.gpkg")):
        with pytest.raises(SpecError, match="map of classes"):
            wrong()
    with pytest.raises(SpecError, match="probabilities of classes"):
        head.map(made, probabilities=tmp_path / "p.tif")


def test_several_labels_become_a_band_of_probabilities_each(tmp_path):
    rows, cols = np.divmod(np.arange(0, 2184, 15), MADE.columns)
    names = [
        ";".join(name for name, yes in (("top", r < 20), ("left", c < 28)) if yes)
        for r, c in zip(rows, cols, strict=True)
    ]
    made = made_region(tmp_path)
    frame = points(rows, cols, [one or ";" for one in names], "sides")
    head = fit(frame, "sides", region=made)
    assert head.kind == "multilabel" and head.classes == ("left", "top")
    found = head.map(made, tmp_path / "sides.tif").to_xarray()
    assert found.dims == ("band", "y", "x") and found["band"].to_numpy().tolist() == ["left", "top"]
    assert float(found.sel(band="top")[2, 50]) > 0.9 > 0.1 > float(found.sel(band="top")[38, 50])
    assert head.predict(frame.head(2), region=made)["predicted"].tolist() == ["left;top", "left;top"]


def test_a_map_too_large_for_memory_needs_a_file(head):
    box = GeoBox((20_000, 20_000), Affine(10, 0, 0, 0, -10, 0), "EPSG:32633")
    tokens = MapTokens(box, head.origin, None, lambda: iter(()), lambda cells: np.zeros((0, 0, 4), np.float32))
    with pytest.raises(SpecError, match="at most 64 MB in memory, got 400 MB"):
        map_classes(head, tokens, None, None)


def test_vectors_and_other_things_are_no_grid(head, tmp_path):
    with pytest.raises(SpecError, match="Expected a georeferenced grid"):
        head.map(3)
