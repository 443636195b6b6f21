"""Units of pixel values: conversions, plausible ranges, and whether pixels may be averaged or interpolated."""

import math
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from rs_embed.errors import SpecError, UnitMismatch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DN_PER_REFLECTANCE = 10_000.0
HIGHEST_BYTE = 255
HIGHEST_REFLECTANCE = 2.0
"""Clouds and sun glint reach 1.5 or so."""
HIGHEST_POWER = 10.0
"""A limit for the median: only corner reflectors and city centres exceed 10 dB."""


@dataclass(frozen=True, slots=True)
class Limit:
    """A range of plausible values: if too many lie outside it, the values are in another unit."""

    low: float = -math.inf
    high: float = math.inf
    outside: Literal["any", "most", "all"] = "most"
    """How many values outside it are too many. For "all", the limits themselves count as outside."""
    finding: str = ""
    """What such values look like, for the error message."""
    fix: str = ""
    """What to do about it, for the error message."""

    def broken_by(self, values: "NDArray[np.float32]") -> bool:
        """Whether values `[N]`, at least one and all finite, break the limit."""
        import numpy as np  # not above: a quarter of a second, of which `--help` has no need

        if self.outside == "all":
            return bool((self.low >= values.max()) or (self.high <= values.min()))
        beyond = np.zeros(values.shape, bool)
        if self.low > -math.inf:
            beyond |= values < self.low
        if self.high < math.inf:
            beyond |= values > self.high
        return bool(beyond.any()) if self.outside == "any" else 2 * int(np.count_nonzero(beyond)) > values.size


@dataclass(frozen=True, repr=False, eq=False)
class Unit:
    """The meaning of a pixel value.

    Example:
        >>> percent = Unit("percent", (Limit(-5, 150),), quantity="reflectance", factor=0.01)
        >>> convert(np.float32([50]), percent, Unit.DN)
        array([5000.], dtype=float32)
    """

    name: str
    """Name in files, metadata and `unit=`."""
    limits: tuple[Limit, ...] = ()
    """Values that break a limit are refused."""
    quantity: str = ""
    """Name of the base unit that it converts to and from; empty for a base unit. Units of one quantity convert into
    each other."""
    factor: float = 1.0
    offset: float = 0.0
    """Value in the base unit = value x `factor` + `offset`."""
    decibel: bool = False
    """Whether it is 10 log10 of the base unit, instead of factor and offset."""
    whole_numbers: bool = False
    """Whether fractions are refused."""
    kept_whole: bool = False
    """Whether pixels are never averaged or interpolated."""
    measured: tuple[float, float] = (-math.inf, math.inf)
    """Range of measurements; single values beyond it are nodata."""
    zero_is_nodata: bool = False
    """Whether a pixel of 0 in every band is nodata."""
    spellings: tuple[str, ...] = ()
    """Other names that files use for it; case does not matter."""

    DN: ClassVar["Unit"]
    """Sentinel-2 digital number: reflectance x 10,000, 0-based (the baseline-04.00 offset removed)."""
    REFLECTANCE: ClassVar["Unit"]
    """0 to about 1."""
    LANDSAT_L1_DN: ClassVar["Unit"]
    """Landsat level-1 digital number, as delivered: 1 to 65,535."""
    DB: ClassVar["Unit"]
    """Radar backscatter, 10 log10(power)."""
    POWER: ClassVar["Unit"]
    """Radar backscatter, linear."""
    KELVIN: ClassVar["Unit"]
    """Air temperature or brightness temperature."""
    METRE: ClassVar["Unit"]
    """Height."""
    DEGREE: ClassVar["Unit"]
    """An angle such as a slope: 0 is level, 90 is vertical."""
    WATER_METRE: ClassVar["Unit"]
    """A depth of water, such as monthly rainfall."""
    WATER_TENTH_MM: ClassVar["Unit"]
    """A depth of water in tenths of a millimetre, as TerraClimate stores it."""
    NW_CM2_SR: ClassVar["Unit"]
    """Night-time radiance, nW / (cm2 sr)."""
    PROBABILITY: ClassVar["Unit"]
    """0 to 1."""
    CONFIDENCE: ClassVar["Unit"]
    """Confidence of a map, 0 to 100."""
    PEOPLE: ClassVar["Unit"]
    """Number of people in a map cell."""
    BYTE: ClassVar["Unit"]
    """0 to 255, as in aerial photographs; not a physical quantity."""
    CLASS: ClassVar["Unit"]
    """Class code; never averaged or interpolated."""
    INDEX: ClassVar["Unit"]
    """A normalised difference such as NDVI, -1 to 1."""
    COMPONENT: ClassVar["Unit"]
    """A component of a unit vector, -1 to 1; never averaged or interpolated band by band."""
    FEATURE: ClassVar["Unit"]
    """A component of a vector of any length: no range; never averaged or interpolated band by band."""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.isidentifier() or self.name != self.name.casefold():
            raise SpecError(
                f"Expected a unit name of lower-case letters, digits and underscores, got {self.name!r}.",
                fix='for example Unit("radiance_w_m2_sr_um")',
            )
        if not (math.isfinite(self.factor) and math.isfinite(self.offset) and self.factor):
            raise SpecError(
                f"Expected finite numbers and a non-zero factor for {self.name}, got {self.factor} and {self.offset}.",
                fix="choose them so that value in the base unit = value x factor + offset",
            )

    @property
    def base(self) -> str:
        """Name of its base unit."""
        return self.quantity or self.name

    def __eq__(self, other: object) -> bool:
        """Compare with another unit by all fields, or with a name: `band.unit == "dn"`."""
        if isinstance(other, str):
            return self.name == other
        return vars(self) == vars(other) if isinstance(other, Unit) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.name)

    def __str__(self) -> str:
        return self.name

    def __format__(self, spec: str) -> str:
        return format(self.name, spec)

    def __repr__(self) -> str:
        if _KNOWN.get(self.name) is self and self.name in _OURS:
            return f"<Unit.{self.name.upper()}: {self.name!r}>"
        given = [
            f"{one.name}={vars(self)[one.name]!r}" for one in fields(self)[1:] if vars(self)[one.name] != one.default
        ]
        return f"Unit({', '.join([repr(self.name), *given])})"

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        """Pickle the unit so that it is known in the process that reads it."""
        return _sent, tuple(vars(self).values())


