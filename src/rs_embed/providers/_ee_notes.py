"""What a reader of a result should know of how its pixels were made."""

from collections.abc import Sequence

from rs_embed.providers._ee_archives import MODEL_VERSION, UTM_ZONE, Archive
from rs_embed.providers._ee_scenes import Scene
from rs_embed.providers.base import Query

BASELINE = "PROCESSING_BASELINE"
ORBIT = "orbitProperties_pass"


def notes_of(query: Query, archive: Archive, scenes: Sequence[Scene]) -> tuple[str, ...]:
    """The notes of a chip made of these scenes (none, where they were not asked for)."""
    sensor = query.sensor
    found = []
    if archive.dated and not scenes:
        found.append("The list of scenes was not asked for (provenance is off): ids and dates are not known.")
    if not archive.dated and query.window is not None:
        found.append(f"{sensor.collection} is one state of the Earth; the window was not used.")
    baselines = _told(scenes, BASELINE)
    if baselines:
        found.append(f"Processing baseline {', '.join(baselines)}; Earth Engine has removed the offset of 04.00.")
    if sensor.cloud_mask != "none":
        found.append(f"Cloud and shadow masked by {sensor.cloud_mask}.")
    if archive.linear and sensor.composite in ("median", "mean"):
        found.append(f"The {sensor.composite} was taken of linear power, then given in dB.")
    if len({scene.told.get(ORBIT) for scene in scenes if ORBIT in scene.told}) > 1:
        found.append("Ascending and descending passes are mixed; orbit_pass takes one of them.")
    if archive.annual:
        zones, versions = _told(scenes, UTM_ZONE), _told(scenes, MODEL_VERSION)
        found += [f"Model version {', '.join(versions)}."] if versions else []
        found += [f"Images of the UTM zones {', '.join(zones)}; the grid's own is on top."] if len(zones) > 1 else []
    if archive.radiance:
        found.append("Reflectance from radiance, with one sun per scene and the mean solar flux of the instrument.")
    return tuple(found)


def _told(scenes: Sequence[Scene], name: str) -> list[str]:
    """The different values of a property."""
    return sorted({str(scene.told[name]) for scene in scenes if name in scene.told})
