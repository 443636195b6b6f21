"""The shared sensor vocabulary: which bands a collection has, in which unit, at which pixel size.

The collection ids are those of the Earth Engine catalogue, because papers and users use them; every
provider maps them to its own names through its lexicon. Source of pixel sizes: ESA's Sentinel user guides.
"""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

from rs_embed.core.checks import require_number, short
from rs_embed.core.units import DN_PER_REFLECTANCE, HIGHEST_BYTE, Limit, Unit, convert, defined, known_units
from rs_embed.errors import SpecError

__all__ = [
    "COLLECTIONS", "DN_PER_REFLECTANCE", "HIGHEST_BYTE", "Band", "Collection", "Limit", "Unit", "bands_of",
    "cloud_masks_of", "convert", "did_you_mean", "is_picture", "nearest", "register_collection", "register_unit",
    "registered", "unit_named", "unit_of_tag",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Band:
    """One channel of a collection: its name, unit and pixel size."""

    name: str
    unit: Unit
    gsd_m: float
    """Native pixel size, metres."""
    scale: float = 1.0
    offset: float = 0.0
    """Earth Engine and STAC catalogues store integers: value in the unit = stored x `scale` + `offset`. For files on
    disk and arrays, the file or the caller states scale and offset instead."""
    aliases: tuple[str, ...] = ()
    """Other names that files use for it; case does not matter."""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise SpecError(f"Expected a band name, got {short(self.name)}.", fix='for example Band("red", ...)')
        require_number("gsd_m", self.gsd_m, 1e-3, 1e6)
        require_number("scale", self.scale, -1e12, 1e12)
        require_number("offset", self.offset, -1e12, 1e12)
        object.__setattr__(self, "unit", unit_named(self.unit) if isinstance(self.unit, str) else self.unit)
        if not isinstance(self.unit, Unit):
            raise SpecError(f"Expected the unit of {self.name}, got {short(self.unit)}.", fix="for example Unit.DN")


@dataclass(frozen=True)
class Collection(Mapping[str, Band]):
    """A kind of imagery: a mapping from band names to bands.

    Example:
        >>> red = Band("red", Unit.REFLECTANCE, gsd_m=3, scale=1e-4)
        >>> Collection("PLANET/PSSCENE", bands=(red,))["red"].gsd_m
        3
    """

    id: str
    """Its id in this library; on Earth Engine, the id of the image collection."""
    bands: tuple[Band, ...]
    dated: bool = True
    """False: undated tiles of one state of the Earth, used for any window."""
    cloud_property: str | None = None
    """Earth Engine: the scene property that holds the percentage of cloud; scenes without it are left out."""
    cloud_masks: tuple[str, ...] = ("none",)
    """The values of `SensorSpec.cloud_mask` that this collection supports."""

    def __post_init__(self) -> None:
        if not isinstance(self.id, str) or not self.id:
            raise SpecError(f"Expected a collection id, got {short(self.id)}.", fix='for example "ME/MINE"')
        object.__setattr__(self, "bands", tuple(self.bands))
        if not self.bands or not all(isinstance(band, Band) for band in self.bands):
            raise SpecError(
                f"Expected the bands of {self.id}, got {short(self.bands)}.",
                fix='for example bands=(Band("red", Unit.REFLECTANCE, gsd_m=3),)',
            )
        words = [word for band in self.bands for word in {name.casefold() for name in (band.name, *band.aliases)}]
        twice = sorted({word for word in words if words.count(word) > 1})
        if twice:
            raise SpecError(f"Expected each band of {self.id} once, got {', '.join(twice)} twice.", fix="rename one")

    @cached_property
    def _by_name(self) -> dict[str, Band]:
        return {band.name: band for band in self.bands}

    def __getitem__(self, name: str) -> Band:
        return self._by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self.bands)


def is_picture(bands: Sequence[Band], wanted: Sequence[Band]) -> bool:
    """Whether `bands` are bytes where reflectances are expected: a picture, which a model may accept or refuse."""
    return {band.unit for band in bands} == {Unit.BYTE} and {band.unit for band in wanted} == {Unit.DN}


def _bands(unit: Unit, **gsd_by_name: float) -> tuple[Band, ...]:
    return tuple(Band(name, unit, gsd_m) for name, gsd_m in gsd_by_name.items())


