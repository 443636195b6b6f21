"""STAC catalogues: their names, the meaning of their values, and the properties of their items.

Source, where no other is named: the collection pages of Earth Search and of the Planetary Computer.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal

from rs_embed.core.specs import SensorSpec
from rs_embed.errors import NotConfigured, SensorNotOffered, SpecError
from rs_embed.providers.common.conditions import Condition
from rs_embed.providers.stac.access import Access, OpenAccess, S3Access
from rs_embed.providers.stac.sign import PlanetaryComputerAccess

OffsetRule = Literal["none", "earth-search", "always", "baseline"]
"""How the Sentinel-2 offset of an item is decided; see `offset.py`. "none": not Sentinel-2."""


@dataclass(frozen=True)
class StacCollection:
    """A collection of a catalogue that serves one of our sensors."""

    id: str
    """Its id in the catalogue."""
    assets: Mapping[str, str]
    """Shared band name -> asset name; "image:2" is the second band of the asset "image"."""
    offset: OffsetRule = "none"
    """Sentinel-2: what decides whether the stored DN contain ESA's offset of 1000."""
    scale: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Shared band name -> factor and offset from stored values to the unit of the sensor; bands that are missing here
    use those of their `Band`."""
    nodata: float | None = None
    """The stored number that means nodata; `None` means what the file states."""
    mask: str | None = None
    """Asset name of the scene classification (SCL)."""
    cloud_property: str | None = None
    """Item property with the percentage of cloud; items without it are left out."""
    conditions: tuple[Condition, ...] = ()
    """Further conditions that an item must meet."""
    dated: bool = True
    """False: undated tiles of one state of the Earth, used for any window."""
    linear: bool = False
    """Whether stored values are linear power that becomes dB after compositing."""
    smooth: bool = False
    """Whether pixels coarser than the grid are interpolated (heights)."""
    note: str | None = None
    """A note for the reader of a result."""


@dataclass(frozen=True)
class StacCatalog:
    """A STAC catalogue, and which of its collections serve which sensors.

    Raises:
        SpecError: `headers` are invalid.

    Example:
        >>> bands = {"B2": "blue", "B3": "green", "B4": "red"}
        >>> sentinel_2 = StacCollection("s2-l2a", bands, offset="baseline", nodata=0, cloud_property="eo:cloud_cover")
        >>> catalog = StacCatalog("https://stac.example/v1", mapping={"COPERNICUS/S2_SR_HARMONIZED": sentinel_2})
    """

    url: str
    """URL of an API's landing page; or URL or path of a static catalogue, or of a list of items (JSON,
    stac-geoparquet)."""
    mapping: Mapping[str, StacCollection]
    """Shared sensor name -> collection."""
    access: Access = field(default_factory=OpenAccess)
    """How to open its files: `OpenAccess` for public files, `S3Access` for buckets with keys, or your own `Access`."""
    name: str = ""
    """Name of a preset; empty for your own catalogues."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Headers for requests to the host of `url`, such as `Authorization`; never shown, nor sent to other hosts."""
    hosts: Sequence[str] = ()
    """Further hosts that get the headers, such as the one that hosts the files: "files.example", "127.0.0.1:8000"."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", str(self.url))
        for name, value in self.headers.items():
            if not isinstance(value, str) or not re.fullmatch(r"[\w-]+", name) or not value.isprintable():
                raise SpecError(
                    f"Expected one line of text for each header, got another value for {name!r}.",
                    fix='pass for example headers={"Authorization": "Bearer ..."}',
                )

    @property
    def title(self) -> str:
        """The catalogue's name in messages."""
        return self.name or self.url

    def collection_for(self, sensor: SensorSpec) -> StacCollection:
        """Return its collection for a sensor.

        Raises:
            SensorNotOffered: It has no such collection, or lacks a band of it.
            SpecError: It does not have the cloud mask.
        """
        title = self.title
        if sensor.collection not in self.mapping:
            raise SensorNotOffered(
                f"Expected a collection of the STAC catalogue {title}, got {sensor.collection}.",
                has=", ".join(self.mapping),
                fix=_INSTEAD.get(sensor.collection, 'use one of these collections, or backend="gee"'),
            )
        collection = self.mapping[sensor.collection]
        missing = [band for band in sensor.bands if band not in collection.assets]
        if missing:
            raise SensorNotOffered(
                f"Expected bands of {sensor.collection} that {title} has, got {', '.join(missing)}.",
                has=", ".join(collection.assets),
                fix="use only these bands",
            )
        if sensor.cloud_mask not in ("none", "scl") or (sensor.cloud_mask == "scl" and collection.mask is None):
            raise SpecError(
                f"Expected a cloud mask of {sensor.collection} that {title} has, got {sensor.cloud_mask!r}.",
                fix='use cloud_mask="scl"' if collection.mask else "leave cloud_mask out",
            )
        return collection


