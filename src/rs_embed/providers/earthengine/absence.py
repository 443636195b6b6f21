"""Why Earth Engine has no imagery, in words."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rs_embed.core.specs import TemporalSpec
from rs_embed.errors import NoImagery, NoValidPixels, OutsideCoverage
from rs_embed.providers.common.grids import in_degrees
from rs_embed.providers.earthengine.archives import Place, conditions_of
from rs_embed.providers.earthengine.scenes import Scene

if TYPE_CHECKING:
    from rs_embed.providers.earthengine.service import Service


def why_no_imagery(
    service: "Service", place: Place, window: TemporalSpec | None, told: Sequence[Scene] | None = None
) -> NoImagery | OutsideCoverage | None:
    """Why there is no imagery, if there is none; asks what is not known yet.

    Args:
        service: Whom to ask.
        place: Collection and grid.
        window: Days.
        told: All scenes in the window, where they are known.
    """
    told = service.scenes(place, window, measured=False) if told is None else told
    if not told and not (place.archive.dated and service.any_scene(place)):
        return OutsideCoverage(
            f"Expected {place.sensor.collection} at {in_degrees(place.geobox)}, got no scene: it has nothing there.",
            fix="ask for another place or another collection",
        )
    left, scenes = list(told), [f"{len(told)} in the window"]
    for condition in conditions_of(place.sensor):
        left = [scene for scene in left if condition.met_by(scene.told)]
        scenes.append(f"{len(left)} {condition.name}")
    if left:
        return None
    return NoImagery(
        f"Expected {place.sensor.collection} {_days(window)}, got no scene to make pixels of.",
        where=in_degrees(place.geobox),
        scenes=", of these ".join(scenes),
        fix=_elsewhen(place),
    )


def only_nodata(place: Place, scenes: Sequence[Scene]) -> NoValidPixels:
    """There were scenes, and not one valid pixel on the grid."""
    return NoValidPixels(
        f"Expected at least one valid pixel of {place.sensor.collection}, got only nodata.",
        where=in_degrees(place.geobox),
        scenes=len(scenes) or None,
        fix=_elsewhen(place) + ("" if place.sensor.cloud_mask == "none" else ', or use cloud_mask="none"'),
    )


def _elsewhen(place: Place) -> str:
    return "ask for another year or place" if place.archive.annual else "widen the window or raise cloudy_pct"


def _days(window: TemporalSpec | None) -> str:
    return "of any day" if window is None else f"from {window.start} up to {window.end}"