def _photograph(**gsd_by_name: float) -> tuple[Band, ...]:
    colours = {"R": ("red",), "G": ("green",), "B": ("blue",), "N": ("nir", "ir")}
    return tuple(Band(name, Unit.BYTE, gsd_m, aliases=colours.get(name, ())) for name, gsd_m in gsd_by_name.items())


def _sentinel_3(unit: Unit, **gsd_by_name: float) -> tuple[Band, ...]:
    return tuple(Band(name, unit, gsd_m, aliases=(name.split("_")[0],)) for name, gsd_m in gsd_by_name.items())


def _landsat_l1(collection: str) -> Collection:
    return Collection(
        collection,
        _bands(Unit.LANDSAT_L1_DN, **_LANDSAT_TOA, B10=100, B11=100),
        cloud_property="CLOUD_COVER",
    )


def _landsat(collection: str) -> Collection:
    optical = tuple(Band(f"SR_B{i}", Unit.REFLECTANCE, 30, 2.75e-05, -0.2) for i in range(1, 8))
    return Collection(
        collection, (*optical, Band("ST_B10", Unit.KELVIN, 100, 0.00341802, 149.0)), cloud_property="CLOUD_COVER"
    )


_S2_L2A = {
    "B1": 60, "B2": 10, "B3": 10, "B4": 10, "B5": 20, "B6": 20, "B7": 20, "B8": 10,
    "B8A": 20, "B9": 60, "B11": 20, "B12": 20,
}  # fmt: skip
_S1 = {"VV": 10, "VH": 10, "HH": 10, "HV": 10}
_LANDSAT_TOA = {f"B{i}": 30 for i in (1, 2, 3, 4, 5, 6, 7, 9)} | {"B8": 15}
_OLCI = {f"Oa{i:02d}_reflectance": 300 for i in range(1, 22)}
_ALPHAEARTH = {f"A{i:02d}": 10 for i in range(64)}
_TESSERA = {f"T{i:03d}": 10 for i in range(128)}
_SLSTR_OPTICAL = {f"S{i}_reflectance_an": 500 for i in range(1, 7)}
_SLSTR_THERMAL = {f"S{i}_BT_in": 1000 for i in range(7, 10)}

_DYNAMIC_WORLD = (
    "water", "trees", "grass", "flooded_vegetation", "crops", "shrub_and_scrub", "built", "bare", "snow_and_ice",
)  # fmt: skip
_WORLDCEREAL = ("temporarycrops", "maize", "wintercereals", "springcereals", "irrigation")

