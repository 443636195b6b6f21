"""Local means local: what a file on disk may draw on, and what makes it reach further."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from asking import ask

from rs_embed.errors import ReadError
from rs_embed.providers import open_provider
from rs_embed.providers.rasters.folder import RasterFolder
from rs_embed.providers.rasters.local import LocalRasters, Raster

pytestmark = pytest.mark.slow

PLACE = "<SRS>EPSG:32633</SRS><GeoTransform>600000,10,0,5300000,0,-10</GeoTransform>"
BAND = '<VRTRasterBand dataType="UInt16" band="1"{}>{}</VRTRasterBand>'


@pytest.fixture
def web():
    """A server that has nothing, and the paths that it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        do_HEAD = do_POST = do_GET

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    server.asked, server.url = asked, f"http://127.0.0.1:{server.server_port}"
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def tile(make_raster, rng):
    return make_raster(rng.integers(300, 4000, (1, 16, 16)).astype(np.uint16), "tile.tif")


@pytest.fixture
def write(tmp_path, tile):
    """A VRT of 16 x 16 pixels at 10 m, or any other text, beside the tile."""

    def made(body, name="made.vrt", kind=""):
        path = tmp_path / name
        whole = body if name.endswith(".xml") else f'rasterXSize="16" rasterYSize="16"{kind}>{PLACE}{body}'
        path.write_text(whole if name.endswith(".xml") else f"<VRTDataset {whole}</VRTDataset>")
        return path

    return made


def source(name, beside=0, more=""):
    named = f'<SourceFilename relativeToVRT="{beside}">{name}</SourceFilename><SourceBand>1</SourceBand>'
    return BAND.format("", f"<SimpleSource>{named}{more}</SimpleSource>")


def wms(url):
    return (
        f'<GDAL_WMS><Service name="TMS"><ServerUrl>{url}/${{z}}/${{x}}/${{y}}.png</ServerUrl></Service><DataWindow>'
        "<UpperLeftX>600000</UpperLeftX><UpperLeftY>5300000</UpperLeftY><LowerRightX>600160</LowerRightX>"
        "<LowerRightY>5299840</LowerRightY><SizeX>16</SizeX><SizeY>16</SizeY><TileLevel>0</TileLevel></DataWindow>"
        "<Projection>EPSG:32633</Projection><BandsCount>1</BandsCount><DataType>UInt16</DataType></GDAL_WMS>"
    )


def read(path, **said):
    return LocalRasters(path, bands=["B2"], unit="dn", **said).fetch(ask(("B2",)))


def by_warping(url):
    return BAND.format(' subClass="VRTWarpedRasterBand"', "") + (
        f"<GDALWarpOptions><SourceDataset>{url}</SourceDataset><BandList><BandMapping src='1' dst='1'/></BandList>"
        "</GDALWarpOptions>"
    )


REACHING = {
    "curl": lambda url: source(f"/vsicurl/{url}/x.tif"),
    "streaming": lambda url: source(f"/vsicurl_streaming/{url}/x.tif"),
    "http": lambda url: source(f"{url}/x.tif"),
    "bucket": lambda url: source("/vsis3/bucket/x.tif"),
    "zip": lambda url: source(f"/vsizip//vsicurl/{url}/x.zip/x.tif"),
    "vrt": lambda url: source(f"vrt:///vsicurl/{url}/x.tif"),
    "subdataset": lambda url: source(f'NETCDF:"{url}/x.nc":B2'),
    "service in place of a file": lambda url: source(wms(url).replace("<", "&lt;")),
    "attribute": lambda url: BAND.format("", f'<SimpleSource SourceFilename="/vsicurl/{url}/x.tif"/>'),
    "other case": lambda url: source(f"/vsicurl/{url}/x.tif").replace("SourceFilename", "SOURCEFILENAME"),
    "mask": lambda url: source("tile.tif", 1) + f"<MaskBand>{source(f'/vsicurl/{url}/x.tif')}</MaskBand>",
    "overview": lambda url: source("tile.tif", 1).replace(
        "</SimpleSource>", f"</SimpleSource><Overview><SourceFilename>/vsicurl/{url}/o.tif</SourceFilename></Overview>"
    ),
    "warped": lambda url: by_warping(f"/vsicurl/{url}/x.tif"),
    "option": lambda url: source("tile.tif", 1, f"<Option name='DEM'>/vsicurl/{url}/dem.tif</Option>"),
    "metadata": lambda url: (
        f'<Metadata domain="GEOLOCATION"><MDI key="X_DATASET">/vsicurl/{url}/x.tif</MDI></Metadata>'
        + source("tile.tif", 1)
    ),
}


