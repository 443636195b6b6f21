"""Where pixels come from: aligned windows, edges, other zones and pixel sizes."""

import numpy as np
import pytest
import rasterio
from affine import Affine
from asking import RGB, S1, ask, grid
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from rs_embed.core.geo import geobox_for
from rs_embed.core.specs import PointBuffer
from rs_embed.errors import NoValidPixels, OutsideCoverage, PixelWarning, ScaleWarning
from rs_embed.providers.common.grids import bounds_deg
from rs_embed.providers.rasters.local import LocalRasters


@pytest.fixture
def dn(rng):
    return rng.integers(200, 4000, (3, 20, 30)).astype(np.uint16)


@given(col=st.integers(-12, 35), row=st.integers(-12, 25), width=st.integers(1, 50), height=st.integers(1, 50))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.filterwarnings("ignore:.*every band is constant")
def test_an_aligned_window_is_the_slice_that_numpy_takes(make_raster, dn, col, row, width, height):
    provider = LocalRasters(make_raster(dn, bands=RGB), offset=0)
    padded = np.full((3, 120, 150), np.nan, np.float32)
    padded[:, 40:60, 40:70] = dn
    wanted = padded[:, 40 + row : 40 + row + height, 40 + col : 40 + col + width]
    query = ask(geobox=grid(col, row, width, height))
    if np.isnan(wanted).all():
        with pytest.raises(OutsideCoverage):
            provider.fetch(query)
    else:
        np.testing.assert_array_equal(provider.fetch(query).values[0], wanted)


def test_bands_come_in_the_order_asked(make_raster, dn):
    provider = LocalRasters(make_raster(dn, bands=RGB))
    np.testing.assert_array_equal(provider.fetch(ask(("B2", "B4"))).values[0], dn[[2, 0]])


def test_a_raster_at_a_fraction_of_a_metre_is_read_as_it_is_when_no_place_is_given(make_raster, dn):
    odd = Affine(10, 0, 617301.8198784498, 0, -10, 9625098.22745184)
    provider = LocalRasters(make_raster(dn, bands=RGB, transform=odd, crs="EPSG:32736"))
    chip = provider.fetch(ask())
    np.testing.assert_array_equal(chip.values[0], dn)
    assert chip.geobox == provider.native_geobox(ask()) == GeoBox((20, 30), odd, "EPSG:32736")


def test_another_pixel_size_than_the_files_own_gives_a_grid_over_the_whole_raster(make_raster, dn):
    native = LocalRasters(make_raster(dn, bands=RGB)).native_geobox(ask(scale_m=20))
    assert native.shape == (10, 15)
    assert native.resolution.x == 20
    assert native.crs == "EPSG:32633"


def test_the_native_grid_of_a_geographic_raster_is_in_utm_and_covers_it(make_raster, dn):
    degrees = Affine(1e-4, 0, 15.0, 0, -1e-4, 47.8)
    native = LocalRasters(make_raster(dn, bands=RGB, transform=degrees, crs="EPSG:4326")).native_geobox(ask())
    assert native.crs == "EPSG:32633"
    west, south, east, north = bounds_deg(native)
    assert west <= 15.0
    assert east >= 15.003
    assert south <= 47.798
    assert north >= 47.8


def test_a_band_with_the_asked_pixel_size_decides_the_native_grid(make_raster, dn):
    coarse = make_raster(dn[:1, :4, :5], "b1.tif", transform=Affine(60, 0, 600_000, 0, -60, 5_300_000))
    fine = make_raster(dn[:1, :24, :30], "b2.tif")
    native = LocalRasters({"B1": coarse, "B2": fine}).native_geobox(ask(("B1", "B2")))
    assert native.resolution.x == 10


def test_pixels_twice_as_coarse_are_repeated(make_raster, dn):
    coarse = make_raster(dn, bands=RGB, transform=Affine(20, 0, 600_000, 0, -20, 5_300_000))
    with pytest.warns(ScaleWarning, match="its pixels are 20 m, and stand for pixels of 10 m"):
        chip = LocalRasters(coarse).fetch(ask(geobox=grid(0, 0, 60, 40)))
    np.testing.assert_array_equal(chip.values[0], dn.repeat(2, axis=1).repeat(2, axis=2))
    assert "scene: pixels of 20 m repeated to 10 m." in chip.source.notes


def test_bands_that_the_sensor_itself_has_coarser_are_noted_but_not_warned_of(make_raster, dn):
    coarse = make_raster(dn[:1], bands=("B5",), transform=Affine(20, 0, 600_000, 0, -20, 5_300_000))
    chip = LocalRasters(coarse, unit="dn", offset=0).fetch(ask(("B5",), grid(0, 0, 60, 40)))
    assert chip.source.notes == ("scene: pixels of 20 m repeated to 10 m.",)