_S2_CLOUD = "CLOUDY_PIXEL_PERCENTAGE"
_BUILT_IN = (
    Collection(
        "COPERNICUS/S2_SR_HARMONIZED",
        _bands(Unit.DN, **_S2_L2A),
        cloud_property=_S2_CLOUD,
        cloud_masks=("none", "scl", "cs+"),
    ),
    Collection(
        "COPERNICUS/S2_HARMONIZED",
        _bands(Unit.DN, **_S2_L2A, B10=60),
        cloud_property=_S2_CLOUD,
        cloud_masks=("none", "cs+"),
    ),
    Collection("COPERNICUS/S1_GRD", _bands(Unit.DB, **_S1)),
    Collection("COPERNICUS/S1_GRD_FLOAT", _bands(Unit.POWER, **_S1)),
    Collection("COPERNICUS/S1_RTC", _bands(Unit.DB, VV=10, VH=10)),
    Collection("COPERNICUS/DEM/GLO30", _bands(Unit.METRE, DEM=30), dated=False),
    Collection("USGS/SRTMGL1_003", _bands(Unit.METRE, elevation=30), dated=False),
    Collection(
        "ECMWF/ERA5_LAND/MONTHLY_AGGR",
        _bands(Unit.KELVIN, temperature_2m=11_132) + _bands(Unit.WATER_METRE, total_precipitation_sum=11_132),
    ),
    Collection("IDAHO_EPSCOR/TERRACLIMATE", _bands(Unit.WATER_TENTH_MM, **{"def": 4638, "soil": 4638, "aet": 4638})),
    Collection("NOAA/VIIRS/DNB/MONTHLY_V1/VCMCFG", _bands(Unit.NW_CM2_SR, avg_rad=464)),
    Collection("GOOGLE/DYNAMICWORLD/V1", _bands(Unit.PROBABILITY, **dict.fromkeys(_DYNAMIC_WORLD, 10))),
    Collection("ESA/WorldCereal/2021", _bands(Unit.CONFIDENCE, **dict.fromkeys(_WORLDCEREAL, 10)), dated=False),
    Collection("ORNL/LANDSCAN", _bands(Unit.PEOPLE, b1=928), dated=False),
    Collection(
        "LANDSAT/LC08/C02/T1_TOA",
        _bands(Unit.REFLECTANCE, **_LANDSAT_TOA) + _bands(Unit.KELVIN, B10=100, B11=100),
        cloud_property="CLOUD_COVER",
    ),
    Collection("IGN/BD_ORTHO", _photograph(R=0.2, G=0.2, B=0.2, N=0.2, ELEVATION=0.2)),
    Collection("AIRBUS/SPOT67", _photograph(R=1.5, G=1.5, B=1.5)),
    Collection("COPERNICUS/S3/OLCI", _sentinel_3(Unit.REFLECTANCE, **_OLCI)),
    Collection("LINZ/AERIAL", _photograph(R=0.5, G=0.5, B=0.5)),
    Collection("CNSA/GF2", _photograph(N=4, R=4, G=4, B=4)),
    Collection(
        "MODIS/061/MOD09A1", tuple(Band(f"sur_refl_b{i:02d}", Unit.REFLECTANCE, 500, 1e-4) for i in range(1, 8))
    ),
    _landsat_l1("LANDSAT/LC08/C02/T1"),
    _landsat_l1("LANDSAT/LC09/C02/T1"),
    _landsat("LANDSAT/LC08/C02/T1_L2"),
    _landsat("LANDSAT/LC09/C02/T1_L2"),
    Collection("USDA/NAIP/DOQQ", _photograph(R=1, G=1, B=1, N=1)),
    Collection("ESA/WorldCover/v100", _bands(Unit.CLASS, Map=10), dated=False),
    Collection("ESA/WorldCover/v200", _bands(Unit.CLASS, Map=10), dated=False),
    Collection("TERRAMESH/LULC", _bands(Unit.CLASS, LULC=10)),
    Collection("TERRAMESH/NDVI", _bands(Unit.INDEX, NDVI=10)),
    Collection("GOOGLE/SATELLITE_EMBEDDING/V1/ANNUAL", _bands(Unit.COMPONENT, **_ALPHAEARTH)),
    Collection("TESSERA/V1_1_DCLIMATE/ANNUAL", _bands(Unit.FEATURE, **_TESSERA)),
    Collection(
        "COPERNICUS/S3/SLSTR",
        _sentinel_3(Unit.REFLECTANCE, **_SLSTR_OPTICAL) + _sentinel_3(Unit.KELVIN, **_SLSTR_THERMAL),
    ),
)
_collections: dict[str, Collection] = {one.id: one for one in _BUILT_IN}
COLLECTIONS: Mapping[str, Collection] = MappingProxyType(_collections)
"""All known collections by id. Earth Engine does not have `COPERNICUS/S3/SLSTR`, `COPERNICUS/S1_RTC`
(terrain-corrected gamma0), `IGN/BD_ORTHO` (French aerial photographs; ELEVATION as FLAIR stores it), `AIRBUS/SPOT67`,
`LINZ/AERIAL` (aerial photographs of New Zealand), `CNSA/GF2` (Gaofen-2 in 8 bits), `TESSERA/...` (a variant of its
embeddings), `TERRAMESH/...` (land cover and NDVI as TerraMind takes and makes them), `ESA/WorldCereal/2021` (its five
maps as bands of one collection) and `ORNL/LANDSCAN` (people per cell of 30 arc seconds); those ids are ours."""

_UNHARMONISED = {
    "COPERNICUS/S2_SR": "COPERNICUS/S2_SR_HARMONIZED",
    "COPERNICUS/S2": "COPERNICUS/S2_HARMONIZED",
}
"""Superseded collections -> replacements. Their DN are 1000 too high from processing baseline 04.00 (January 2022)."""


def register_unit(unit: Unit) -> None:
    """Make a unit known by its name, for files, arrays and `unit=`.

    Not needed for the units of a registered collection.

    Args:
        unit: The unit.

    Raises:
        SpecError: Another unit has that name.
    """
    defined(unit)


