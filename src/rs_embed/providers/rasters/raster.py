"""One raster file: its header, and its pixels on a target grid. All files on disk are read by this module."""

import math
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import rasterio
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj.exceptions import ProjError
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.errors import CRSError, NotGeoreferencedWarning, RasterioError
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from rs_embed.core.geo import pixel_size_m
from rs_embed.core.stopping import PerProcess
from rs_embed.errors import ReadError
from rs_embed.providers import lexicon
from rs_embed.providers.common.grids import finer_by, is_outside, whole_pixel_shift
from rs_embed.providers.rasters.foreign import driver_of, require_regular
from rs_embed.redact import cause_of

Zero = Literal["value", "nodata", "nodata_if_all"]
"""What a stored 0 means: a value, nodata in its own band, or nodata where all bands are 0."""

NEAREST_FROM = 1.9
"""Source pixels coarser by a factor of about two or more are repeated, as on Earth Engine; others are interpolated."""
AVERAGE_FROM = 1.5
"""Source pixels finer by this factor are averaged, so that none is skipped."""
_WARP_TOLERANCE_PX = 1e-6
"""GDAL's default of 0.125 px shifts 0.05 percent of nearest pixels; rasterio refuses 0."""
_WORDS = {Resampling.average: "averaged", Resampling.nearest: "repeated", Resampling.bilinear: "interpolated"}
_WHOLE_FIX = "check that the file is complete (gdalinfo -checksum), and that no GDAL_ or PROJ_ variable interferes"
_ZARR_MARKS = (".zgroup", ".zarray", ".zmetadata", "zarr.json")
_ZARR_FIX = "write Zarr version 2, the only one that GDAL up to 3.10 reads: dataset.to_zarr(path, zarr_format=2)"
_RGB = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
_OPTIONS = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "NO",  # masks and world files beside a file are part of it
    "GDAL_PAM_ENABLED": "YES",
    "GDAL_GEOREF_SOURCES": "PAM,INTERNAL,TABFILE,WORLDFILE",
    "GTIFF_POINT_GEO_IGNORE": "NO",  # half a pixel
    "GTIFF_IGNORE_READ_ERRORS": "NO",  # unreadable blocks must not become zeros
    "GDAL_VRT_ENABLE_PYTHON": "NO",
}
"""GDAL options for files on disk, whatever the environment and other libraries set."""
_NO_WEB = {"CPL_VSIL_CURL_ALLOWED_FILENAME": "none", "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": ".none"}
"""A second safeguard behind `foreign`: GDAL then requests no file from a server."""
_opening = PerProcess(threading.Lock)
"""Silencing a warning is not thread-safe; headers are read once, so waiting costs little."""


@dataclass(frozen=True)
class Header:
    """The header of a raster; tuples have one value per band."""

    path: str
    """The path that GDAL opens: a file, or one array of a store."""
    grid: GeoBox
    """CRS, transform and shape of the whole raster."""
    dtypes: tuple[str, ...]
    descriptions: tuple[str | None, ...]
    colours: tuple[str | None, ...]
    """For an 8-bit picture: "red", "green", "blue", once each; `None` for other bands and other rasters."""
    units: tuple[str | None, ...]
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    """Value = stored x scale + offset."""
    tags: Mapping[str, str]
    """Tags of the file, keys in upper case."""
    foreign: bool = False
    """Whether the file may use more than rasters on this disk."""

    @property
    def count(self) -> int:
        """The number of bands."""
        return len(self.dtypes)


@contextmanager
def _reading(path: str) -> Iterator[None]:
    try:
        yield
    except (RasterioError, OSError, CRSError, UnicodeDecodeError) as error:
        cause = error.__cause__ or error  # "Read failed. See previous exception for details."
        raise ReadError(
            f"Expected a raster that GDAL {rasterio.__gdal_version__} can read, got {path}: {cause}",
            fix=_ZARR_FIX if _is_store(path) else _WHOLE_FIX,
        ) from cause_of(error)