def test_pixels_twice_as_fine_are_averaged(make_raster, dn):
    fine = make_raster(dn, bands=RGB, transform=Affine(5, 0, 600_000, 0, -5, 5_300_000))
    chip = LocalRasters(fine, offset=0).fetch(ask(geobox=grid(0, 0, 15, 10)))
    np.testing.assert_allclose(chip.values[0], dn.reshape(3, 10, 2, 15, 2).mean(axis=(2, 4)), rtol=1e-6)
    assert "scene: pixels of 5 m averaged to 10 m." in chip.source.notes


def test_half_a_pixel_off_is_interpolated(make_raster, dn):
    chip = LocalRasters(make_raster(dn, bands=RGB)).fetch(ask(geobox=grid(0.5, 0, 20, 20)))
    wanted = (dn[:, :, :20].astype(np.float32) + dn[:, :, 1:21]) / 2
    np.testing.assert_allclose(chip.values[0], wanted, rtol=1e-6)


def test_a_south_up_raster_comes_north_up(make_raster, dn):
    flipped = make_raster(dn[:, ::-1], bands=RGB, transform=Affine(10, 0, 600_000, 0, 10, 5_300_000 - 200))
    chip = LocalRasters(flipped).fetch(ask(geobox=grid(0, 0, 30, 20)))
    np.testing.assert_allclose(chip.values[0], dn, rtol=1e-6)
    assert LocalRasters(flipped).native_geobox(ask()).affine.e == -10


@pytest.mark.parametrize(
    ("crs", "pixel"),
    [("EPSG:32632", 10.0), ("EPSG:32634", 10.0), ("EPSG:4326", 1e-4), ("EPSG:3857", 14.0), ("EPSG:3035", 10.0)],
)
def test_a_ramp_stays_where_it_is_through_another_projection(make_raster, crs, pixel):
    """Pixels hold their own easting and northing in the wanted grid, so any shift shows as a number of metres."""
    wanted = geobox_for(PointBuffer(lon=12.5, lat=47.77, buffer_m=400))
    middle = wanted.affine @ (wanted.shape[1] / 2, wanted.shape[0] / 2)
    x, y = Transformer.from_crs(str(wanted.crs), crs, always_xy=True).transform(*middle)
    side = 160
    affine = Affine(pixel, 0, x - side / 2 * pixel, 0, -pixel, y + side / 2 * pixel)
    cols, rows = np.meshgrid(np.arange(side) + 0.5, np.arange(side) + 0.5)
    xs, ys = affine.a * cols + affine.c, affine.e * rows + affine.f
    east, north = Transformer.from_crs(crs, str(wanted.crs), always_xy=True).transform(xs, ys)
    ramp = np.stack([east - middle[0], north - middle[1]]) / 10 + 500  # in pixels of the wanted grid
    path = make_raster(ramp, bands=("B2", "B3"), transform=affine, crs=crs)
    chip = LocalRasters(path, unit="dn", offset=0).fetch(ask(("B2", "B3"), wanted))

    height, width = wanted.shape
    truth_east, truth_north = np.meshgrid(np.arange(width) + 0.5 - width / 2, height / 2 - np.arange(height) - 0.5)
    assert chip.valid_fraction == 1
    assert np.abs(chip.values[0, 0] - 500 - truth_east).max() < 0.1
    assert np.abs(chip.values[0, 1] - 500 - truth_north).max() < 0.1


@pytest.mark.parametrize("shift", [0.0, 0.5])
@pytest.mark.parametrize("stated", [{}, {"nodata": 0}, {"nodata": -9999}])
def test_nodata_never_bleeds_into_its_neighbours(make_raster, shift, stated):
    values = np.full((3, 20, 20), 1000, np.int16)
    values[0], values[1] = 500, 2000
    values[:, 5:8, 5:8] = stated.get("nodata", 0)
    provider = LocalRasters(make_raster(values, bands=RGB, **stated), offset=0, unit="dn")
    with pytest.warns(PixelWarning, match="every band is constant"):
        chip = provider.fetch(ask(geobox=grid(-3 + shift, -3, 30, 30)))
    seen = {band: set(np.unique(chip.values[0, i][np.isfinite(chip.values[0, i])])) for i, band in enumerate(RGB)}
    assert seen == {"B4": {500.0}, "B3": {2000.0}, "B2": {1000.0}}
    assert np.isnan(chip.values[0, :, :3]).all()
    if shift == 0:
        assert np.isfinite(chip.values[0, 0]).sum() == 400 - 9