_INSTEAD = {
    "COPERNICUS/S1_GRD": "with the catalogue planetary-computer use COPERNICUS/S1_RTC (gamma0 instead of sigma0), or "
    'backend="gee"',
    "USGS/SRTMGL1_003": 'use COPERNICUS/DEM/GLO30 (heights of 30 m as well), or backend="gee"',
    "COPERNICUS/S1_RTC": 'use catalog="planetary-computer"',
    "COPERNICUS/S2_HARMONIZED": 'no open catalogue has L1C as files to be read in windows; use backend="gee"',
    **dict.fromkeys(
        ("LANDSAT/LC08/C02/T1_L2", "LANDSAT/LC09/C02/T1_L2", "USDA/NAIP/DOQQ", "ESA/WorldCover/v100"),
        'use catalog="planetary-computer", or backend="gee"',
    ),
    "ESA/WorldCover/v200": 'use catalog="planetary-computer", or backend="gee"',
}


def conditions_of(sensor: SensorSpec, collection: StacCollection) -> tuple[Condition, ...]:
    """What its items must tell, beside place and days, in the order in which people are told."""
    found = list(collection.conditions)
    if sensor.collection.startswith("COPERNICUS/S1_"):
        found.append(
            Condition(f"in mode {sensor.instrument_mode}", "sar:instrument_mode", "is", sensor.instrument_mode)
        )
        found += [Condition(f"with {band}", "sar:polarizations", "holds", band) for band in sensor.bands]
        if sensor.orbit_pass is not None:
            found.append(Condition(sensor.orbit_pass.lower(), "sat:orbit_state", "is", sensor.orbit_pass.lower()))
    if collection.cloud_property is not None:
        name = f"with at most {sensor.cloudy_pct:g} % cloud"
        found.append(Condition(name, collection.cloud_property, "at most", sensor.cloudy_pct))
    return tuple(found)


_ES_S2 = {
    "B1": "coastal", "B2": "blue", "B3": "green", "B4": "red", "B5": "rededge1", "B6": "rededge2", "B7": "rededge3",
    "B8": "nir", "B8A": "nir08", "B9": "nir09", "B11": "swir16", "B12": "swir22",
}  # fmt: skip
_PC_S2 = {band: band if band == "B8A" else f"B{int(band[1:]):02d}" for band in _ES_S2}
_CLOUD = "eo:cloud_cover"
_DEM = StacCollection("cop-dem-glo-30", {"DEM": "data"}, dated=False, smooth=True)


def _sentinel_2(collection: str, assets: Mapping[str, str], offset: OffsetRule, mask: str) -> StacCollection:
    return StacCollection(collection, assets, offset, nodata=0, mask=mask, cloud_property=_CLOUD)


def _landsat(platform: str) -> StacCollection:
    names = ("coastal", "blue", "green", "red", "nir08", "swir16", "swir22")
    assets = {f"SR_B{i}": name for i, name in enumerate(names, start=1)} | {"ST_B10": "lwir11"}
    asked = (
        Condition(f"of {platform}", "platform", "is", platform),
        Condition("of tier 1", "landsat:collection_category", "is", "T1"),
    )
    return StacCollection("landsat-c2-l2", assets, nodata=0, cloud_property=_CLOUD, conditions=asked)


def _worldcover(version: str) -> StacCollection:
    asked = (Condition(f"of version {version}", "esa_worldcover:product_version", "is", version),)
    return StacCollection("esa-worldcover", {"Map": "map"}, nodata=0, conditions=asked, dated=False)