@pytest.mark.parametrize("how", REACHING)
def test_no_vrt_reaches_the_network(write, web, how):
    path = write(REACHING[how](web.url))
    with pytest.raises(ReadError, match="Expected a VRT of rasters on this disk") as caught:
        read(path)
    assert "allow_foreign=True" in str(caught.value)
    assert web.asked == []


def test_a_vrt_within_a_vrt_is_looked_at_too(write, web):
    write(REACHING["curl"](web.url), "inner.vrt")
    write(source("inner.vrt", 1), "middle.vrt")
    with pytest.raises(ReadError, match="/vsicurl/"):
        read(write(source("middle.vrt", 1)))
    assert web.asked == []


def test_vrts_that_name_each_other_end(write):
    write(source("b.vrt", 1), "a.vrt")
    with pytest.raises(ReadError):
        read(write(source("a.vrt", 1), "b.vrt"))


def test_the_description_of_a_web_service_is_no_raster(write, web):
    path = write(wms(web.url), "service.xml")
    with pytest.raises(ReadError, match="contains its pixels"):
        read(path)
    with pytest.raises(ReadError, match="of another format"):
        read(write(source("service.xml", 1)))
    path.rename(path.with_suffix(".tif"))
    with pytest.raises(ReadError, match="contains its pixels"):
        open_provider(path.with_suffix(".tif"))
    assert web.asked == []


RAW = (
    '<SourceFilename relativeToVRT="0">/etc/passwd</SourceFilename><ImageOffset>0</ImageOffset>'
    "<PixelOffset>1</PixelOffset><LineOffset>1</LineOffset>"
)


@pytest.mark.parametrize(
    ("kind", "body", "says"),
    [
        ("", BAND.format(' subClass="VRTRawRasterBand"', RAW), "reads the bytes of any file"),
        ("", BAND.format(' SUBCLASS="vrtrawrasterband"', RAW), "reads the bytes of any file"),
        ("", source("/etc/passwd"), "of another format"),
        (' subClass="VRTProcessedDataset"', source("tile.tif", 1), "reads the bytes"),
        (
            "",
            BAND.format(
                ' subClass="VRTDerivedRasterBand"',
                "<PixelFunctionType>f</PixelFunctionType><PixelFunctionLanguage>Python</PixelFunctionLanguage>",
            ),
            "a function in Python",
        ),
    ],
)
def test_no_vrt_reads_other_files_or_runs_code(write, kind, body, says):
    with pytest.raises(ReadError, match=says) as caught:
        read(write(body, kind=kind))
    assert "root:" not in str(caught.value)  # nothing of the file is shown


@pytest.mark.parametrize(
    "text",
    [
        '<!DOCTYPE x [<!ENTITY a "b">]><VRTDataset rasterXSize="1" rasterYSize="1"/>',
        '<VRTDataset rasterXSize="1" rasterYSize="1">',
        "<VRTDataset>" + "<a>" * 200_000,
    ],
)
def test_xml_that_cannot_be_looked_at_is_refused(tmp_path, text):
    path = tmp_path / "odd.vrt"
    path.write_text(text)
    with pytest.raises(ReadError, match="Expected a VRT of rasters on this disk"):
        read(path)