def test_a_mask_inside_the_file_is_honoured(make_raster, dn):
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        path = make_raster(dn, bands=RGB)
        with rasterio.open(path, "r+") as dataset:
            mask = np.full((20, 30), 255, np.uint8)
            mask[3:6, 3:6] = 0
            dataset.write_mask(mask)
    provider = LocalRasters(path)
    for query in (ask(), ask(geobox=grid(0.5, 0.5, 29, 19))):
        assert np.isnan(provider.fetch(query).values[0, :, 4, 4]).all()
    assert np.isnan(provider.fetch(ask()).values).sum() == 27


def test_a_nodata_value_that_the_type_cannot_hold_is_no_obstacle(make_raster, dn):
    path = make_raster(dn, bands=RGB)
    for provider in (
        LocalRasters(path, nodata=-9999),
        LocalRasters(path, nodata=1e300),
        LocalRasters(path, nodata=np.nan),
    ):
        for query in (ask(), ask(geobox=grid(0.5, 0.5, 9, 9))):
            assert provider.fetch(query).valid_fraction == 1


def test_outside_names_the_bounds_in_degrees_and_the_crs(make_raster, dn):
    with pytest.raises(OutsideCoverage) as caught:
        LocalRasters(make_raster(dn, bands=RGB)).fetch(ask(geobox=grid(30, 0, 5, 5)))
    text = str(caught.value)
    assert "lon 16.33" in text
    assert "EPSG:32633" in text
    assert "fix:" in text


def test_the_other_side_of_the_earth_is_outside_too(make_raster, dn):
    provider = LocalRasters(make_raster(dn, bands=RGB))
    for place in (PointBuffer(-170, -40, 500), PointBuffer(-164.5, -47.8, 500), PointBuffer(0, 89.9, 500)):
        with pytest.raises(OutsideCoverage):
            provider.fetch(ask(geobox=geobox_for(place)))


def test_a_place_of_nothing_but_nodata_says_so(make_raster, dn):
    dn[:, :10] = 0
    with pytest.raises(NoValidPixels, match="only nodata in scene"):
        LocalRasters(make_raster(dn, bands=RGB, nodata=0)).fetch(ask(geobox=grid(0, 0, 5, 5)))


def test_radar_is_resampled_in_its_own_unit(make_raster, rng):
    db = rng.normal(-12, 3, (2, 20, 20)).astype(np.float32)
    provider = LocalRasters(make_raster(db, bands=("VV", "VH"), nodata=np.nan))
    chip = provider.fetch(ask(("VV", "VH"), grid(0, 0.5, 20, 19), collection=S1))
    np.testing.assert_allclose(chip.values[0], (db[:, :-1] + db[:, 1:]) / 2, rtol=1e-5)


def test_a_transposed_raster_is_not_taken_for_an_aligned_one(make_raster, dn):
    square = dn[:, :20, :20]
    turned = make_raster(square.swapaxes(1, 2), bands=RGB, transform=Affine(0, 10, 600_000, -10, 0, 5_300_000))
    chip = LocalRasters(turned).fetch(ask(geobox=grid(0, 0, 20, 20)))
    np.testing.assert_allclose(chip.values[0], square, rtol=1e-6)


@pytest.mark.parametrize(
    ("place", "bounds"),
    [
        (GeoBox((180, 360), Affine(1, 0, -180, 0, -1, 90), "EPSG:4326"), (-180, -90, 180, 90)),
        (GeoBox((100, 100), Affine(10, 0, 500_000 + 210_000, 0, -10, 0), "EPSG:32660"), (178.886, -0.009, 178.896, 0)),
        (geobox_for(PointBuffer(180, 0, 50_000)), (179.55, -0.45, 180.45, 0.45)),
    ],
)
def test_bounds_in_degrees_hold_through_the_antimeridian(place, bounds):
    west, south, east, north = bounds_deg(place)
    turns = 360 * round((bounds[0] - west) / 360)
    np.testing.assert_allclose([west + turns, south, east + turns, north], bounds, atol=0.01)


def test_a_raster_of_the_whole_earth_is_read_anywhere(make_raster):
    degrees = np.arange(180, dtype=np.float32)[None, :, None] * 10 + np.zeros((1, 1, 360), np.float32) + 100
    world = make_raster(degrees, bands=("B2",), transform=Affine(1, 0, -180, 0, -1, 90), crs="EPSG:4326")
    for lon, lat in ((15.5, 47.5), (-170.5, -20.5), (179.5, 0.5)):
        with pytest.warns(PixelWarning, match="constant"), pytest.warns(ScaleWarning):
            chip = LocalRasters(world, unit="dn", offset=0).fetch(ask(("B2",), geobox_for(PointBuffer(lon, lat, 100))))
        assert (chip.values == np.floor(90 - lat) * 10 + 100).all()