EARTH_SEARCH = StacCatalog(
    "https://earth-search.aws.element84.com/v1",
    {
        "COPERNICUS/S2_SR_HARMONIZED": _sentinel_2("sentinel-2-l2a", _ES_S2, "earth-search", "scl"),
        "COPERNICUS/DEM/GLO30": _DEM,
    },
    name="earth-search",
)
"""Element 84, on Amazon's open data. No key."""

EARTH_SEARCH_C1 = replace(
    EARTH_SEARCH,
    mapping={
        **EARTH_SEARCH.mapping,
        "COPERNICUS/S2_SR_HARMONIZED": _sentinel_2("sentinel-2-c1-l2a", _ES_S2, "always", "scl"),
    },
    name="earth-search-c1",
)
"""The same with Sentinel-2 as ESA reprocessed it (Collection 1), which has gaps in time."""

PLANETARY_COMPUTER = StacCatalog(
    "https://planetarycomputer.microsoft.com/api/stac/v1",
    {
        "COPERNICUS/S2_SR_HARMONIZED": _sentinel_2("sentinel-2-l2a", _PC_S2, "baseline", "SCL"),
        "COPERNICUS/S1_RTC": StacCollection(
            "sentinel-1-rtc",
            {"VV": "vv", "VH": "vh"},
            nodata=-32768,
            linear=True,
            note="Backscatter is gamma0, flattened for the terrain (RTC), not sigma0.",
        ),
        "COPERNICUS/DEM/GLO30": _DEM,
        "LANDSAT/LC08/C02/T1_L2": _landsat("landsat-8"),
        "LANDSAT/LC09/C02/T1_L2": _landsat("landsat-9"),
        "USDA/NAIP/DOQQ": StacCollection("naip", {name: f"image:{i}" for i, name in enumerate("RGBN", start=1)}),
        "ESA/WorldCover/v100": _worldcover("1.0.0"),
        "ESA/WorldCover/v200": _worldcover("2.0.0"),
    },
    PlanetaryComputerAccess(),
    "planetary-computer",
)
"""Microsoft, on Azure. No key; links are signed with tokens that anybody gets."""

_CDSE_M = {60: ("B1", "B9"), 10: ("B2", "B3", "B4", "B8"), 20: ("B5", "B6", "B7", "B8A", "B11", "B12")}
_CDSE_S2 = {band: f"{_PC_S2[band]}_{size_m}m" for size_m, bands in _CDSE_M.items() for band in bands}
COPERNICUS_DATASPACE = StacCatalog(
    "https://stac.dataspace.copernicus.eu/v1",
    {"COPERNICUS/S2_SR_HARMONIZED": _sentinel_2("sentinel-2-l2a", _CDSE_S2, "earth-search", "SCL_20m")},
    S3Access(
        "https://eodata.dataspace.copernicus.eu", get_keys_at="https://eodata-s3keysmanager.dataspace.copernicus.eu"
    ),
    "copernicus-dataspace",
)
"""ESA's own archive, JPEG 2000 in a bucket. An account is free, its S3 keys must be made once.

Source: its documentation (documentation.dataspace.copernicus.eu, "STAC" and "S3"); not compared with the service.
Offsets are those that its items state, as at Earth Search."""

CATALOGS: Mapping[str, StacCatalog] = MappingProxyType(
    {one.name: one for one in (EARTH_SEARCH, EARTH_SEARCH_C1, PLANETARY_COMPUTER, COPERNICUS_DATASPACE)}
)
"""The presets."""


def catalog_of(choice: "str | StacCatalog") -> StacCatalog:
    """Return a catalogue, or the preset of that name.

    Raises:
        NotConfigured: There is no such preset.
    """
    if isinstance(choice, StacCatalog):
        return choice
    if choice not in CATALOGS:
        raise NotConfigured(
            f"Expected a STAC catalogue, got {choice!r}.",
            fix=f"use one of {', '.join(CATALOGS)}, or Stac(StacCatalog(url, mapping=...))",
        )
    return CATALOGS[choice]
