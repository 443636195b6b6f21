"""Parse the items of a catalogue, drop duplicates of a scene, and find the items that touch a grid."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import shapely
from affine import Affine
from odc.geo.geobox import GeoBox

from rs_embed.errors import ReadError, SpecError
from rs_embed.providers.common.grids import bounds_deg, is_outside
from rs_embed.providers.rasters.declared import parse_time
from rs_embed.providers.stac.catalogs import StacCollection
from rs_embed.providers.stac.links import file_link, s3_service
from rs_embed.providers.stac.offset import BASELINE, FLAG
from rs_embed.redact import cause_of

_KEPT = (
    BASELINE, FLAG, "platform", "sar:instrument_mode", "sar:polarizations", "sat:orbit_state",
    "landsat:collection_category", "esa_worldcover:product_version",
)  # fmt: skip
_MARGIN_DEG = 0.01
"""Tolerance of a footprint, about 1 km in degrees: footprints have few corners."""


@dataclass(frozen=True)
class Asset:
    """One file of an item."""

    href: str
    """Absolute."""
    service: str | None
    """Endpoint of the service that hosts its bucket, if the item states one other than Amazon."""
    grid: GeoBox | None
    """Grid of the whole file, as far as the item states it."""
    scale: tuple[float, float] | None
    """Factor and offset in `raster:bands` of its first band."""

    @property
    def file(self) -> str:
        """Name of the file, without a signature."""
        return self.href.partition("?")[0].rstrip("/").rsplit("/", 1)[-1]


@dataclass(frozen=True, eq=False)
class CatalogItem:
    """The parts of one scene's item that are used."""

    id: str
    time: datetime
    """Time of acquisition, UTC; the start, if the item states a range."""
    cloud: float
    """Percentage of cloud in the whole scene; 0 if not stated."""
    tile: str | None
    """Tile of Sentinel-2's grid."""
    made: str
    """Time of processing or listing, to find the newest of several."""
    properties: Mapping[str, object]
    """The properties that conditions and rules use."""
    assets: Mapping[str, Asset]
    """The assets to read, as far as the item has them."""
    offered: tuple[str, ...]
    """Names of all its assets."""
    footprint: shapely.Geometry | None
    """`None` where it cannot be trusted: across the antimeridian, or malformed."""

    def touches(self, geobox: GeoBox) -> bool:
        """Return whether it may have a pixel on a grid."""
        grids = [asset.grid for asset in self.assets.values() if asset.grid is not None]
        if grids and all(is_outside(grid, geobox) for grid in grids):
            return False
        west, south, east, north = bounds_deg(geobox)
        if self.footprint is None or west < -180 or east > 180:
            return True
        around = shapely.box(west, south, east, north).buffer(_MARGIN_DEG / max(0.05, _cos(south, north)))
        return bool(self.footprint.intersects(around))


def _cos(south: float, north: float) -> float:
    return 1.0 - max(abs(south), abs(north)) / 90  # under the cosine: at 70 degrees a degree is a third as wide


def read_item(raw: Mapping[str, object], collection: StacCollection, base: str | None = None) -> CatalogItem:
    """Parse an item.

    Args:
        raw: The item, as the API returns it.
        collection: Determines which assets and properties are read.
        base: Address that relative links start from; `None` means the item's own "self" link.

    Raises:
        ReadError: It is not a STAC item.
    """
    try:
        return _item(raw, collection, base or _own_link(raw))
    except (
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        IndexError,
        SpecError,
        shapely.errors.ShapelyError,
    ) as error:
        raise ReadError(
            f"Expected a STAC item, got one that cannot be read: {error!r}",
            item=raw.get("id"),
            fix="report this: the catalogue's answer is not STAC",
        ) from cause_of(error)


def _own_link(raw: Mapping[str, object]) -> str | None:
    """The item's own "self" link."""
    links = raw.get("links")
    for link in links if isinstance(links, Sequence) else ():
        if isinstance(link, Mapping) and link.get("rel") == "self" and isinstance(link.get("href"), str):
            return str(link["href"])
    return None


