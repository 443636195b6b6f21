"""Convert a region in any form to polygons in the CRS of the map, cut where UTM zones meet."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np

from rs_embed.core.geo import geobox_for, outline, project, require_metres, utm_epsg
from rs_embed.core.specs import PointBuffer, Region, SpatialSpec
from rs_embed.errors import SpecError
from rs_embed.places import Places, read_places
from rs_embed.places.single import listed

if TYPE_CHECKING:
    from shapely import Geometry, MultiPolygon, Polygon

    from rs_embed.places import Given, Single

    RegionLike: TypeAlias = Single | Given
    """A spec, a geometry (shapely or GeoJSON, degrees), a vector file, or rasters whose footprint is meant: a file,
    a folder or a pattern."""

_RASTERS = {".tif", ".tiff", ".vrt", ".jp2", ".img", ".nc"}
_STEP_DEG, _STEP_M = 0.02, 2_000.0
"""Longest step along an edge, about 2 km."""


def shapes_of(region: "RegionLike", crs: str | None) -> "dict[str, MultiPolygon]":
    """Return the polygons of a region by the CRS of their map.

    Args:
        region: See `embed_region`.
        crs: CRS of a single map; `None` means a map for each UTM zone that the region overlaps.

    Raises:
        SpecError: It has no area, or lies outside of the CRS.
    """
    import shapely

    specs = list(_specs(region))
    if crs is not None:
        require_metres(crs)
        parts = [part for spec in specs for part in _projected(spec, crs)]
        return {crs: _joined(parts, crs)}
    degrees = shapely.union_all([part for spec in specs for part in _projected(spec, "EPSG:4326")])
    found = {}
    for epsg, strip in _zones(degrees):
        parts = [_in_crs(part, "EPSG:4326", f"EPSG:{epsg}") for part in _polygons(strip)]
        found[f"EPSG:{epsg}"] = _joined(parts, f"EPSG:{epsg}")
    if not found:
        raise SpecError("Expected a region with an area, got none.", fix="check its coordinates")
    return found


def _specs(region: "RegionLike") -> Iterator[SpatialSpec]:
    if isinstance(region, SpatialSpec):
        yield region
        return
    if isinstance(region, str | Path) and (paths := _rasters(region)):
        yield from _footprints(paths)
        return
    if isinstance(region, Mapping) and region.get("type") == "FeatureCollection":
        region = list(cast("Sequence[Mapping[str, object]]", region["features"]))
    places = region if isinstance(region, Places) else read_places(listed(region))
    yield from (place.spatial for place in places)


def _rasters(region: str | Path) -> list[str]:
    """The rasters that a path means: itself, those in a folder, or those that match a pattern. Empty: a vector file.

    Raises:
        SpecError: The folder has no rasters.
        ReadError: Nothing matches the pattern.
    """
    from rs_embed.providers.rasters.folder import is_pattern, matching  # here, because rasterio is slow to import

    path = Path(region).expanduser()
    if is_pattern(path):
        return matching(path)
    if not path.is_dir():
        return [str(path)] if path.suffix.lower() in _RASTERS else []
    found = sorted(str(one) for one in path.rglob("*") if one.suffix.lower() in _RASTERS and one.is_file())
    if not found:
        raise SpecError(
            f"Expected rasters in the folder {str(region)!r}, got none.",
            suffixes=", ".join(sorted(_RASTERS)),
            fix="give a folder with such files, a pattern such as 'tiles/*.tif', or a vector file",
        )
    return found


def _footprints(paths: list[str]) -> Iterator[SpatialSpec]:
    """The area of each raster; files that cover the same ground are one area."""
    from rs_embed.providers.rasters.folder import grids_of

    for grid in dict.fromkeys(grids_of(paths)):
        yield Region(grid.extent.geom, str(grid.crs))


def _projected(spec: SpatialSpec, crs: str) -> "list[Polygon]":
    """The polygons of a place, with points along their edges, in a CRS."""
    from shapely import Polygon

    if isinstance(spec, PointBuffer):
        box = geobox_for(spec, min(1.0, 2 * spec.buffer_m)).extent
        return [_in_crs(Polygon(box.geom), str(box.crs), crs)]
    if isinstance(spec, Region):
        return [_in_crs(Polygon(rings[0], rings[1:]), spec.crs, crs) for rings in spec.parts]
    xs, ys = outline(spec)
    return [_in_crs(Polygon(np.stack([xs, ys], axis=1)), spec.crs, crs)]


def _in_crs(polygon: "Polygon", from_crs: str, to_crs: str) -> "Polygon":
    """A polygon in another CRS, with points along its edges, which become curves."""
    import shapely

    step = _STEP_DEG if from_crs == "EPSG:4326" else _STEP_M
    moved: Polygon = shapely.transform(
        shapely.segmentize(polygon, step),
        lambda corners: np.stack(project(corners[:, 0], corners[:, 1], from_crs, to_crs), axis=1),
    )
    if not np.isfinite(shapely.get_coordinates(moved)).all():
        raise SpecError(f"Expected a region within {to_crs}, got one that extends beyond it.", fix="choose another crs")
    return moved


def _joined(parts: "list[Polygon]", crs: str) -> "MultiPolygon":
    import shapely

    whole = shapely.union_all([shapely.make_valid(part) for part in parts])
    polygons = list(_polygons(whole))
    if not polygons:
        raise SpecError(f"Expected a region with an area, got none in {crs}.", fix="check its coordinates")
    return shapely.MultiPolygon(polygons)


def _polygons(shape: "Geometry") -> "Iterator[Polygon]":
    import shapely

    for part in shapely.get_parts(shape):
        if part.geom_type == "Polygon" and part.area > 0:
            yield part
        elif part.geom_type in ("MultiPolygon", "GeometryCollection"):
            yield from _polygons(part)


def _zones(degrees: "Geometry") -> "Iterator[tuple[int, Geometry]]":
    """Split a region by UTM zone: strips of 6 degrees, north and south of the equator, and the polar caps."""
    import shapely

    west, south, east, north = degrees.bounds
    for low, high in ((-90.0, -80.0), (-80.0, 0.0), (0.0, 84.0), (84.0, 90.0)):
        if north <= low or south >= high:
            continue
        middle = (low + high) / 2
        if low < -80 or high > 84:
            yield utm_epsg(0, middle), shapely.intersection(degrees, shapely.box(-180, low, 180, high))
            continue
        for zone in range(int((west + 180) // 6), int(np.ceil((east + 180) / 6))):
            left = -180 + 6 * zone
            strip = shapely.intersection(degrees, shapely.box(left, low, left + 6, high))
            if strip.area > 0:
                yield (32600 if low >= 0 else 32700) + zone % 60 + 1, strip
