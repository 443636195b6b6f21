"""Errors and notes that global archives share: why there is no chip, and what a reader of a chip should know."""

from collections.abc import Iterable

from odc.geo.geobox import GeoBox

from rs_embed.core.specs import SensorSpec
from rs_embed.errors import NoValidPixels, SpecError
from rs_embed.providers.base import Query
from rs_embed.providers.common.grids import in_degrees

WIDEN = "widen the window or raise cloudy_pct"


def no_place(who: str) -> SpecError:
    """Return the error for a request without a place."""
    return SpecError(
        f"Expected a place, got none: {who} covers the Earth.",
        fix="pass for example spatial=PointBuffer(lon=12.94, lat=47.77, buffer_m=1000)",
    )


def no_days(who: str, collection: str, *, annual: bool = False) -> SpecError:
    """Return the error for a request without days; `annual` collections have one image per year."""
    example = "year(2022)" if annual else 'range("2022-06-01", "2022-09-01")'
    return SpecError(
        f"Expected a window of days for {collection}, got none: {who} holds years of it.",
        fix=f"pass for example temporal=TemporalSpec.{example}",
    )


def only_nodata(
    sensor: SensorSpec, geobox: GeoBox, scenes: int | None, fix: str = WIDEN, left_out: str | None = None
) -> NoValidPixels:
    """Return the error for scenes without a valid pixel on the grid."""
    return NoValidPixels(
        f"Expected at least one valid pixel of {sensor.collection}, got only nodata.",
        where=in_degrees(geobox),
        scenes=scenes,
        left_out=left_out,
        fix=fix + ("" if sensor.cloud_mask == "none" else ', or use cloud_mask="none"'),
    )


def one_state(query: Query, *, dated: bool) -> list[str]:
    """Note that the window was not used."""
    text = f"{query.sensor.collection} is one state of the Earth; the window was not used."
    return [] if dated or query.window is None else [text]


def masked_by(sensor: SensorSpec) -> list[str]:
    """Note which cloud mask was applied."""
    return [] if sensor.cloud_mask == "none" else [f"Cloud and shadow masked by {sensor.cloud_mask}."]


def averaged_as_power(sensor: SensorSpec, *, linear: bool) -> list[str]:
    """Note that decibels were averaged as linear power."""
    averaged = linear and sensor.composite in ("median", "mean")
    return [f"The {sensor.composite} was taken of linear power, then given in dB."] if averaged else []


def mixed_passes(passes: Iterable[object]) -> list[str]:
    """Note that orbit passes are mixed; `passes` holds one per scene, where it is known."""
    mixed = len(set(passes)) > 1
    return ["Ascending and descending passes are mixed; orbit_pass takes one of them."] if mixed else []