_KNOWN: dict[str, Unit] = {}


def known_units() -> tuple[Unit, ...]:
    """List all units that can be named."""
    return tuple(_KNOWN.values())


def defined(unit: Unit) -> Unit:
    """Make a unit known by its name, and return it; return the known one if it is equal.

    Raises:
        SpecError: Another unit has that name.
    """
    known = _KNOWN.setdefault(unit.name, unit)
    if known != unit:
        raise SpecError(
            f"Expected {unit.name!r} to mean the known unit, got a different unit of that name.",
            known=repr(known),
            got=repr(unit),
            fix="give it a name of its own",
        )
    return known


def _sent(*values: object) -> Unit:
    return defined(Unit(*values))  # type: ignore[arg-type]  # the values that pickle restores


_BEYOND_1 = Limit(-1.001, 1.001, "any", "values beyond -1 to 1")
_BYTES = "values that are not from 0 to 255", "give the photograph as it was delivered, in 8 bits"
LOWEST_DN = -1500.0
"""The smallest DN minus the offset of baseline 04.00 is -999."""
HIGHEST_DN = 60_000.0
"""Reflectance 6 does not occur; 65535 marks saturated pixels in ESA's files and nodata in others."""
LOWEST_DB = -90.0
"""Far below the noise floor of any radar; -100 = 10 log10(1e-10) comes from zeros that were clipped to 1e-10."""
COLDEST_K, HOTTEST_K = 100.0, 400.0
"""The coldest cloud tops are at 160 K; lava and fire saturate the sensors below 400 K."""
HIGHEST_M = 9_500.0
"""Higher than Mount Everest; as a depth, deeper than any land surface."""
MOST_RAIN_M = 10.0
"""The wettest month on record, in Cherrapunji, had 9.3 m."""

