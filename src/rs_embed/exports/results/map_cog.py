"""Write a raster of a map as a Cloud Optimized GeoTIFF, window by window."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from rs_embed.core.atomic import part_of, replacing
from rs_embed.core.resources import SPARE_BYTES, is_about_space, require_room
from rs_embed.errors import StorageError
from rs_embed.exports.results.map_level import Cells
from rs_embed.formats.geotiff import COG_BLOCK_PX

if TYPE_CHECKING:
    import xarray as xr

HEADER_TAG = "RS_EMBED_HEADER"
"""The tag with the header of the map (JSON) in files made from it."""
OVERVIEW_PX = 1024
"""Longest side of the overview that is returned for a file."""
COLOURS = ("red", "green", "blue", "alpha")
Part = tuple[Cells, NDArray[np.generic]]
"""Cells, and their values `[band, H, W]`."""


@dataclass(frozen=True)
class RasterLayout:
    """Everything about a raster except its values."""

    names: tuple[str, ...]
    """Names of the bands."""
    dtype: Literal["float32", "uint8"] = "float32"
    """float32: NaN is nodata. uint8: red, green, blue and opacity; with a palette, codes of classes."""
    tags: Mapping[str, str] = field(default_factory=dict)
    palette: Mapping[int, tuple[int, int, int, int]] | None = None
    """Code -> red, green, blue and opacity, 0 to 255; 0 is nodata."""

    @property
    def tile_px(self) -> int:
        """Side of a tile, which holds all bands."""
        return COG_BLOCK_PX // 2 if len(self.names) > len(COLOURS) else 4 * COG_BLOCK_PX

    def profile(self, geobox: GeoBox) -> dict[str, object]:
        """Options of rasterio for the file of tiles: uncompressed, so that a tile can be written in parts."""
        height, width = geobox.shape
        colours = self.dtype == "uint8" and self.palette is None
        return {
            "driver": "GTiff",
            "dtype": self.dtype,
            "count": len(self.names),
            "height": height,
            "width": width,
            "crs": str(geobox.crs),
            "transform": geobox.affine,
            "nodata": math.nan if self.dtype == "float32" else None if colours else 0,
            "photometric": "RGB" if colours else "MINISBLACK",
            "tiled": True,
            "blockxsize": self.tile_px,
            "blockysize": self.tile_px,
            "interleave": "pixel",
            "bigtiff": "YES",
            "sparse_ok": True,
        }


def write_cog(path: Path, geobox: GeoBox, layout: RasterLayout, parts: Iterator[Part]) -> None:
    """Write a raster in two steps: the tiles as they come, then a copy with overviews.

    Args:
        path: Ends in .tif; an existing file is replaced.
        geobox: Grid of the raster.
        layout: Bands, type and tags.
        parts: Values of cells of the raster; missing cells become nodata.

    Raises:
        StorageError: The path does not end in .tif, or the file cannot be written.
    """
    if path.suffix.lower() not in (".tif", ".tiff") or not path.parent.is_dir():
        raise StorageError(
            f"Expected a .tif in a folder that exists, got {str(path)!r}.", fix="choose such a name, or make the folder"
        )
    size = 2 * math.prod(geobox.shape) * len(layout.names) * np.dtype(layout.dtype).itemsize
    with _writing(path, size), replacing(path, durable=False) as whole:
        tiles = part_of(path.with_name(f"{path.stem}-tiles.tif"))
        try:
            _write_tiles(tiles, geobox, layout, parts)
            _optimise(tiles, whole, layout)
        finally:
            tiles.unlink(missing_ok=True)


def overview(path: Path, geobox: GeoBox, name: str, about: str) -> "xr.DataArray":
    """Read a small overview of a file of `write_cog`: `[y, x]` for one band, else `[band, y, x]`; colours in 0..1.

    Args:
        path: Path of the file.
        geobox: Grid of the file.
        name: Name of the array.
        about: Its `long_name`.
    """
    import rasterio

    height, width = geobox.shape
    shrink = max(1.0, max(height, width) / OVERVIEW_PX)
    shape = max(1, round(height / shrink)), max(1, round(width / shrink))
    with rasterio.open(path) as file:
        values = file.read(out_shape=(file.count, *shape))
    values = values.astype(np.float32) / 255 if values.dtype == np.uint8 else values
    small = GeoBox(shape, geobox.affine @ Affine.scale(width / shape[1], height / shape[0]), geobox.crs)
    array = labelled(values, small, name, about)
    array.attrs["path"] = str(path)
    return array


def labelled(values: NDArray[np.float32], geobox: GeoBox, name: str, about: str) -> "xr.DataArray":
    """Return `[1, H, W]` as `[y, x]`, and `[4, H, W]` as colours `[band, y, x]`, with coordinates and CRS."""
    import xarray as xr

    from rs_embed.core.geo import with_coordinates

    attrs = {"long_name": about}
    if len(values) == 1:
        return with_coordinates(xr.DataArray(values[0], dims=("y", "x"), name=name, attrs=attrs), geobox)
    bands = {"band": list(COLOURS)}
    return with_coordinates(xr.DataArray(values, dims=("band", "y", "x"), coords=bands, name=name, attrs=attrs), geobox)


def _write_tiles(path: Path, geobox: GeoBox, layout: RasterLayout, parts: Iterator[Part]) -> None:
    import rasterio
    from rasterio.enums import ColorInterp
    from rasterio.windows import Window

    with rasterio.open(path, "w", **layout.profile(geobox)) as file:
        file.descriptions = list(layout.names)
        file.update_tags(**layout.tags)
        if layout.palette is not None:
            file.write_colormap(1, layout.palette)
        elif layout.dtype == "uint8":
            file.colorinterp = [ColorInterp[name] for name in COLOURS]
        for cells, values in parts:
            file.write(values, window=Window(cells.col, cells.row, cells.width, cells.height))


def _optimise(tiles: Path, path: Path, layout: RasterLayout) -> None:
    import rasterio.shutil

    rasterio.shutil.copy(
        tiles,
        path,
        driver="COG",
        compress="ZSTD",
        predictor="YES",
        blocksize=COG_BLOCK_PX if len(layout.names) > len(COLOURS) else 4 * COG_BLOCK_PX,
        overview_resampling="average" if layout.palette is None else "mode",
        bigtiff="IF_SAFER",
    )


@contextmanager
def _writing(path: Path, size: int) -> Iterator[None]:
    """Convert errors of the disk and of GDAL to `StorageError`."""
    from rasterio._err import CPLE_BaseError
    from rasterio.errors import RasterioError

    try:
        require_room(path.parent, size)
        yield
    except (OSError, RasterioError, CPLE_BaseError) as error:
        space = isinstance(error, OSError) and is_about_space(error)
        raise StorageError(
            f"Expected to write {str(path)!r}, got: {error}.",
            fix=f"make room: up to {(size + SPARE_BYTES) / 1e9:.1f} GB are needed" if space else "check the folder",
        ) from error
