"""How embeddings show themselves; see `core.display`."""

from typing import TYPE_CHECKING

import numpy as np
from odc.geo.geobox import GeoBox

from rs_embed.core.display import card, image, percent, rows, sparkline
from rs_embed.core.geo import project
from rs_embed.errors import Failure

if TYPE_CHECKING:
    from rs_embed.embedding.batch import Embeddings, Result
    from rs_embed.embedding.embedding import Embedding
    from rs_embed.embedding.meta import Meta

_PICTURE_PX = 90
"""Longest side of a picture, tokens: as a PNG it stays under 50 kB whatever it shows."""
_SHOWN = 5
"""Places that a card of many lists."""


def embedding_line(one: "Embedding") -> str:
    """In one line: model, output, shape, place, days, valid share."""
    meta = one.meta
    place = "no place" if one.geobox is None else centre_of(one.geobox)
    parts = [f"{meta.model_id}, {meta.output} {one.data.shape}", place, days_of(meta)]
    note = f", {meta.warning}" if meta.warning else ""
    return f"Embedding({', '.join(part for part in parts if part)}, {percent(meta.valid_fraction)} valid{note})"


def meta_line(meta: "Meta") -> str:
    """In one line: model, output, imagery, days, weights."""
    imagery = ", ".join(f"{one.collection} via {one.provider}" for one in meta.inputs) or "no imagery"
    parts = [f"{meta.model_id}, {meta.output}", imagery, days_of(meta), f"{percent(meta.valid_fraction)} valid"]
    parts.append(meta.warning or f"weights {weights_of(meta)}")
    return f"Meta({', '.join(part for part in parts if part)})"


def embeddings_line(many: "Embeddings") -> str:
    """In one line: how many, and the first."""
    failed = len(many.failures)
    first = next((f", first: {one!r}" for one in many if not isinstance(one, Failure)), "")
    return f"Embeddings({len(many):,} places, {failed:,} failed{first})"


def embedding_html(one: "Embedding") -> str:
    """A card with a picture."""
    meta = one.meta
    facts = {
        "Place": _place(one.geobox, meta),
        "Date": days_of(meta),
        "Imagery": _imagery(meta),
        "Shape": _shape(one),
        "Valid": _valid(one),
        "Weights": weights_of(meta),
    }
    return card(meta.model_id, _kind(meta), facts, warning=meta.warning, picture=_picture(one))


def meta_html(meta: "Meta") -> str:
    """A card of where an embedding comes from."""
    windows = "1 window" if meta.windows == 1 else f"{meta.windows:,} windows"
    facts = {
        "Place": meta.spatial,
        "Date": days_of(meta),
        "Imagery": _imagery(meta),
        "Input": f"{meta.input_px[0]} x {meta.input_px[1]} px, {windows}, {meta.input_prep}",
        "GSD": f"{meta.gsd_m:g} m per pixel, patches of {meta.patch_size} px",
        "Valid": percent(meta.valid_fraction),
        "Weights": weights_of(meta),
        "Knobs": ", ".join(f"{name}={value}" for name, value in meta.knobs.items() if value is not None),
        "Absent": ", ".join(meta.absent),
        "Created": meta.created,
        "Fingerprint": meta.fingerprint[:16],
    }
    return card(meta.model_id, _kind(meta), facts, warning=meta.warning)


def embeddings_html(many: "Embeddings") -> str:
    """A card with the first places, and with what failed."""
    done = [one for one in many if not isinstance(one, Failure)]
    failed = len(many.failures)
    metas = [one.meta for one in done]
    shapes = list(dict.fromkeys(str(one.data.shape) for one in done[:1000]))
    facts = {
        "Models": ", ".join(dict.fromkeys(meta.model_id for meta in metas[:1000])),
        "Shape": f"{shapes[0]} each" if len(shapes) == 1 else f"{len(shapes)} different shapes" if shapes else "",
        "Failed": f"{failed:,}, see .failures" if failed else "",
    }
    lines = [_line(name, one) for name, one in zip(many.ids[:_SHOWN], many[:_SHOWN], strict=True)]
    more = f"and {len(many) - _SHOWN:,} more" if len(many) > _SHOWN else ""
    below = rows(("id", "place", "date", "valid"), lines, more) if lines else ""
    warning = next((meta.warning for meta in metas if meta.warning), None)
    title = "Embeddings of 1 place" if len(many) == 1 else f"Embeddings of {len(many):,} places"
    return card(title, "", facts, warning=warning, below=below)


