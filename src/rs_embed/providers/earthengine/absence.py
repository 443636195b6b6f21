"""Explain why Earth Engine has no imagery for a request."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rs_embed.core.specs import TemporalSpec
from rs_embed.errors import NoImagery, OutsideCoverage
from rs_embed.providers.common.absence import WIDEN
from rs_embed.providers.common.grids import in_degrees
from rs_embed.providers.earthengine.archives import Target, conditions_of
from rs_embed.providers.earthengine.scenes import ArchivedScene

if TYPE_CHECKING:
    from rs_embed.providers.earthengine.service import Service


def why_no_imagery(
    service: "Service", target: Target, window: TemporalSpec | None, known: Sequence[ArchivedScene] | None = None
) -> NoImagery | OutsideCoverage | None:
    """Return the error that explains why there is no imagery, or `None` if there is some; asks for what is unknown.

    Args:
        service: The service to ask.
        target: Collection and grid.
        window: The requested days.
        known: All scenes in the window, if they are known.
    """
    known = service.scenes(target, window, measured=False) if known is None else known
    if not known and not (target.archive.dated and service.any_scene(target)):
        return OutsideCoverage(
            f"Expected {target.sensor.collection} at {in_degrees(target.geobox)}, got no scene: it has none there.",
            fix="choose another place or another collection",
        )
    left, scenes = list(known), [f"{len(known)} in the window"]
    for condition in conditions_of(target.sensor):
        left = [scene for scene in left if condition.met_by(scene.properties)]
        scenes.append(f"{len(left)} {condition.name}")
    if left:
        return None
    return NoImagery(
        f"Expected {target.sensor.collection} {_days(window)}, got no scene that can be used.",
        where=in_degrees(target.geobox),
        scenes=", of these ".join(scenes),
        fix=elsewhen(target),
    )


def elsewhen(target: Target) -> str:
    """Return the fix: what else to request."""
    return "choose another year or place" if target.archive.annual else WIDEN


def _days(window: TemporalSpec | None) -> str:
    return "of any day" if window is None else f"from {window.start} up to {window.end}"
