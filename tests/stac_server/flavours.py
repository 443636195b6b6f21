"""How each catalogue tells of the scenes of the world: names, styles, and the ways in which they are wrong."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from gee_server import Scene, default_world
from shapely.geometry import mapping

S2, S2_RAW = "COPERNICUS/S2_SR_HARMONIZED", "COPERNICUS/S2_SR"
_ES = {
    "B1": "coastal", "B2": "blue", "B3": "green", "B4": "red", "B5": "rededge1", "B6": "rededge2", "B7": "rededge3",
    "B8": "nir", "B8A": "nir08", "B9": "nir09", "B11": "swir16", "B12": "swir22", "SCL": "scl",
}  # fmt: skip
_PC = {
    "B1": "B01", "B2": "B02", "B3": "B03", "B4": "B04", "B5": "B05", "B6": "B06", "B7": "B07", "B8": "B08",
    "B8A": "B8A", "B9": "B09", "B11": "B11", "B12": "B12", "SCL": "SCL",
}  # fmt: skip
_LANDSAT = {
    "SR_B1": "coastal", "SR_B2": "blue", "SR_B3": "green", "SR_B4": "red", "SR_B5": "nir08", "SR_B6": "swir16",
    "SR_B7": "swir22", "ST_B10": "lwir11", "QA_PIXEL": "qa_pixel",
}  # fmt: skip
HELD: dict[str, dict[str, tuple[str, dict[str, str]]]] = {
    "earth-search": {
        "sentinel-2-l2a": (S2, _ES),
        "sentinel-2-c1-l2a": (S2, _ES),
        "cop-dem-glo-30": ("COPERNICUS/DEM/GLO30", {"DEM": "data"}),
    },
    "planetary-computer": {
        "sentinel-2-l2a": (S2, _PC),
        "sentinel-1-rtc": ("COPERNICUS/S1_GRD_FLOAT", {"VV": "vv", "VH": "vh", "HH": "hh", "HV": "hv"}),
        "cop-dem-glo-30": ("COPERNICUS/DEM/GLO30", {"DEM": "data"}),
        "landsat-c2-l2": ("LANDSAT/", _LANDSAT),
        "naip": ("USDA/NAIP/DOQQ", {"RGBN": "image"}),
        "esa-worldcover": ("ESA/WorldCover/", {"Map": "map"}),
    },
}
"""Flavour -> collection -> what it is in the world, and the names of its assets."""


@dataclass(frozen=True)
class Quirks:
    """What is particular about a site."""

    flavour: str = "earth-search"
    baseline: str | None = None
    """Told of every Sentinel-2 item; `None`: the world's own."""
    applied: bool | None = None
    """`earthsearch:boa_offset_applied` of items from 04.00 on; `None`: not told."""
    stored_offset: int | None = None
    """What really is added to stored DN; `None`: what the metadata say."""
    raster_bands: bool = True
    """Whether Earth Search tells scale and offset (always -0.1 from 04.00 on, as it really does)."""
    duplicates: bool = False
    """Every Sentinel-2 item a second time, of an older baseline and without pixels."""
    epsg: bool = False
    """`proj:epsg` instead of `proj:code`."""
    bare: bool = False
    """Items without any `proj:` field."""
    missing: tuple[str, ...] = ()
    """Assets that no item has."""
    lacking: dict = field(default_factory=dict)
    """Asset or property -> every how many-th day of the year has items without it."""
    overviews: bool = False
    """Files have overviews, with other values."""
    signed: bool = False
    """Files want a token."""
    page: int = 100
    """Items a page, at most."""
    headers: dict = field(default_factory=dict)
    """That every request must have."""
    extra: dict = field(default_factory=dict)
    """Properties of every item."""
    latency_s: float = 0.0
    """Every answer takes at least this long."""


def scenes(quirks: Quirks, collection: str) -> list[Scene]:
    """The scenes of the world that a collection lists."""
    prefix, _ = HELD[quirks.flavour][collection]
    return [scene for scene in default_world().scenes if scene.collection.startswith(prefix) and _listed(scene)]


def _listed(scene: Scene) -> bool:
    return not scene.collection.endswith(("/T1", "/T1_TOA"))


def stored_offset(quirks: Quirks, collection: str, baseline: str) -> int:
    """What is added to the DN of files."""
    if quirks.stored_offset is not None:
        return quirks.stored_offset
    if collection == "sentinel-2-c1-l2a":
        return 1000
    if baseline < "04.00" or (quirks.flavour == "earth-search" and quirks.applied):
        return 0
    return 1000


