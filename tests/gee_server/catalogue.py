"""The bands of each collection of the synthetic world, as the real catalogue has them."""

from dataclasses import dataclass
from typing import Literal

DEGREE_M = 111319.49079327358
UINT8, UINT16, UINT32 = ("int", 0, 255), ("int", 0, 65535), ("int", 0, 4294967295)
INT16 = ("int", -32768, 32767)
FLOAT, DOUBLE = ("float", None, None), ("double", None, None)

Kind = Literal["smooth", "class", "cloud_class", "cloud_score", "unit_vector", "qa", "masked"]


@dataclass(frozen=True)
class BandSpec:
    """One band of a collection."""

    name: str
    step: float
    """Pixel size in the unit of the scene's CRS: metres, or degrees."""
    type: tuple
    """Earth Engine's pixel type: precision, lowest, highest."""
    low: float = 0.0
    """Smallest value of the field."""
    high: float = 1.0
    kind: Kind = "smooth"
    cloud: float = 0.0
    """How much brighter a cloud is."""


@dataclass(frozen=True)
class CollectionSpec:
    """What all scenes of a collection share."""

    family: str
    """Collections of one family see the same ground: the same field in the same band."""
    bands: tuple[BandSpec, ...]
    dated: bool = True
    """Whether the ground changes with the date."""
    asset: Literal["IMAGE_COLLECTION", "IMAGE"] = "IMAGE_COLLECTION"

    def band(self, name: str) -> BandSpec:
        """The band of that name."""
        return next(band for band in self.bands if band.name == name)


_S2_STEP = {
    "B1": 60, "B2": 10, "B3": 10, "B4": 10, "B5": 20, "B6": 20, "B7": 20, "B8": 10, "B8A": 20, "B9": 60,
    "B10": 60, "B11": 20, "B12": 20,
}  # fmt: skip


def _s2(family: str, *, l2a: bool) -> CollectionSpec:
    names = [name for name in _S2_STEP if not (l2a and name == "B10")]
    bands = [BandSpec(name, _S2_STEP[name], UINT16, 300, 3800, cloud=5000) for name in names]
    if l2a:
        bands += [
            BandSpec("AOT", 10, UINT16, 50, 300),
            BandSpec("WVP", 10, UINT16, 100, 4000),
            BandSpec("SCL", 20, UINT8, kind="cloud_class"),
            BandSpec("MSK_CLDPRB", 20, UINT8, 0, 100, kind="cloud_score"),
        ]
    bands += [BandSpec("QA10", 10, UINT16, kind="masked"), BandSpec("QA20", 20, UINT32, kind="masked")]
    bands.append(BandSpec("QA60", 60, UINT16, kind="masked"))
    return CollectionSpec(family, tuple(bands))


def _s1(family: str, low: float, high: float) -> CollectionSpec:
    names = ("VV", "VH", "HH", "HV")
    bands = [BandSpec(name, 10, FLOAT if family == "S1" else DOUBLE, low, high) for name in names]
    return CollectionSpec("S1", (*bands, BandSpec("angle", 10, FLOAT, 30, 46)))


def _landsat() -> CollectionSpec:
    optical = [BandSpec(f"SR_B{i}", 30, UINT16, 7500, 30000, cloud=20000) for i in range(1, 8)]
    thermal = BandSpec("ST_B10", 30, UINT16, 38000, 50000, cloud=-8000)
    return CollectionSpec("LANDSAT", (*optical, thermal, BandSpec("QA_PIXEL", 30, UINT16, kind="qa")))


def _landsat_l1() -> CollectionSpec:
    bands = [BandSpec(f"B{i}", 15 if i == 8 else 30, UINT16, 6000, 30000, cloud=20000) for i in range(1, 12)]
    return CollectionSpec("LANDSAT", (*bands, BandSpec("QA_PIXEL", 30, UINT16, kind="qa")))


DYNAMIC_WORLD = (
    "water", "trees", "grass", "flooded_vegetation", "crops", "shrub_and_scrub", "built", "bare", "snow_and_ice",
)  # fmt: skip
_OLCI_STEP = 300 / DEGREE_M
_OLCI = [BandSpec(f"Oa{i:02d}_radiance", _OLCI_STEP, FLOAT, 20, 200) for i in range(1, 22)]