def register_collection(collection: Collection, *, replace: bool = False) -> None:
    """Make a collection known, so that `SensorSpec` accepts it with every backend that has such imagery.

    Arrays (`input_chw=`) and files on disk are expected in its units. Earth Engine is asked for the image collection
    of that id. For STAC, the `mapping` of a `StacCatalog` says where the collection is. The registration holds for
    this process; a pickled `SensorSpec` carries it to others.

    Args:
        collection: The collection with all of its bands.
        replace: Whether to replace a collection that you registered before under the same id.

    Raises:
        SpecError: The id belongs to the library or to a different registered collection, or a unit's name is taken.
    """
    known = _collections.get(collection.id)
    if collection.id in _UNHARMONISED or any(one.id == collection.id for one in _BUILT_IN):
        raise SpecError(
            f"Expected an id that the library does not use, got {collection.id!r}.",
            fix="give it an id of its own, such as yours/" + collection.id.rsplit("/", 1)[-1],
        )
    if known is not None and known != collection and not replace:
        raise SpecError(
            f"Expected a new id or the same collection, got a different collection for {collection.id!r}.",
            fix="use register_collection(..., replace=True), or give it an id of its own",
        )
    for band in collection.bands:
        defined(band.unit)
    _collections[collection.id] = collection


def registered(collection: str) -> Collection | None:
    """Return a collection that the user registered; `None` for those of the library."""
    found = _collections.get(collection)
    return None if found in _BUILT_IN else found


def registered_collections() -> tuple[Collection, ...]:
    """Return all collections that the user registered in this process."""
    return tuple(one for one in _collections.values() if one not in _BUILT_IN)


def cloud_masks_of(collection: str) -> tuple[str, ...]:
    """Return the values of `cloud_mask` that a collection supports."""
    return _collections[collection].cloud_masks


def unit_named(value: str | Unit) -> Unit:
    """Return the unit of a name that a user gives.

    Raises:
        SpecError: There is no such unit.
    """
    if isinstance(value, Unit):
        return value
    unit = unit_of_tag(value) if isinstance(value, str) else None
    if unit is None:
        known = [unit.name for unit in known_units()]
        fix = did_you_mean(value, known) if isinstance(value, str) else 'for example unit="reflectance"'
        raise SpecError(f"Expected a unit, got {value!r}.", known=", ".join(known), fix=fix)
    return unit


def unit_of_tag(tag: str | None) -> Unit | None:
    """Return the unit that a file states for a band, or `None` if it states no known unit."""
    word = (tag or "").strip().casefold()
    return next((unit for unit in known_units() if word == unit.name or word in unit.spellings), None)


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that a misspelt one most likely means, or `None`."""
    word = str(word)
    by_fold = {candidate.casefold(): candidate for candidate in known}
    folded = word.casefold()
    prefixes = sorted((known for known in by_fold if len(known) > 1 and folded.startswith(known)), key=len)
    close = difflib.get_close_matches(folded, by_fold, n=1, cutoff=0.75)
    close = close or prefixes[-1:] or difflib.get_close_matches(folded, by_fold, n=1, cutoff=0.6)
    return by_fold[close[0]] if close else None


def bands_of(collection: str, names: Iterable[str]) -> tuple[Band, ...]:
    """Return the named bands of a collection, in the given order.

    Raises:
        SpecError: The collection, or a band in it, is unknown.
    """
    if not isinstance(collection, str):
        raise SpecError(f"Expected a collection id, got {short(collection)}.", fix="see rs_embed.core.bands")
    if collection in _UNHARMONISED:
        raise SpecError(
            f"Expected harmonised DN, got {collection}: since January 2022 its values are 1000 higher.",
            fix=f"use {_UNHARMONISED[collection]!r}: the same scenes, with that offset removed",
        )
    if collection not in COLLECTIONS:
        raise SpecError(
            f"Expected a known collection, got {collection!r}.",
            known=", ".join(COLLECTIONS),
            fix=f"{did_you_mean(collection, COLLECTIONS)}; to use a collection of your own, call "
            "rs_embed.register_collection(Collection(id, bands))",
        )
    table = COLLECTIONS[collection]
    for name in names:
        if name not in table:
            raise SpecError(
                f"{collection} has no band {name!r}.",
                bands=", ".join(table),
                fix=did_you_mean(name, table),
            )
    return tuple(table[name] for name in names)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a fix: the nearest known word, or where to look."""
    guess = nearest(word, known)
    return f"did you mean {guess!r}?" if guess else "use one of the names above"
