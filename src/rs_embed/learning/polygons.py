"""A map of classes as polygons, written some thousands at a time."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from rs_embed.core.atomic import part_of
from rs_embed.core.checks import require_number
from rs_embed.core.optional import require
from rs_embed.errors import NoValidPixels, SpecError, StorageError
from rs_embed.learning.areas import cell_areas
from rs_embed.learning.qgis import polygon_style

if TYPE_CHECKING:
    from rs_embed.learning.class_map import ClassMap

_AT_ONCE = 10_000
"""Polygons held in memory."""


def write_polygons(whole: "ClassMap", path: Path, min_area_m2: float) -> Path:
    """See `ClassMap.polygons`."""
    require("geopandas", "export")
    import geopandas

    require_number("min_area_m2", min_area_m2, 0, 1e15)
    if whole.facts.kind != "classes":
        raise SpecError(f"Expected a map of classes, got one of kind {whole.facts.kind!r}.", fix="fit classes")
    path = path.expanduser()
    if path.suffix.lower() != ".gpkg" or not path.parent.is_dir():
        raise StorageError(
            f"Expected a .gpkg in a folder that exists, got {str(path)!r}.",
            fix="choose such a name, or make the folder",
        )
    part = part_of(path)
    found = (one for one in _polygons(whole) if one[2] >= min_area_m2)
    written = 0
    try:
        while rows := list(islice(found, _AT_ONCE)):
            codes, shapes, areas = zip(*rows, strict=True)
            columns = {"class": [whole.classes[code - 1] for code in codes], "code": codes, "area_m2": areas}
            frame = geopandas.GeoDataFrame(columns, geometry=list(shapes), crs=str(whole.geobox.crs))
            frame.to_file(part, driver="GPKG", layer=path.stem, mode="a" if written else "w")
            written += len(rows)
        if not written:
            raise NoValidPixels("Expected polygons of classes, got none.", fix="choose a smaller min_area_m2")
        os.replace(part, path)
        if not any(path.with_suffix(suffix).exists() for suffix in (".tif", ".tiff")):  # its style has that name
            polygon_style(path, "class", whole.classes, whole.facts.colours)
    except (OSError, RuntimeError) as error:
        raise StorageError(f"Expected to write {str(path)!r}, got: {error}.", fix="check the folder") from error
    finally:
        part.unlink(missing_ok=True)
    return path


def _polygons(whole: "ClassMap") -> Iterator[tuple[int, BaseGeometry, float]]:
    """Yield code, polygon and area in square metres; GDAL reads the map line by line.

    The area is the one in the plane, times how much larger a cell is on the ellipsoid.
    """
    import rasterio
    from rasterio.features import shapes

    affine = whole.geobox.affine
    larger = cell_areas(whole.geobox) / abs(affine.determinant)
    with ExitStack() as stack:
        source = (
            whole.read()[0] if whole.path is None else rasterio.band(stack.enter_context(rasterio.open(whole.path)), 1)
        )
        for geometry, code in shapes(source, transform=affine):
            if code == 0:
                continue
            polygon = shape(geometry)
            inside = polygon.representative_point()
            _, row = ~affine @ (inside.x, inside.y)
            yield int(code), polygon, float(polygon.area * larger[min(max(int(row), 0), len(larger) - 1)])