def read_headers(path: str | Path, *, foreign: bool = False) -> tuple[Header, ...]:
    """Read the header of a file, or of each array of a Zarr store that holds one array per band.

    Args:
        path: A file or a store.
        foreign: Whether the file may use more than rasters on this disk, as VRTs can.

    Raises:
        ReadError: The file does not exist, is not a raster, uses what it may not, or is not georeferenced.
    """
    file = Path(path).expanduser()
    if "://" in str(path) or str(path).startswith("/vsi"):
        raise ReadError(f"Expected a raster on disk, got {path}.", fix="download it, and pass the path of the file")
    if not file.exists():
        raise ReadError(
            f"Expected a raster, got no file {file}.", looked_in=file.parent.resolve(), fix="check the path"
        )
    if file.is_dir() and not any((file / mark).exists() for mark in _ZARR_MARKS):
        raise ReadError(
            f"Expected a raster, got the directory {file}.",
            fix="list its files: LocalRasters([...]), or LocalRasters({band: path})",
        )
    if file.is_dir():
        driver: str | None = "Zarr"
    elif foreign:
        require_regular(file)
        driver = None
    else:
        driver = driver_of(file)
    headers = tuple(replace(header, foreign=foreign) for header in _headers(str(file), driver, foreign=foreign))
    if not headers:
        raise ReadError(f"Expected bands, got none in {file}.", fix=f"name each array after its band; {_ZARR_FIX}")
    return headers


def _is_store(path: str) -> bool:
    return path.startswith("ZARR:") or Path(path).is_dir()


@contextmanager
def _env(*, foreign: bool) -> Iterator[None]:
    """Set GDAL's options for the block, and restore them afterwards.

    The outer `Env` is for rasterio, whose outermost one keeps what environment variables set.
    """
    with rasterio.Env(), rasterio.Env(**_OPTIONS, **({} if foreign else _NO_WEB)):
        yield


def _headers(path: str, driver: str | None, *, foreign: bool) -> Iterator[Header]:
    with _reading(path), _opening.here, warnings.catch_warnings(), _env(foreign=foreign):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # a missing CRS is an error below
        with rasterio.open(path, driver=driver) as dataset:
            arrays = list(dataset.subdatasets) if dataset.count == 0 else []
            header = header_of(path, dataset) if not arrays else None
    if header is not None:
        yield header
    for array in arrays:
        if lexicon.names_a_band(array_name(array)):
            yield from _headers(array, None, foreign=foreign)


def array_name(path: str) -> str:
    """Return the name of one array of a store, as in `ZARR:store.zarr:/B2`."""
    return path.rsplit(":", 1)[-1].strip('/"')


def header_of(path: str, dataset: rasterio.DatasetReader) -> Header:
    """Read the header of an open raster.

    Raises:
        ReadError: It is not georeferenced.
    """
    grid = _grid_of(path, dataset)
    if any(dtype.startswith("complex") for dtype in dataset.dtypes):
        raise ReadError(f"Expected real numbers, got complex ones in {path}.", fix="calibrate it to backscatter first")
    descriptions = dataset.descriptions
    if dataset.count > 1 and len(set(descriptions)) == 1:
        descriptions = (None,) * dataset.count  # the same text for all bands names none of them
    if dataset.count == 1 and path.startswith("ZARR:"):
        descriptions = (array_name(path),)
    return Header(
        path=path,
        grid=grid,
        dtypes=tuple(dataset.dtypes),
        descriptions=tuple(descriptions),
        colours=_colours(dataset),
        units=tuple(dataset.units),
        scales=tuple(dataset.scales),
        offsets=tuple(dataset.offsets),
        tags={key.upper(): value for key, value in dataset.tags().items()},
    )