def test_vrts_of_local_rasters_are_read_wherever_these_lie(write, tile, tmp_path, make_raster, monkeypatch):
    with rasterio.open(tile) as file:
        wanted = file.read().astype(np.float32)
    monkeypatch.chdir(tmp_path)
    described = '<Metadata><MDI key="from">https://example.org/x</MDI></Metadata><Description>/vsicurl/</Description>'
    for body in (
        source("tile.tif", 1),
        source(str(tile)),
        source("tile.tif"),
        source("tile.tif", 1, "<OpenOptions><OOI key='OVERVIEW_LEVEL'>NONE</OOI></OpenOptions>"),
        described + source("tile.tif", 1),
        source("GTIFF_DIR:1:" + str(tile)),
        "<!-- made by hand -->" + source("tile.tif", 1),
    ):
        np.testing.assert_array_equal(read(write(body)).values[0], wanted)
    write(source("tile.tif", 1), "inner.vrt")
    np.testing.assert_array_equal(read(write(source("inner.vrt", 1))).values[0], wanted)
    tile.rename(tmp_path / "tile_2022-06-01T10:10:31.tif")
    np.testing.assert_array_equal(read(write(source("tile_2022-06-01T10:10:31.tif", 1))).values[0], wanted)


def test_a_vrt_of_a_zarr_store_is_read(tmp_path, tile, write):
    rasterio.shutil.copy(tile, tmp_path / "store.zarr", driver="Zarr")
    body = source(f'ZARR:"{tmp_path / "store.zarr"}"')
    assert read(write(body)).valid_fraction == 1


def test_a_tile_that_is_missing_elsewhere_stops_nobody(write):
    far = source("tile.tif", 1).replace("</VRTRasterBand>", "") + (
        '<SimpleSource><SourceFilename relativeToVRT="1">missing.tif</SourceFilename><SourceBand>1</SourceBand>'
        '<SrcRect xOff="0" yOff="0" xSize="1" ySize="1"/><DstRect xOff="900" yOff="900" xSize="1" ySize="1"/>'
        "</SimpleSource></VRTRasterBand>"
    )
    assert read(write(far)).valid_fraction == 1


def test_who_trusts_a_file_says_so(write, web, tmp_path):
    numbers = np.arange(700, 956, dtype="<u2")
    (tmp_path / "raw.bin").write_bytes(numbers.tobytes())
    body = BAND.format(
        ' subClass="VRTRawRasterBand"',
        '<SourceFilename relativeToVRT="1">raw.bin</SourceFilename><ImageOffset>0</ImageOffset>'
        "<PixelOffset>2</PixelOffset><LineOffset>32</LineOffset><ByteOrder>LSB</ByteOrder>",
    )
    path = write(body)
    wanted = numbers.reshape(1, 1, 16, 16).astype(np.float32)
    np.testing.assert_array_equal(read(path, allow_foreign=True).values, wanted)
    told = LocalRasters(Raster(path, bands=["B2"], unit="dn", allow_foreign=True))
    np.testing.assert_array_equal(told.fetch(ask(("B2",))).values, wanted)
    folder = RasterFolder(tmp_path / "made.*", bands=["B2"], unit="dn", allow_foreign=True)
    np.testing.assert_array_equal(folder.fetch(ask(("B2",))).values, wanted)
    with pytest.raises(ReadError, match="allow_foreign=True"):
        RasterFolder(tmp_path / "made.*", bands=["B2"], unit="dn")
    with pytest.raises(ReadError):  # it is not there, but was asked for
        read(write(REACHING["curl"](web.url)), allow_foreign=True)
    assert "/x.tif" in web.asked


def test_what_is_allowed_is_no_part_of_the_identity(tile):
    assert LocalRasters(tile).identity() == LocalRasters(tile, allow_foreign=True).identity()
