"""Earth Engine's collections: their names, the meaning of their values, and the properties of their scenes.

Source, where no other is named: the Earth Engine data catalogue, page of each collection.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

from odc.geo.geobox import GeoBox

from rs_embed.core.bands import COLLECTIONS, Collection, registered
from rs_embed.core.specs import SensorSpec
from rs_embed.errors import SensorNotOffered
from rs_embed.providers.common.conditions import Condition

Transport = Literal["uint16", "float"]
Resampling = Literal["nearest", "bilinear"]

SENTINEL: Mapping[Transport, float] = MappingProxyType({"uint16": 65_535, "float": -32_768})
"""The number that marks nodata in transit. A stored 65,535 (saturated) is lowered by one."""
BYTES_PER_PIXEL: Mapping[Transport, int] = MappingProxyType({"uint16": 3, "float": 5})
"""Bytes as Earth Engine counts them: the value, and one byte for its mask."""

CLOUD_SCORE = "GOOGLE/CLOUD_SCORE_PLUS/V1/S2_HARMONIZED"


@dataclass(frozen=True)
class Archive:
    """A collection of Earth Engine."""

    asset: str
    """Its id on Earth Engine."""
    bands: Mapping[str, str]
    """Shared band name -> name on Earth Engine."""
    transport: Transport
    """Type of values in transit. Integers take 3 bytes with their mask, floats 5; rounding a median of DN costs at most
    half a DN. Decibels are sent as floats: two bands are small, and nothing is lost."""
    scale: Mapping[str, tuple[float, float]]
    """Shared band name -> factor and offset from values in transit to the unit of the collection."""
    cloud_property: str | None = None
    """Scene property with the percentage of cloud; scenes without it are left out."""
    properties: tuple[str, ...] = ()
    """Further scene properties to request."""
    dated: bool = True
    """False: undated tiles of one state of the Earth, used for any window."""
    linear: bool = False
    """Whether values are dB that must be averaged as power."""
    radiance: bool = False
    """Whether values are radiances, which are converted to reflectances by the height of the sun."""
    resampling: Resampling = "nearest"
    """Resampling of pixels coarser than the grid."""
    monthly: bool = False
    """True: one image per calendar month, dated its first day, which serves all days within the month."""
    single: bool = False
    """Whether it is one image, not a collection of them."""
    annual: bool = False
    """True: one image per UTM zone and calendar year, with pixels that must not be mixed. The image of the chip's own
    zone is on top, its neighbours fill the gaps, and nothing is averaged."""

    def name(self, band: str) -> str:
        """Return Earth Engine's name of a band."""
        return self.bands.get(band, band)


def _archive(
    collection: Collection,
    transport: Transport = "float",
    *,
    properties: tuple[str, ...] = (),
    resampling: Resampling = "nearest",
) -> Archive:
    """The archive of a collection whose bands keep their names and scales on Earth Engine."""
    return Archive(
        collection.id,
        {band: band for band in collection},
        transport,
        scale={band.name: (band.scale, band.offset) for band in collection.bands},
        cloud_property=collection.cloud_property,
        properties=properties,
        dated=collection.dated,
        linear=all(band.unit.decibel for band in collection.bands),
        resampling=resampling,
    )


