"""Write the notes of a result about how its pixels were made."""

from collections.abc import Sequence

from rs_embed.core.chip import Source
from rs_embed.providers.base import Query
from rs_embed.providers.common.absence import averaged_as_power, masked_by, mixed_passes, one_state
from rs_embed.providers.earthengine.archives import MODEL_VERSION, UTM_ZONE, Archive
from rs_embed.providers.earthengine.scenes import ArchivedScene, FramePlan

BASELINE = "PROCESSING_BASELINE"
ORBIT = "orbitProperties_pass"


def notes_of(query: Query, archive: Archive, scenes: Sequence[ArchivedScene], unlisted: str | None) -> tuple[str, ...]:
    """Return the notes of a chip.

    Args:
        query: The query.
        archive: How Earth Engine stores the collection.
        scenes: The scenes it was made from; empty if unknown.
        unlisted: Why the scenes are unknown, if their list was requested and the request failed.
    """
    sensor = query.sensor
    found = []
    if archive.dated and not scenes:
        why = f"did not come ({unlisted.rstrip('.')})" if unlisted else "was not asked for (provenance is off)"
        found.append(f"The list of scenes {why}: ids and dates are not known.")
    found += one_state(query, dated=archive.dated)
    baselines = _values_of(scenes, BASELINE)
    if baselines:
        found.append(f"Processing baseline {', '.join(baselines)}; Earth Engine has removed the offset of 04.00.")
    found += masked_by(sensor)
    found += averaged_as_power(sensor, linear=archive.linear)
    found += mixed_passes(scene.properties[ORBIT] for scene in scenes if ORBIT in scene.properties)
    if archive.annual:
        zones, versions = _values_of(scenes, UTM_ZONE), _values_of(scenes, MODEL_VERSION)
        found += [f"Model version {', '.join(versions)}."] if versions else []
        found += [f"Images of the UTM zones {', '.join(zones)}; the grid's own is on top."] if len(zones) > 1 else []
    if archive.radiance:
        found.append("Reflectance from radiance, with one sun per scene and the mean solar flux of the instrument.")
    return tuple(found)


def source_of(
    query: Query, archive: Archive, frames: Sequence[FramePlan], clear_observations: float, unlisted: str | None
) -> Source:
    """Return where the pixels of these frames come from; see `notes_of` for `unlisted`."""
    scenes = [scene for frame in frames for scene in frame.scenes]
    return Source(
        provider="gee",
        collection=query.sensor.collection,
        scene_ids=tuple(scene.id for scene in scenes),
        scene_times=tuple(scene.time for scene in scenes),
        scenes_per_frame=tuple(len(frame.scenes) for frame in frames) if scenes else (),
        offset_applied=0.0 if query.sensor.collection.startswith("COPERNICUS/S2") else None,
        notes=notes_of(query, archive, scenes, unlisted),
        clear_observations=clear_observations,
    )


def _values_of(scenes: Sequence[ArchivedScene], name: str) -> list[str]:
    """The different values of a property."""
    return sorted({str(scene.properties[name]) for scene in scenes if name in scene.properties})
