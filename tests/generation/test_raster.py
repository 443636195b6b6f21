"""Generated rasters as people get them: files, arrays, pictures, errors."""

import json

import numpy as np
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox

from rs_embed.embedders.cards.terramind_tokens import LULC_CLASSES, TOKENS
from rs_embed.errors import StorageError
from rs_embed.generation.raster import GeneratedRaster
from rs_embed.generation.tokenizing import round_trip_error

GEOBOX = GeoBox((20, 30), Affine(10, 0, 400000, 0, -10, 5300000), "EPSG:32633")
SHAPES = {"S2L2A": 12, "S1GRD": 2, "DEM": 1, "LULC": 1}


def raster(name, geobox=GEOBOX, note="random weights: shapes only"):
    values = np.arange(SHAPES[name] * 600, dtype=np.float32).reshape(SHAPES[name], 20, 30)
    values = (values % 10).astype(np.uint8) if name == "LULC" else values
    return GeneratedRaster(name, values, TOKENS[name].bands, geobox, json.dumps({"seed": 1}), note)


@pytest.mark.parametrize("name", SHAPES)
def test_a_file_holds_pixels_place_units_and_where_they_come_from(name, tmp_path):
    one = raster(name)
    with rasterio.open(one.to_geotiff(tmp_path / "one.tif")) as file:
        np.testing.assert_array_equal(file.read(), one.values)
        assert (file.crs.to_epsg(), file.transform) == (32633, GEOBOX.affine)
        assert file.descriptions == tuple(band.name for band in one.bands)
        assert set(file.units) == {str(one.unit)}
        assert json.loads(file.tags()["RS_EMBED_META"]) == {"seed": 1}
        assert file.tags()["NOTE"] == "random weights: shapes only"
        assert file.tags().get("CLASS_2") == ("trees" if name == "LULC" else None)
    assert [path.name for path in tmp_path.iterdir()] == ["one.tif"], "nothing half written is left"


def test_an_array_has_coordinates_of_pixel_centres_and_the_names_of_classes():
    array = raster("LULC").to_xarray()
    assert array.dims == ("band", "y", "x")
    assert (float(array.x[0]), float(array.y[0])) == (400005.0, 5299995.0)
    assert array.attrs["flag_meanings"].split() == [name.replace(" ", "_") for name in LULC_CLASSES]
    assert array.attrs["note"] == "random weights: shapes only"
    assert raster("DEM").to_xarray().attrs["units"] == "metre"


@pytest.mark.parametrize(("geobox", "name"), [(None, "x.tif"), (GEOBOX, "x.png"), (GEOBOX, "none/x.tif")])
def test_what_cannot_be_a_geotiff_is_refused(geobox, name, tmp_path):
    with pytest.raises(StorageError, match=r"Expected a georeferenced raster and a \.tif"):
        raster("DEM", geobox).to_geotiff(tmp_path / name)


@pytest.mark.parametrize("name", SHAPES)
def test_a_picture_says_that_it_was_generated_and_of_which_weights(name, tmp_path):
    from rs_embed.generation.panels import plot_rasters

    figure = plot_rasters([raster(name)], tmp_path / "one.png")
    title = figure.axes[0].get_title()
    assert f"{name}, generated" in title
    assert "random weights: shapes only" in title
    assert (tmp_path / "one.png").stat().st_size > 1000


def test_the_error_is_that_of_known_pixels():
    facts = TOKENS["S1GRD"]
    before = np.zeros((2, 2, 2), np.float32)
    before[0, 0, 0] = np.nan
    after = np.stack([np.full((2, 2), 2.0), np.full((2, 2), -3.0)]).astype(np.float32)
    error = round_trip_error(facts, before, after)
    assert (error.rmse, error.bias, error.valid_fraction) == ((2.0, 3.0), (2.0, -3.0), 0.75)
    assert str(error).splitlines()[0] == "VV: RMSE 2 db, bias +2"