def _grid_of(path: str, dataset: rasterio.DatasetReader) -> GeoBox:
    """Return CRS, transform and shape of an open raster."""
    fix = "use gdal_translate -a_srs EPSG:32633 -a_ullr WEST NORTH EAST SOUTH in.tif out.tif, or use input_chw"
    try:
        crs, transform = dataset.crs, dataset.transform
        if crs is None or transform.is_identity:
            missing = "CRS" if crs is None else "geotransform"
            raise ReadError(f"Expected a georeferenced raster, got no {missing} in {path}.", fix=fix)
        if not (math.isfinite(sum(transform)) and transform.determinant):
            raise ReadError(f"Expected a geotransform, got {tuple(transform)[:6]} in {path}.", fix=fix)
        epsg = crs.to_epsg(confidence_threshold=100)  # the default would accept a similar CRS
        grid = GeoBox(dataset.shape, transform, f"EPSG:{epsg}" if epsg else crs.to_wkt())
    except (CRSError, ProjError) as error:
        raise ReadError(
            f"Expected a CRS, got one in {path} that PROJ does not understand: {error}",
            fix=f"{fix}; if other files fail as well, unset PROJ_DATA and PROJ_LIB, which may lead to another PROJ",
        ) from error
    if grid.crs is None or not (grid.crs.projected or grid.crs.geographic):
        raise ReadError(f"Expected a CRS that lies on the Earth's surface, got {crs} in {path}.", fix=fix)
    return grid


def _colours(dataset: rasterio.DatasetReader) -> tuple[str | None, ...]:
    names = tuple(colour.name if colour in _RGB else None for colour in dataset.colorinterp)
    is_picture = set(dataset.dtypes) == {"uint8"} and sorted(filter(None, names)) == ["blue", "green", "red"]
    return names if is_picture else (None,) * dataset.count


def usual_resampling(finer_by: float) -> rasterio.enums.Resampling:
    """Choose the resampling: average finer pixels, repeat much coarser ones, else interpolate bilinearly."""
    if finer_by >= AVERAGE_FROM:
        return Resampling.average
    return Resampling.nearest if finer_by <= 1 / NEAREST_FROM else Resampling.bilinear


@dataclass(frozen=True)
class Take:
    """What to read of a raster."""

    indexes: tuple[int, ...]
    """Band numbers, from 1."""
    nodata: float | None = None
    """Overrides the file's nodata value."""
    zero: Zero = "value"
    resampling: Callable[[float], Resampling] = usual_resampling
    """Chooses the resampling from the number of file pixels along the side of a grid pixel."""


def read_stored(
    header: Header, indexes: Sequence[int], geobox: GeoBox, *, nodata: float | None, zero: Zero, whole: bool = False
) -> NDArray[np.float32] | None:
    """Read the stored numbers on exactly `geobox`.

    A raster that is aligned with that grid is read without resampling. Otherwise its pixels are repeated if they are
    coarser by a factor of about two or more, averaged if they are finer by 1.5 or more, and bilinear in between.

    Args:
        header: The raster's header.
        indexes: Band numbers, from 1.
        geobox: The target grid.
        nodata: Overrides the file's nodata value.
        zero: Applies only if neither the file nor `nodata` says otherwise (but "nodata" always applies).
        whole: Take the nearest pixel, whatever its size: classes and vectors must not be mixed.

    Returns:
        `[C, H, W]`, before scale and offset, NaN for nodata and outside the raster; `None` if wholly outside.

    Raises:
        ReadError: The file cannot be read.
    """
    if is_outside(header.grid, geobox):
        return None
    with _reading(header.path), _env(foreign=header.foreign), rasterio.open(header.path) as dataset:
        resampling = whole_or_usual(whole=whole)
        return read_open(dataset, header.grid, geobox, Take(tuple(indexes), nodata, zero, resampling))


def whole_or_usual(*, whole: bool) -> Callable[[float], Resampling]:
    """Choose the resampling: nearest neighbour for `whole` pixels, else the usual one."""
    return (lambda finer_by: Resampling.nearest) if whole else usual_resampling


