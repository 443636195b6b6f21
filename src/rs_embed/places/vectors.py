"""Read files of geometries with GDAL, but only in the format that their suffix names: GDAL goes by content alone."""

import re
from pathlib import Path
from typing import IO, TYPE_CHECKING
from zipfile import BadZipFile, ZipFile

from rs_embed.core.checks import short
from rs_embed.core.optional import require
from rs_embed.errors import SpecError

if TYPE_CHECKING:
    import geopandas

EXTRA = "export"
_STARTS = {
    ".geojson": b"{",
    ".json": b"{",
    ".gpkg": b"SQLite format 3\0",
    ".shp": b"\x00\x00\x27\x0a",
    ".fgb": b"fgb",
}
"""How such a file begins. A virtual file, which sends GDAL to other files and to the network, begins otherwise."""
_HEAD_BYTES = 4096
_MAX_UNPACKED_BYTES = 4 << 30
"""Largest content of a zip: a shapefile holds at most 2 GB, and so does its table."""
SUFFIXES = (*_STARTS, ".gdb", ".zip")


def read_vector_table(path: Path) -> "geopandas.GeoDataFrame":
    """Read the only layer of a file, with its columns.

    Raises:
        SpecError: It holds several layers, or its format is not that of its suffix.
    """
    require("geopandas", EXTRA)
    import geopandas

    source = _in_zip(path) if path.suffix.lower() == ".zip" else str(path)
    if path.suffix.lower() in _STARTS:
        with path.open("rb") as file:
            _refuse_disguise(str(path), path.suffix.lower(), file)
            _refuse_broken_crs(path, file)
    layers = [str(name) for name in geopandas.list_layers(source)["name"]]
    if len(layers) > 1:
        raise SpecError(
            f"Expected one layer in {str(path)!r}, got {len(layers)}.",
            layers=", ".join(layers),
            fix="pass geopandas.read_file(path, layer=...) instead",
        )
    return geopandas.read_file(source)


def _refuse_disguise(name: str, suffix: str, file: IO[bytes]) -> None:
    head = file.read(_HEAD_BYTES)
    if suffix in (".geojson", ".json"):
        head = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not head.startswith(_STARTS[suffix]):
        raise SpecError(
            f"Expected a {suffix} file, got other content in {name!r}.",
            found=repr(head[:40]) if head else "an empty file",
            fix="save it again in that format, or give it the suffix of its real format",
        )


def _refuse_broken_crs(path: Path, file: IO[bytes]) -> None:
    """Refuse an unknown CRS in GeoJSON, for which GDAL would assume degrees."""
    if path.suffix.lower() not in (".geojson", ".json"):
        return
    from pyproj import CRS
    from pyproj.exceptions import CRSError

    size = path.stat().st_size
    for start in {0, max(0, size - _EDGE_BYTES)}:  # it stands before the features, or after them
        file.seek(start)
        for name in _CRS_NAME.findall(file.read(_EDGE_BYTES).decode("utf-8", "replace")):
            try:
                CRS(name)
            except CRSError as error:
                raise SpecError(
                    f"Expected a CRS that pyproj knows in {str(path)!r}, got {short(name)}.",
                    fix="correct or remove the member `crs`; GeoJSON without one is in EPSG:4326",
                ) from error


_EDGE_BYTES = 1 << 16
_CRS_NAME = re.compile(r'"crs"\s*:\s*\{\s*"type"\s*:\s*"name"\s*,\s*"properties"\s*:\s*\{\s*"name"\s*:\s*"([^"]*)"')


def _in_zip(path: Path) -> str:
    """Return GDAL's path of the only table in a zip."""
    try:
        with ZipFile(path) as packed:
            entries = packed.infolist()
            tables = [one for one in entries if Path(one.filename).suffix.lower() in _STARTS]
            unpacked = sum(one.file_size for one in entries)
            if len(tables) != 1 or unpacked > _MAX_UNPACKED_BYTES:
                raise SpecError(
                    f"Expected one table of up to 4 GB in {str(path)!r}, got {len(tables)} in {unpacked:,} bytes.",
                    found=", ".join(one.filename for one in tables[:10]) or None,
                    fix="zip one shapefile, GeoJSON or GeoPackage, or unpack it and pass the file",
                )
            with packed.open(tables[0]) as file:
                _refuse_disguise(f"{path}/{tables[0].filename}", Path(tables[0].filename).suffix.lower(), file)
    except (BadZipFile, NotImplementedError, RuntimeError) as error:  # the last two: how it is packed, a password
        raise OSError(str(error)) from error
    return f"/vsizip/{path.resolve()}/{tables[0].filename}"
