"""What a page says about a result: where it comes from, in words."""

from collections.abc import Mapping

from rs_embed.core.display import percent
from rs_embed.embedding.meta import Meta
from rs_embed.embedding.show import days_of
from rs_embed.formats.base import RunHeader

_MOST = 12
"""Scenes that are listed; the others are counted."""
COPERNICUS = "COPERNICUS/S"
"""How the names of Sentinel collections start."""


def facts_of_meta(meta: Meta, licence: str) -> dict[str, str]:
    """Return label -> text for one embedding; facts that are not known are left out."""
    facts: dict[str, object] = {
        "Model": f"{meta.model_id} ({meta.model_key}), {meta.kind}, revision {meta.card_revision}",
        "Output": f"{meta.output}, {meta.grid_kind or meta.pooling or 'tokens'}",
        "Weights": meta.weights,
        "Note": meta.weights_note,
        "Licence of the weights": licence or f"rs-embed describe {meta.model_id}",
        "Place": meta.spatial,
        "Requested days": meta.temporal,
        "Days of the scenes": days_of(meta),
        "Valid pixels": percent(meta.valid_fraction),
        "Input": f"{meta.input_px[0]} x {meta.input_px[1]} px, {_windows(meta.windows)}, {meta.input_prep}",
        "GSD": f"{meta.gsd_m:g} m per pixel, patches of {meta.patch_size} px",
    }
    for one in meta.inputs:
        is_radar = one.instrument_mode is not None
        clouds = "" if is_radar else f"at most {one.cloudy_pct:g} % per scene, mask: {one.cloud_mask}"
        facts |= {
            f"Imagery, {one.modality}": f"{one.collection} via {one.provider}, {len(one.bands)} bands, {one.composite}",
            f"Scenes, {one.modality}": _listed(one.scene_ids),
            f"Clouds, {one.modality}": clouds,
            f"Remarks, {one.modality}": "; ".join(one.notes),
        }
    facts |= {f"Absent, {name}": why for name, why in meta.absent.items()}
    facts |= {
        "Position offsets": "subtracted" if meta.debias else "not subtracted" if meta.placed else None,
        "Knobs": ", ".join(f"{name}={value}" for name, value in meta.knobs.items() if value is not None),
        "Versions": _versions(meta.versions),
        "Computed": meta.created,
        "Fingerprint": meta.fingerprint,
    }
    return {name: str(value) for name, value in facts.items() if value}


def facts_of_header(header: RunHeader, more: Mapping[str, str]) -> dict[str, str]:
    """Return label -> text for what a run or a map of a region recorded, with facts of its own."""
    facts: dict[str, object] = {
        "Model": f"{header.model_id}, revision {header.card_revision}",
        "Title": header.title,
        "Weights": header.weights,
        "Note": header.weights_note,
        "Licence of the weights": header.licence,
        "Imagery": ", ".join(header.source_data),
        "GSD": None if header.gsd_m is None else f"{header.gsd_m:g} m per pixel",
        **more,
        "Publications": ", ".join(header.publications),
        "Versions": _versions(header.versions),
        "Started": header.created,
    }
    return {name: str(value) for name, value in facts.items() if value}


def warning_of(header: RunHeader) -> str | None:
    """Return the note that random weights must carry, else `None`."""
    random = (header.weights or "").startswith("random:")
    return (header.weights_note or "random weights") if random else None


def space_of(model_id: str, revision: int, weights: str | None, dim: int) -> str:
    """Return what two results share if their vectors can be compared."""
    return f"{model_id} {revision} {weights} {dim}"


def credit_of(collections: tuple[str, ...], days: str) -> str:
    """Return the line under the map that names the imagery; in the words of its licence where they are fixed."""
    if any(name.startswith(COPERNICUS) for name in collections):
        return f"Contains modified Copernicus Sentinel data {days[:4]}".rstrip()
    return f"Imagery: {', '.join(collections)}" if collections else ""


def credit_of_meta(meta: Meta) -> str:
    """Return that line for an embedding."""
    return credit_of(tuple(one.collection for one in meta.inputs), days_of(meta))


def _windows(count: int) -> str:
    return "1 window" if count == 1 else f"{count:,} windows"


def _listed(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - _MOST:,} more" if len(names) > _MOST else ""
    return ", ".join(names[:_MOST]) + more


def _versions(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())