def pixels_brought(grid: GeoBox, geobox: GeoBox, *, whole: bool) -> tuple[float, str]:
    """Return the raster's pixel size in metres of `geobox`, and how `read_stored` resamples it ("": not at all)."""
    if whole_pixel_shift(grid, geobox) is not None:
        return pixel_size_m(geobox), ""
    ratio = finer_by(grid, geobox)
    return round(pixel_size_m(geobox) / ratio, 2), _WORDS[whole_or_usual(whole=whole)(ratio)]


def read_open(dataset: rasterio.DatasetReader, grid: GeoBox, geobox: GeoBox, take: Take) -> NDArray[np.float32]:
    """Read the stored numbers of an open raster on a grid that it touches; see `read_stored`.

    Args:
        dataset: The open raster; no other thread may use it meanwhile.
        grid: The raster's grid.
        geobox: The target grid.
        take: Which bands to read, and how.
    """
    nodata, indexes = take.nodata, list(take.indexes)
    if nodata is not None and not _can_hold(("float32", *dataset.dtypes), nodata):
        nodata = math.nan  # declared, but no pixel can have it
    shift = whole_pixel_shift(grid, geobox)
    if shift is not None:
        values = _read_part(dataset, indexes, geobox, shift, nodata)
    else:
        resampling = take.resampling(finer_by(grid, geobox))
        with _warped(dataset, geobox, resampling, nodata, take.zero) as warped:
            values = warped.read(indexes)
    if take.zero == "nodata":
        values[values == 0] = np.nan
    return values


def _read_part(
    dataset: rasterio.DatasetReader,
    indexes: Sequence[int],
    geobox: GeoBox,
    shift: tuple[int, int],
    nodata: float | None,
) -> NDArray[np.float32]:
    values = np.full((len(indexes), *geobox.shape), np.nan, np.float32)
    rows, cols = (
        slice(max(start, 0), min(start + size, limit))
        for start, size, limit in zip(shift, geobox.shape, dataset.shape, strict=True)
    )
    part = Window.from_slices(rows, cols)
    stored = dataset.read(list(indexes), window=part, out_dtype="float32")
    if nodata is not None:
        stored[stored == np.float32(nodata)] = np.nan
    elif any(MaskFlags.all_valid not in flags for flags in dataset.mask_flag_enums):
        stored[dataset.read_masks(list(indexes), window=part) == 0] = np.nan
    values[:, rows.start - shift[0] : rows.stop - shift[0], cols.start - shift[1] : cols.stop - shift[1]] = stored
    return values


def _warped(
    dataset: rasterio.DatasetReader, geobox: GeoBox, resampling: Resampling, nodata: float | None, zero: Zero
) -> WarpedVRT:
    unified = "NO"
    if nodata is None:
        nodata = dataset.nodata
    masked = MaskFlags.per_dataset in dataset.mask_flag_enums[0]
    if nodata is None and zero != "value" and not masked:
        nodata, unified = 0.0, "YES" if zero == "nodata_if_all" else "NO"
    if nodata is not None and not _can_hold(dataset.dtypes, nodata):
        nodata = None  # rasterio refuses NaN here
    return WarpedVRT(
        dataset,
        crs=str(geobox.crs),
        transform=geobox.affine,
        height=geobox.shape[0],
        width=geobox.shape[1],
        src_nodata=nodata,
        nodata=math.nan,
        dtype="float32",
        resampling=resampling,
        tolerance=_WARP_TOLERANCE_PX,
        UNIFIED_SRC_NODATA=unified,
    )


def _can_hold(dtypes: Sequence[str], number: float) -> bool:
    """Whether all types can hold that value; some files declare -9999 for unsigned integers."""
    limits = [np.iinfo(dtype) if np.dtype(dtype).kind in "iu" else np.finfo(dtype) for dtype in dtypes]
    return all(float(limit.min) <= number <= float(limit.max) for limit in limits)