Unit.DN = Unit(
    "dn",
    (
        Limit(
            low=LOWEST_DN,
            finding="mostly strongly negative values",
            fix="check the offset: DN are 0-based, about 0 to 10,000",
        ),
        Limit(
            low=HIGHEST_REFLECTANCE,
            outside="all",
            finding="no value above 2: it looks like reflectance",
            fix='multiply by 10,000, or for a file declare unit="reflectance"',
        ),
    ),
    quantity="reflectance",
    factor=1 / DN_PER_REFLECTANCE,
    measured=(LOWEST_DN, HIGHEST_DN),
    zero_is_nodata=True,
)
Unit.REFLECTANCE = Unit(
    "reflectance",
    (
        Limit(
            high=HIGHEST_REFLECTANCE,
            finding="a median above 2: it looks like DN, or percent",
            fix='apply scale and offset of the product (Sentinel-2: divide by 10,000, or declare unit="dn")',
        ),
    ),
    zero_is_nodata=True,
)
Unit.LANDSAT_L1_DN = Unit(
    "landsat_l1_dn",
    (
        Limit(
            low=0, outside="any", finding="negative values", fix="give the numbers as delivered, before any calibration"
        ),
        Limit(
            low=HIGHEST_REFLECTANCE,
            outside="all",
            finding="no value above 2: it looks like reflectance",
            fix="give the numbers as delivered, about 5,000 to 65,000",
        ),
    ),
    zero_is_nodata=True,
)
Unit.DB = Unit(
    "db",
    (
        Limit(
            high=0.0,
            outside="all",
            finding="no negative value: it looks like linear power or amplitude",
            fix='convert to 10 log10(power), or declare unit="power" for a file',
        ),
        Limit(
            low=LOWEST_DB,
            finding="a median under -90: it looks like a scaled integer",
            fix="multiply by the scale of the file, for example 0.01",
        ),
    ),
    quantity="power",
    decibel=True,
    measured=(LOWEST_DB, math.inf),
    spellings=("decibel",),
)
Unit.POWER = Unit(
    "power",
    (
        Limit(
            low=0.0,
            outside="any",
            finding="negative values: it looks like dB",
            fix='convert to linear power, or declare unit="db" for a file',
        ),
        Limit(
            high=HIGHEST_POWER,
            finding="a median above 10: it looks like uncalibrated DN",
            fix="calibrate to sigma0 or gamma0 first",
        ),
    ),
    spellings=("linear",),
)
Unit.KELVIN = Unit(
    "kelvin",
    (
        Limit(
            COLDEST_K,
            HOTTEST_K,
            finding="a median that is not a plausible temperature: it looks like degrees Celsius, or a scaled integer",
            fix="add 273.15, or apply scale and offset of the product",
        ),
    ),
    spellings=("k",),
)
Unit.METRE = Unit(
    "metre",
    (
        Limit(
            -HIGHEST_M,
            HIGHEST_M,
            finding="a median beyond any height in metres: it looks like centimetres, or a scaled integer",
            fix="convert to metres",
        ),
    ),
    spellings=("m", "meter"),
)
Unit.DEGREE = Unit(
    "degree",
    (Limit(-0.01, 90.01, "any", "values outside 0 to 90 degrees", "convert to degrees"),),
    spellings=("deg", "degrees"),
)
Unit.WATER_METRE = Unit(
    "water_metre",
    (
        Limit(
            high=MOST_RAIN_M,
            finding="a median above any month of rain in metres: it looks like millimetres",
            fix="divide by 1000",
        ),
    ),
)
Unit.WATER_TENTH_MM = Unit("water_tenth_mm", quantity="water_metre", factor=1e-4)
Unit.NW_CM2_SR = Unit("nw_cm2_sr", spellings=("nw/cm2/sr",))
Unit.PROBABILITY = Unit(
    "probability",
    (Limit(-0.001, 1.001, "any", "values beyond 0 to 1", "divide by the scale of the file, often 100"),),
)
Unit.CONFIDENCE = Unit("confidence", (Limit(-0.1, 100.1, "any", "values beyond 0 to 100", "scale it to 0 to 100"),))
Unit.PEOPLE = Unit(
    "people", (Limit(low=-0.5, outside="any", finding="negative numbers", fix="mark negative numbers as nodata"),)
)
Unit.BYTE = Unit("byte", (Limit(0, HIGHEST_BYTE, "any", *_BYTES), Limit(1, math.inf, "all", *_BYTES)))
Unit.CLASS = Unit("class", whole_numbers=True, kept_whole=True)
Unit.INDEX = Unit("index", (replace(_BEYOND_1, fix="divide by the scale of the file, often 10,000"),))
Unit.COMPONENT = Unit(
    "component",
    (
        replace(
            _BEYOND_1,
            fix="divide each vector by its length; dequantise 8-bit values first",
        ),
    ),
    kept_whole=True,
    zero_is_nodata=True,
)
Unit.FEATURE = Unit("feature", kept_whole=True)
_OURS = frozenset(
    defined(unit).name
    for unit in (
        *(Unit.DN, Unit.REFLECTANCE, Unit.DB, Unit.POWER, Unit.KELVIN, Unit.METRE, Unit.BYTE, Unit.CLASS),
        *(Unit.INDEX, Unit.COMPONENT, Unit.FEATURE, Unit.DEGREE, Unit.WATER_METRE, Unit.WATER_TENTH_MM),
        *(Unit.NW_CM2_SR, Unit.PROBABILITY, Unit.CONFIDENCE, Unit.PEOPLE, Unit.LANDSAT_L1_DN),
    )
)


def convert(values: "NDArray[np.float32]", from_unit: Unit, to_unit: Unit) -> "NDArray[np.float32]":
    """Convert values to another unit of the same quantity.

    Args:
        values: Any shape; NaN stays NaN. A base value of zero or less has no dB and becomes NaN.
        from_unit: The unit of `values`.
        to_unit: The unit to convert to.

    Raises:
        UnitMismatch: The two units do not measure the same quantity.
    """
    if from_unit == to_unit:
        return values
    if from_unit.base != to_unit.base:
        raise UnitMismatch(
            f"Expected values in {to_unit}, got {from_unit}: one cannot be computed from the other.",
            fix=f"use imagery in {to_unit}, or declare the unit that the values really have",
        )
    import numpy as np  # not above: a quarter of a second, of which `--help` has no need

    if from_unit.decibel:
        values = np.power(np.float32(10), values / 10).astype(np.float32, copy=False)
    factor = from_unit.factor / to_unit.factor
    constant = (from_unit.offset - to_unit.offset) / to_unit.factor
    if factor != 1:
        values = values * np.float32(factor)
    if constant:
        values = values + np.float32(constant)
    if to_unit.decibel:
        positive = np.where(values > 0, values, np.float32(np.nan))
        values = (10 * np.log10(positive)).astype(np.float32, copy=False)
    return values