CATALOGUE = {
    "COPERNICUS/S2_SR_HARMONIZED": _s2("S2_L2A", l2a=True),
    "COPERNICUS/S2_SR": _s2("S2_L2A", l2a=True),
    "COPERNICUS/S2_HARMONIZED": _s2("S2_L1C", l2a=False),
    "COPERNICUS/S2": _s2("S2_L1C", l2a=False),
    "COPERNICUS/S1_GRD": _s1("S1", -25, -3),
    "COPERNICUS/S1_GRD_FLOAT": _s1("S1_FLOAT", -25, -3),
    "COPERNICUS/DEM/GLO30": CollectionSpec(
        "DEM",
        (
            BandSpec("DEM", 1 / 3600, FLOAT, -10, 2500),
            BandSpec("EDM", 1 / 3600, UINT8, kind="class"),
            BandSpec("WBM", 1 / 3600, UINT8, kind="class"),
        ),
        dated=False,
    ),
    "USGS/SRTMGL1_003": CollectionSpec(
        "SRTM", (BandSpec("elevation", 1 / 3600, INT16, -10, 2500),), dated=False, asset="IMAGE"
    ),
    "ECMWF/ERA5_LAND/MONTHLY_AGGR": CollectionSpec(
        "ERA5",
        (
            BandSpec("temperature_2m", 0.1, DOUBLE, 250, 310),
            BandSpec("total_precipitation_sum", 0.1, DOUBLE, 0, 0.4),
            BandSpec("surface_pressure", 0.1, DOUBLE, 9e4, 1.1e5),
        ),
    ),
    "IDAHO_EPSCOR/TERRACLIMATE": CollectionSpec(
        "TERRACLIMATE",
        tuple(BandSpec(name, 1 / 24, INT16, 0, high) for name, high in (("aet", 3140), ("def", 4548), ("soil", 8882))),
    ),
    "NOAA/VIIRS/DNB/MONTHLY_V1/VCMCFG": CollectionSpec(
        "VIIRS", (BandSpec("avg_rad", 15 / 3600, FLOAT, -1, 60), BandSpec("cf_cvg", 15 / 3600, INT16, 0, 30))
    ),
    "GOOGLE/DYNAMICWORLD/V1": CollectionSpec(
        "DYNAMICWORLD",
        (*(BandSpec(name, 10, DOUBLE, 0, 1) for name in DYNAMIC_WORLD), BandSpec("label", 10, UINT8, kind="class")),
    ),
    "COPERNICUS/S3/OLCI": CollectionSpec("OLCI", (*_OLCI, BandSpec("quality_flags", _OLCI_STEP, UINT32, kind="class"))),
    "LANDSAT/LC08/C02/T1_L2": _landsat(),
    "LANDSAT/LC09/C02/T1_L2": _landsat(),
    "LANDSAT/LC08/C02/T1": _landsat_l1(),
    "LANDSAT/LC09/C02/T1": _landsat_l1(),
    "LANDSAT/LC08/C02/T1_TOA": CollectionSpec(
        "LANDSAT",
        (
            *(BandSpec(f"B{i}", 15 if i == 8 else 30, FLOAT, 0.02, 0.6, cloud=0.4) for i in range(1, 10)),
            *(BandSpec(f"B{i}", 30, FLOAT, 250, 310, cloud=-30) for i in (10, 11)),
        ),
    ),
    "USDA/NAIP/DOQQ": CollectionSpec("NAIP", tuple(BandSpec(name, 1.0, UINT8, 20, 235) for name in "RGBN"), dated=True),
    **{
        f"ESA/WorldCover/{version}": CollectionSpec(
            f"WORLDCOVER_{version}", (BandSpec("Map", 8.333333333333333e-05, UINT8, kind="class"),), dated=False
        )
        for version in ("v100", "v200")
    },
    "GOOGLE/CLOUD_SCORE_PLUS/V1/S2_HARMONIZED": CollectionSpec(
        "S2_CLOUD", tuple(BandSpec(name, 10, FLOAT, 0, 1, kind="cloud_score") for name in ("cs", "cs_cdf"))
    ),
    "GOOGLE/SATELLITE_EMBEDDING/V1/ANNUAL": CollectionSpec(
        "ALPHAEARTH", tuple(BandSpec(f"A{i:02d}", 10, DOUBLE, -1, 1, kind="unit_vector") for i in range(64))
    ),
}
CLASSES = (10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 100)
"""Of ESA WorldCover."""
HARMONISED = {"COPERNICUS/S2_SR": "COPERNICUS/S2_SR_HARMONIZED", "COPERNICUS/S2": "COPERNICUS/S2_HARMONIZED"}
"""The collections whose DN carry ESA's offset of 1,000 from baseline 04.00."""
OFFSET_DN = 1000