ALPHAEARTH = "GOOGLE/SATELLITE_EMBEDDING/V1/ANNUAL"
UTM_ZONE, MODEL_VERSION = "UTM_ZONE", "MODEL_VERSION"
_BASELINE = ("PROCESSING_BASELINE",)
_S1 = ("instrumentMode", "transmitterReceiverPolarisation", "orbitProperties_pass")
_OLCI = _archive(COLLECTIONS["COPERNICUS/S3/OLCI"], resampling="bilinear")
_ALL = (
    _archive(COLLECTIONS["COPERNICUS/S2_SR_HARMONIZED"], "uint16", properties=_BASELINE),
    _archive(COLLECTIONS["COPERNICUS/S2_HARMONIZED"], "uint16", properties=_BASELINE),
    _archive(COLLECTIONS["COPERNICUS/S1_GRD"], properties=_S1),
    _archive(COLLECTIONS["COPERNICUS/S1_GRD_FLOAT"], properties=_S1),
    _archive(COLLECTIONS["COPERNICUS/DEM/GLO30"], resampling="bilinear"),
    replace(_archive(COLLECTIONS["USGS/SRTMGL1_003"], resampling="bilinear"), single=True),
    replace(_archive(COLLECTIONS["ECMWF/ERA5_LAND/MONTHLY_AGGR"]), monthly=True),
    replace(_archive(COLLECTIONS["IDAHO_EPSCOR/TERRACLIMATE"]), monthly=True),
    replace(_archive(COLLECTIONS["NOAA/VIIRS/DNB/MONTHLY_V1/VCMCFG"]), monthly=True),
    _archive(COLLECTIONS["GOOGLE/DYNAMICWORLD/V1"]),
    replace(_OLCI, bands={band: band.replace("reflectance", "radiance") for band in _OLCI.bands}, radiance=True),
    _archive(COLLECTIONS["LANDSAT/LC08/C02/T1_L2"], "uint16"),
    _archive(COLLECTIONS["LANDSAT/LC09/C02/T1_L2"], "uint16"),
    _archive(COLLECTIONS["LANDSAT/LC08/C02/T1"], "uint16"),
    _archive(COLLECTIONS["LANDSAT/LC09/C02/T1"], "uint16"),
    _archive(COLLECTIONS["LANDSAT/LC08/C02/T1_TOA"]),
    _archive(COLLECTIONS["MODIS/061/MOD09A1"]),
    _archive(COLLECTIONS["USDA/NAIP/DOQQ"], "uint16"),
    _archive(COLLECTIONS["ESA/WorldCover/v100"], "uint16"),
    _archive(COLLECTIONS["ESA/WorldCover/v200"], "uint16"),
    replace(_archive(COLLECTIONS[ALPHAEARTH], properties=(UTM_ZONE, MODEL_VERSION)), annual=True),
)
ARCHIVES: Mapping[str, Archive] = MappingProxyType({archive.asset: archive for archive in _ALL})
"""Collection -> how Earth Engine stores it, for the collections that the library knows."""

OLCI_SOLAR_FLUX = (
    1500.96, 1672.84, 1849.84, 1893.60, 1879.35, 1758.86, 1614.05, 1497.63, 1463.22, 1438.04, 1373.91,
    1239.14, 1221.16, 1213.50, 1202.85, 1149.11, 938.91, 911.24, 876.70, 808.90, 684.75,
)  # fmt: skip
"""Solar irradiance in Oa01 to Oa21, W m-2 um-1.
Source: FM4CS/thor_terratorch_ext 83020d6, sentinel3_utils.py (mean over the detectors of a typical scene)."""
LOWEST_COS_SUN = 0.01
"""Limit of THOR's authors: closer to the terminator, reflectance is not defined."""
HIGHEST_OLCI_REFLECTANCE = 2.0
"""Upper limit to which THOR's authors clip reflectance."""


def archive_of(sensor: SensorSpec) -> Archive:
    """Return how Earth Engine stores a collection.

    Raises:
        SensorNotOffered: Earth Engine does not have it.
    """
    own = registered(sensor.collection)
    if own is not None:
        return _archive(own)
    if sensor.collection not in ARCHIVES:
        raise SensorNotOffered(
            f"Earth Engine does not have {sensor.collection}.",
            has=", ".join(ARCHIVES),
            fix=_INSTEAD.get(sensor.collection, "use one of these collections"),
        )
    return ARCHIVES[sensor.collection]


_INSTEAD = {
    "COPERNICUS/S1_RTC": "use COPERNICUS/S1_GRD (sigma0 instead of gamma0), or give your own rasters: backend=<path>",
    **dict.fromkeys(
        ("COPERNICUS/S3/SLSTR", "ESA/WorldCereal/2021", "ORNL/LANDSCAN"), "give your own rasters: backend=<path>"
    ),
}


def conditions_of(sensor: SensorSpec) -> tuple[Condition, ...]:
    """Return the conditions on its scenes, besides place and days, in the order of error messages."""
    found, archive = [], archive_of(sensor)
    if archive.properties == _S1:
        mode, polarisations, pass_ = archive.properties
        found.append(Condition(f"in mode {sensor.instrument_mode}", mode, "is", sensor.instrument_mode))
        found += [Condition(f"with {band}", polarisations, "holds", band) for band in sensor.bands]
        if sensor.orbit_pass is not None:
            found.append(Condition(sensor.orbit_pass.lower(), pass_, "is", sensor.orbit_pass))
    cloud = archive.cloud_property
    if cloud is not None:
        found.append(Condition(f"with at most {sensor.cloudy_pct:g} % cloud", cloud, "at most", sensor.cloudy_pct))
    return tuple(found)


@dataclass(frozen=True)
class Target:
    """A sensor on a grid."""

    sensor: SensorSpec
    geobox: GeoBox

    @property
    def shape_px(self) -> tuple[int, int]:
        """Height and width of the grid."""
        height, width = self.geobox.shape
        return height, width

    @property
    def archive(self) -> Archive:
        """How Earth Engine stores the sensor's collection."""
        return archive_of(self.sensor)
