"""Files that are none or broken, and an environment that breaks whole ones: typed errors, and no silent zeros."""

import os

import numpy as np
import pytest
import rasterio
from asking import RGB, ask, grid

from rs_embed.errors import ReadError, RSEmbedError
from rs_embed.providers.rasters.local import LocalRasters
from rs_embed.providers.sample import SampleScene


@pytest.fixture
def dn(rng):
    return rng.integers(300, 4000, (3, 32, 32)).astype(np.uint16)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.tif")
    with pytest.raises(ReadError, match="got the pipe"):
        LocalRasters(tmp_path / "pipe.tif")
    with pytest.raises(ReadError, match="got the pipe"):
        LocalRasters(tmp_path / "pipe.tif", allow_foreign=True)
    inside = '<SimpleSource><SourceFilename relativeToVRT="1">pipe.tif</SourceFilename></SimpleSource>'
    (tmp_path / "of.vrt").write_text(f"<VRTDataset><VRTRasterBand>{inside}</VRTRasterBand></VRTDataset>")
    with pytest.raises(ReadError, match="got the pipe"):
        LocalRasters(tmp_path / "of.vrt")


@pytest.mark.parametrize("path", ["/dev/null", "/dev/zero"])
def test_a_device_is_refused(path):
    with pytest.raises(ReadError, match="socket or device"):
        LocalRasters(path)


@pytest.mark.parametrize("path", ["/vsicurl/http://127.0.0.1:1/x.tif", "http://127.0.0.1:1/x.tif", "s3://b/x.tif"])
def test_an_address_is_refused_whoever_is_trusted(path):
    for allowed in (False, True):
        with pytest.raises(ReadError, match="Expected a raster on disk"):
            LocalRasters(path, allow_foreign=allowed)


@pytest.mark.parametrize("text", [b"", b"hello", b"{}", b"II*", b"\x00" * 100])
def test_what_is_no_raster_is_refused(tmp_path, text):
    path = tmp_path / "scene.tif"
    path.write_bytes(text)
    with pytest.raises(ReadError):
        LocalRasters(path)


@pytest.mark.parametrize("text", ["[" * 100_000, "{}", '{"shape": [-1]}', "\udcff"])
def test_a_store_with_a_broken_header_is_refused(tmp_path, text):
    (tmp_path / "store.zarr").mkdir()
    (tmp_path / "store.zarr" / ".zarray").write_text(text, errors="surrogateescape")
    with pytest.raises(ReadError):
        LocalRasters(tmp_path / "store.zarr")


@pytest.mark.parametrize(
    "crs",
    ['LOCAL_CS["here",UNIT["m",1]]', "EPSG:4978", 'VERT_CS["h",VERT_DATUM["d",2005],UNIT["m",1]]'],
)
def test_a_crs_that_lies_nowhere_on_the_surface_is_refused(make_raster, dn, crs):
    with pytest.raises(ReadError, match="CRS"):
        LocalRasters(make_raster(dn, bands=RGB, crs=crs))


def test_a_crs_that_nobody_understands_is_refused(make_raster, dn):
    path = make_raster(dn, bands=RGB)
    said = '<PAMDataset><SRS>PROJCS["x",GEOGCS["y"],PROJECTION["No_Such"],UNIT["z",0]]</SRS></PAMDataset>'
    path.with_name("scene.tif.aux.xml").write_text(said)
    with pytest.raises(ReadError):
        LocalRasters(path).fetch(ask(geobox=grid(0, 0, 8, 8)))


@pytest.mark.parametrize("numbers", ["1,0,0,1,0,0", "0,nan,0,0,0,1", "inf,1,0,0,0,-1"])
def test_a_geotransform_that_cannot_be_turned_round_is_refused(make_raster, dn, numbers):
    path = make_raster(dn, bands=RGB)
    said = f"<PAMDataset><SRS>EPSG:32633</SRS><GeoTransform>{numbers}</GeoTransform></PAMDataset>"
    path.with_name("scene.tif.aux.xml").write_text(said)
    with pytest.raises(ReadError, match="geotransform"):
        LocalRasters(path)


@pytest.mark.parametrize("options", [{}, {"compress": "deflate"}, {"tiled": True, "blockxsize": 16, "blockysize": 16}])
def test_a_truncated_file_is_an_error_and_no_zeros(make_raster, dn, options):
    path = make_raster(dn, bands=RGB, **options)
    whole = path.read_bytes()
    for size in range(0, len(whole), len(whole) // 40):
        path.write_bytes(whole[:size])
        with pytest.raises(RSEmbedError):
            LocalRasters(path).fetch(ask(geobox=grid(0, 0, 32, 32)))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::rs_embed.errors.RSEmbedWarning")
def test_a_flipped_byte_is_never_a_raw_error(make_raster, dn, rng):
    path = make_raster(dn, bands=RGB, compress="deflate")
    whole = path.read_bytes()
    for place in rng.integers(0, len(whole), 150):
        broken = bytearray(whole)
        broken[place] ^= int(1 << rng.integers(8))
        path.write_bytes(broken)
        try:
            chip = LocalRasters(path).fetch(ask(geobox=grid(0, 0, 32, 32)))
        except RSEmbedError:
            continue
        assert chip.values.shape == (1, 3, 32, 32)


BREAKING = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # hides the mask
    "GDAL_PAM_ENABLED": "NO",
    "GTIFF_IGNORE_READ_ERRORS": "YES",
    "GTIFF_POINT_GEO_IGNORE": "YES",
    "GDAL_GEOREF_SOURCES": "NONE",
    "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": ".nope",
    "CPL_VSIL_CURL_ALLOWED_FILENAME": "nope",
    "VSI_CACHE": "YES",
}


@pytest.mark.parametrize("variable", BREAKING)
def test_the_environment_changes_nothing_about_a_file(make_raster, dn, variable, monkeypatch):
    path = make_raster(dn, bands=RGB, tags={"AREA_OR_POINT": "Point"})
    with rasterio.open(path, "r+") as file:
        mask = np.full((32, 32), 255, np.uint8)
        mask[:4] = 0
        file.write_mask(mask)
    before = LocalRasters(path).fetch(ask())
    assert before.valid_fraction == 28 / 32
    monkeypatch.setenv(variable, BREAKING[variable])
    after = LocalRasters(path).fetch(ask())
    np.testing.assert_array_equal(after.values, before.values)
    assert after.geobox == before.geobox
    monkeypatch.delenv(variable)
    with rasterio.Env(**{variable: BREAKING[variable]}):  # another library in the same process
        np.testing.assert_array_equal(LocalRasters(path).fetch(ask()).values, before.values)


def test_a_broken_block_is_an_error_whatever_the_environment_says(make_raster, dn, monkeypatch):
    monkeypatch.setenv("GTIFF_IGNORE_READ_ERRORS", "YES")
    path = make_raster(dn, compress="deflate")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ReadError):
        LocalRasters(path, bands=RGB).fetch(ask())


def test_the_users_own_settings_of_gdal_are_as_before(make_raster, dn):
    path = make_raster(dn, bands=RGB)
    with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR", GDAL_CACHEMAX=64):
        LocalRasters(path).fetch(ask())
        SampleScene().fetch(ask(geobox=None))
        assert rasterio.env.getenv()["GDAL_DISABLE_READDIR_ON_OPEN"] == "EMPTY_DIR"
        assert "GTIFF_IGNORE_READ_ERRORS" not in rasterio.env.getenv()