def baseline_of(quirks: Quirks, scene: Scene) -> str:
    """As the item tells."""
    return quirks.baseline or scene.properties["PROCESSING_BASELINE"]


def item(quirks: Quirks, collection: str, scene: Scene, base: str, files: str) -> dict:
    """One item, as the catalogue has it."""
    when = scene.when if scene.when.tzinfo else scene.when.replace(tzinfo=UTC)
    told = {"datetime": f"{when:%Y-%m-%dT%H:%M:%S}.024000Z", "created": "2024-01-01T00:00:00Z"}
    told |= _properties(quirks, collection, scene) | quirks.extra
    names = HELD[quirks.flavour][collection][1]
    bands = [spec.name for spec in scene.specs if spec.name in names] or list(names)
    assets = {names[b]: _asset(quirks, collection, scene, b, files) for b in bands if names[b] not in quirks.missing}
    for name, every in quirks.lacking.items():
        if lacks(scene, every):
            assets.pop(name, None)
            told.pop(name, None)
    shape = scene.footprint.shape
    return {
        "type": "Feature", "stac_version": "1.0.0", "id": scene.index, "collection": collection,
        "geometry": mapping(shape), "bbox": list(shape.bounds), "properties": told, "assets": assets,
        "links": [{"rel": "self", "href": f"{base}/collections/{collection}/items/{scene.index}"}],
    }  # fmt: skip


def lacks(scene: Scene, every: int) -> bool:
    """Whether the item of a scene is without what every so many-th lacks."""
    return (scene.when.timetuple().tm_yday // 5) % every == 0


def _properties(quirks: Quirks, collection: str, scene: Scene) -> dict:
    told = scene.properties
    if scene.collection == S2:
        found = {"s2:processing_baseline": baseline_of(quirks, scene), "grid:code": f"MGRS-{told['MGRS_TILE']}"}
        if "CLOUDY_PIXEL_PERCENTAGE" in told:
            found["eo:cloud_cover"] = told["CLOUDY_PIXEL_PERCENTAGE"]
        if quirks.flavour == "earth-search" and quirks.applied is not None:
            found["earthsearch:boa_offset_applied"] = quirks.applied
        return found
    if collection == "sentinel-1-rtc":
        return {
            "sar:instrument_mode": told["instrumentMode"],
            "sar:polarizations": told["transmitterReceiverPolarisation"],
            "sat:orbit_state": told["orbitProperties_pass"].lower(),
        }
    if collection == "landsat-c2-l2":
        platform = told["SPACECRAFT_ID"].lower().replace("_", "-")
        return {"eo:cloud_cover": told["CLOUD_COVER"], "platform": platform, "landsat:collection_category": "T1"}
    if collection == "esa-worldcover":
        year = int(scene.index)
        span = {"start_datetime": f"{year}-01-01T00:00:00Z", "end_datetime": f"{year}-12-31T23:59:59Z"}
        return {"datetime": None, "esa_worldcover:product_version": f"{year - 2019}.0.0", **span}
    return {}


def _asset(quirks: Quirks, collection: str, scene: Scene, band: str, files: str) -> dict:
    spec = scene.specs[0] if band == "RGBN" else scene.about.band(band)
    step, width, height = spec.step, round(scene.width / spec.step), round(scene.height / spec.step)
    found: dict = {"href": f"{files}/{collection}/{scene.index}/{band}.tif", "type": "image/tiff"}
    if not quirks.bare:
        code = {"proj:epsg": int(scene.crs[5:])} if quirks.epsg else {"proj:code": scene.crs}
        found |= {"proj:shape": [height, width], "proj:transform": [step, 0, scene.left, 0, -step, scene.top], **code}
    if quirks.flavour == "earth-search" and band.startswith("B") and quirks.raster_bands:
        newer = baseline_of(quirks, scene) >= "04.00" or collection == "sentinel-2-c1-l2a"
        found["raster:bands"] = [{"nodata": 0, "scale": 0.0001, "offset": -0.1 if newer else 0}]
    return found


def copies(quirks: Quirks, one: dict) -> list[dict]:
    """An item, and what the catalogue lists beside it."""
    if not quirks.duplicates or "s2:processing_baseline" not in one["properties"]:
        return [one]
    old = one | {"id": one["id"] + "_0", "properties": one["properties"] | {"s2:processing_baseline": "02.00"}}
    old["assets"] = {name: asset | {"href": asset["href"] + "?gone"} for name, asset in one["assets"].items()}
    return [old, one]


def moment(text: str) -> datetime:
    """A time as STAC writes it."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