def _item(raw: Mapping[str, object], collection: StacCollection, base: str | None) -> CatalogItem:
    properties, assets = raw["properties"], raw["assets"]
    if not isinstance(properties, Mapping) or not isinstance(assets, Mapping):
        raise TypeError("properties and assets must be mappings")
    when = properties.get("datetime") or properties["start_datetime"]
    cloud = properties.get(collection.cloud_property) if collection.cloud_property else None
    names = {name.partition(":")[0] for name in collection.assets.values()} | (
        {collection.mask} if collection.mask else set()
    )
    kept = {*_KEPT, *([collection.cloud_property] if collection.cloud_property else [])}
    kept |= {condition.property for condition in collection.conditions}
    return CatalogItem(
        id=str(raw["id"]),
        time=parse_time(str(when)),
        cloud=float(cloud) if isinstance(cloud, int | float) else 0.0,
        tile=_tile(properties),
        made=str(properties.get("s2:generation_time") or properties.get("created") or ""),
        properties={name: properties[name] for name in kept if name in properties} | _baseline(properties, collection),
        assets={name: _asset(assets[name], properties, base) for name in names if name in assets},
        offered=tuple(str(name) for name in assets),
        footprint=_footprint(raw.get("geometry")),
    )


def _baseline(properties: Mapping[str, object], collection: StacCollection) -> dict[str, object]:
    """The processing baseline of Sentinel-2, from the property that the Copernicus Data Space uses."""
    version = properties.get("processing:version")
    return {BASELINE: version} if collection.offset != "none" and version and BASELINE not in properties else {}


def _tile(properties: Mapping[str, object]) -> str | None:
    for name in ("grid:code", "s2:mgrs_tile"):
        if isinstance(properties.get(name), str):
            return str(properties[name]).removeprefix("MGRS-")
    return None


def _asset(asset: Mapping[str, object], properties: Mapping[str, object], base: str | None) -> Asset:
    both = {**properties, **asset}
    bands = asset.get("raster:bands") or asset.get("bands")
    first = bands[0] if isinstance(bands, Sequence) and bands else {}
    link, service = file_link(asset, properties, base), s3_service(asset, properties)
    return Asset(link, service, _grid(both), _scale(asset) or _scale(first))


def _grid(raw: Mapping[str, object]) -> GeoBox | None:
    code, transform, shape = raw.get("proj:code"), raw.get("proj:transform"), raw.get("proj:shape")
    if code is None and raw.get("proj:epsg") is not None:
        code = f"EPSG:{raw['proj:epsg']}"
    if not isinstance(code, str) or not isinstance(transform, Sequence) or not isinstance(shape, Sequence):
        return None
    return GeoBox((int(shape[0]), int(shape[1])), Affine(*(float(one) for one in transform[:6])), code)


def _scale(raw: Mapping[str, object]) -> tuple[float, float] | None:
    """Factor and offset, under the names of STAC 1.0 or of STAC 1.1."""
    for scale, offset in (("scale", "offset"), ("raster:scale", "raster:offset")):
        if offset in raw:
            return float(str(raw.get(scale, 1.0))), float(str(raw[offset]))
    return None


def _footprint(geometry: object) -> shapely.Geometry | None:
    if not isinstance(geometry, Mapping):
        return None
    shape = shapely.geometry.shape(geometry)
    west, _, east, _ = shape.bounds
    return None if east - west > 180 or not shape.is_valid else shape


def without_duplicates(items: Iterable[CatalogItem]) -> list[CatalogItem]:
    """Return each scene once, in order of time: the newest processing of each tile and second."""
    best: dict[tuple[str, str], CatalogItem] = {}
    for item in items:
        key = (item.tile, f"{item.time:%Y-%m-%dT%H:%M:%S}") if item.tile else (item.id, "")
        if key not in best or _newness(item) > _newness(best[key]):
            best[key] = item
    return sorted(best.values(), key=lambda item: (item.time, item.id))


def _newness(item: CatalogItem) -> tuple[str, str, str]:
    return str(item.properties.get(BASELINE, "")), item.made, item.id
