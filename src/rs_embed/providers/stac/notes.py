"""What a reader of a result should know of how its pixels were made."""

from collections import Counter
from collections.abc import Sequence

from rs_embed.errors import ProviderError
from rs_embed.providers.base import Query
from rs_embed.providers.stac.catalogs import StacCatalog, StacCollection
from rs_embed.providers.stac.items import Item
from rs_embed.providers.stac.offset import BASELINE
from rs_embed.providers.stac.scenes import Findings


def notes_of(
    query: Query,
    catalog: StacCatalog,
    held: StacCollection,
    used: Sequence[Item],
    findings: Findings,
) -> tuple[str, ...]:
    """The notes of a chip made of these items."""
    sensor = query.sensor
    found = [f"{held.id} of {catalog.title}."]
    found += [held.note] if held.note else []
    if not held.dated and query.window is not None:
        found.append(f"{sensor.collection} is one state of the Earth; the window was not used.")
    baselines = sorted({str(item.told[BASELINE]) for item in used if BASELINE in item.told})
    if baselines:
        found.append(f"Processing baseline {', '.join(baselines)}.")
    decided = [findings.offsets[item.id] for item in used if item.id in findings.offsets]
    for (dn, reason), count in sorted(Counter((one.dn, one.reason) for one in decided).items()):
        found.append(f"Offset {dn:+g} DN for {count} of {len(decided)} scenes ({reason}).")
    found += [findings.doubts[item.id] for item in used if item.id in findings.doubts]
    if sensor.cloud_mask != "none":
        found.append(f"Cloud and shadow masked by {sensor.cloud_mask}.")
    found += findings.notes
    found += [left_out(item, why) for item, why in findings.missing.items()]
    if findings.unread:
        found.append(f"{findings.unread} passes with more cloud were not read: the place was clear often enough.")
    if held.linear and sensor.composite in ("median", "mean"):
        found.append(f"The {sensor.composite} was taken of linear power, then given in dB.")
    if len({item.told["sat:orbit_state"] for item in used if "sat:orbit_state" in item.told}) > 1:
        found.append("Ascending and descending passes are mixed; orbit_pass takes one of them.")
    return tuple(dict.fromkeys(found))


def left_out(scene: str, why: ProviderError) -> str:
    """That a scene was left out, and why."""
    return f"Left out scene {scene}, asset {why.facts.get('asset')}: {why.headline}"
