"""Write the notes of a result about how its pixels were made."""

from collections import Counter
from collections.abc import Sequence

from rs_embed.errors import ProviderError
from rs_embed.providers.base import Query
from rs_embed.providers.common.absence import averaged_as_power, masked_by, mixed_passes, one_state
from rs_embed.providers.stac.catalogs import StacCatalog, StacCollection
from rs_embed.providers.stac.items import CatalogItem
from rs_embed.providers.stac.offset import BASELINE
from rs_embed.providers.stac.scenes import Findings

ORBIT = "sat:orbit_state"


def notes_of(
    query: Query,
    catalog: StacCatalog,
    collection: StacCollection,
    used: Sequence[CatalogItem],
    findings: Findings,
) -> tuple[str, ...]:
    """Return the notes of a chip made from these items."""
    sensor = query.sensor
    found = [f"{collection.id} of {catalog.title}."]
    found += [collection.note] if collection.note else []
    found += one_state(query, dated=collection.dated)
    baselines = sorted({str(item.properties[BASELINE]) for item in used if BASELINE in item.properties})
    if baselines:
        found.append(f"Processing baseline {', '.join(baselines)}.")
    decided = [findings.offsets[item.id] for item in used if item.id in findings.offsets]
    for (dn, reason), count in sorted(Counter((one.dn, one.reason) for one in decided).items()):
        found.append(f"Offset {dn:+g} DN for {count} of {len(decided)} scenes ({reason}).")
    found += [findings.doubts[item.id] for item in used if item.id in findings.doubts]
    found += masked_by(sensor)
    found += findings.notes
    found += [left_out(item, why) for item, why in findings.missing.items()]
    if findings.unread:
        found.append(f"{findings.unread} passes with more cloud were not read: the place was clear often enough.")
    found += averaged_as_power(sensor, linear=collection.linear)
    found += mixed_passes(item.properties[ORBIT] for item in used if ORBIT in item.properties)
    return tuple(dict.fromkeys(found))


def left_out(scene: str, why: ProviderError) -> str:
    """Return the note that a scene was left out, with the reason."""
    return f"Left out scene {scene}, asset {why.facts.get('asset')}: {why.headline}"