def _line(name: str, one: "Result") -> tuple[object, ...]:
    if isinstance(one, Failure):
        return name, f"failed: {type(one.error).__name__}", "", ""
    place = centre_of(one.geobox) if one.geobox is not None else "no place"
    return name, place, days_of(one.meta), percent(one.meta.valid_fraction)


def centre_of(geobox: GeoBox) -> str:
    """The centre in degrees, as people write it."""
    if geobox.crs is None:
        return "no CRS"
    box = geobox.boundingbox
    middle = (np.array([(box.left + box.right) / 2]), np.array([(box.bottom + box.top) / 2]))
    try:
        lon, lat = (float(values[0]) for values in project(*middle, str(geobox.crs), "EPSG:4326"))
    except (RuntimeError, ValueError):  # what pyproj raises where a CRS has no way to degrees
        return str(geobox.crs)
    if not (np.isfinite(lon) and np.isfinite(lat)):
        return str(geobox.crs)
    return f"{abs(lat):.4f}°{'N' if lat >= 0 else 'S'} {abs(lon):.4f}°{'E' if lon >= 0 else 'W'}"


def days_of(meta: "Meta") -> str:
    """The days of the scenes, else those that were asked for."""
    days = sorted({time[:10] for one in meta.inputs for time in one.scene_times if time})
    if not days:
        return meta.temporal or ""
    return days[0] if len(days) == 1 else f"{days[0]} to {days[-1]} ({len(days)} days)"


def weights_of(meta: "Meta") -> str:
    """The weights without their hash."""
    return meta.weights.partition("#")[0]


def _kind(meta: "Meta") -> str:
    how = meta.grid_kind or "tokens" if meta.output == "grid" else meta.pooling
    return f"{meta.kind} · {meta.output}" + (f" · {how}" if how else "")


def _imagery(meta: "Meta") -> str:
    found = dict.fromkeys(f"{one.collection} via {one.provider}" for one in meta.inputs)
    return "; ".join(found)


def _place(geobox: GeoBox | None, meta: "Meta") -> str:
    if geobox is None:
        return meta.spatial or "none"
    box = geobox.boundingbox
    width, height = box.right - box.left, box.top - box.bottom
    if geobox.crs is None or geobox.crs.geographic:
        size = f"{width:.3g}° x {height:.3g}°"
    else:
        size = f"{width / 1000:.3g} x {height / 1000:.3g} km"
    return f"{centre_of(geobox)}, {size}, {geobox.crs}"


def _shape(one: "Embedding") -> str:
    if not one.is_grid:
        return f"{one.data.size:,} values, {one.data.dtype}"
    dim, height, width = one.data.shape
    cell = ""
    if one.geobox is not None and one.geobox.crs is not None and not one.geobox.crs.geographic:
        cell = f", {abs(one.geobox.resolution.x):g} m per token"
    return f"{dim:,} x {height} x {width} (dimensions x rows x columns){cell}"


def _valid(one: "Embedding") -> str:
    text = percent(one.meta.valid_fraction)
    if one.is_grid and one.data.size:
        empty = int(np.isnan(one.data[0]).sum())
        return f"{text} of the pixels; {empty:,} of {one.data[0].size:,} tokens without a value" if empty else text
    return text


def _picture(one: "Embedding") -> str:
    """Principal components of a grid; bars of a vector."""
    if not one.data.size:
        return ""
    if not one.is_grid:
        return sparkline(one.data, f"{one.data.size} values")
    from rs_embed.embedding.components import pca_rgb

    step = -(-max(one.data.shape[1:]) // _PICTURE_PX)
    tokens = one.debiased().data[:, ::step, ::step]
    if not np.isfinite(tokens).all(axis=0).any():
        return ""
    return image(pca_rgb(tokens), "three principal components of the tokens as red, green and blue")
