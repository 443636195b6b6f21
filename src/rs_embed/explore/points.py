"""Vectors of many places as a page: a map, their principal components and a table, linked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from rs_embed.core.checks import require_choice
from rs_embed.errors import NoValidPixels
from rs_embed.explore.grids import about, said, told_vectors
from rs_embed.explore.packing import STORED, Blobs, bytes_of, chosen_form, components_of, have_values, pack
from rs_embed.explore.page import Page, checked_path

if TYPE_CHECKING:
    import pandas as pd

_MOST_COLUMNS = 24
"""Of a wide table, the first."""


@dataclass(frozen=True, eq=False)
class Dots:
    """Places with a vector each."""

    name: str
    when: str
    ids: Sequence[str]
    lon: NDArray[np.float64]
    """`[N]`, degrees."""
    lat: NDArray[np.float64]
    vectors: NDArray[np.float32]
    """`[N, D]`; places with NaN are left out."""
    columns: Mapping[str, "pd.Series"]
    """Further columns of the table, `[N]` each."""
    facts: Mapping[str, str]
    space: str
    warning: str | None = None


def explore_points(dots: Dots, path: str | Path, *, credit: str, stored: str = "auto", max_mb: float = 25.0) -> Path:
    """Write a page of points; see `Run.explore`.

    Raises:
        NoValidPixels: No place has a vector and a location.
        SpecError: The page would be larger than `max_mb`.
        StorageError: The path does not end in .html, or cannot be written.
    """
    require_choice("stored", stored, STORED)
    target = checked_path(path)
    there = have_values(dots.vectors) & np.isfinite(dots.lon) & np.isfinite(dots.lat)
    if not there.any():
        raise NoValidPixels(
            f"Expected places with an embedding, got none among {len(there):,}.", fix="see Run.failures()"
        )
    vectors, rows = dots.vectors[there], np.flatnonzero(there).tolist()
    how = chosen_form([(len(vectors), vectors.shape[1])], max_mb) if stored == "auto" else stored
    blobs = Blobs()
    lon, lat = _joined(dots.lon[there]), dots.lat[there]
    narrow = float(np.cos(np.radians((lat.min() + lat.max()) / 2)))
    parts, shares = components_of(vectors)
    flat = parts[:, :2] / max(float(np.abs(parts[:, :2]).max()), 1e-12)
    missing = f"{len(there) - len(rows):,} of {len(there):,} places have no embedding" if len(rows) < len(there) else ""
    facts = {**dots.facts, "Places": f"{len(rows):,}", **({"Left out": missing} if missing else {})}
    layer: dict[str, JsonValue] = {
        **said(dots.name, dots.when, dots.space, facts, dots.warning),
        **told_vectors(pack(vectors, how), np.zeros(len(vectors), bool), blobs),
        "components": blobs.add(bytes_of(parts)),
        "shares": list(shares),
        "x": blobs.add(lon * narrow),
        "y": blobs.add(lat),
        "projection": blobs.add(np.pad(flat, ((0, 0), (0, 2 - flat.shape[1])))),
        "ids": [str(dots.ids[row]) for row in rows],
        "columns": [_column(name, column.iloc[rows]) for name, column in list(dots.columns.items())[:_MOST_COLUMNS]],
    }
    title = f"{dots.name}, {len(rows):,} places"
    told: dict[str, JsonValue] = {
        "kind": "points",
        "title": title,
        "credit": credit,
        "about": about(),
        "crs": _degrees(narrow),
        "pictures": [],
        "layers": [layer],
    }
    return Page(title, told, blobs).write(target, max_mb)


def _joined(lon: NDArray[np.float64]) -> NDArray[np.float64]:
    """Longitudes without the jump of the antimeridian, if that makes them lie closer together."""
    turned = lon % 360
    return turned if np.ptp(turned) < np.ptp(lon) else lon


def _degrees(narrow: float) -> JsonValue:
    """Return the map of points as a CRS: x is the longitude, narrowed so that a circle stays one; y the latitude."""
    lonlat: JsonValue = {
        "middle": [0.0, 0.0],
        "half": [1.0, 1.0],
        "degree": 1,
        "lon": [0.0, 0.0, 1 / narrow],
        "lat": [0.0, 1.0, 0.0],
        "error_m": 0.0,
    }
    return {"name": "degrees", "epsg": None, "geographic": False, "lonlat": lonlat}


def _column(name: str, column: "pd.Series") -> JsonValue:
    """Return a column as numbers where it holds them, else as texts; missing values are null."""
    missing = column.isna().to_numpy(bool)
    if column.dtype.kind in "iuf":
        numbers = column.to_numpy(np.float64, na_value=np.nan)
        finite = np.isfinite(numbers)
        values: list[JsonValue] = [float(one) if ok else None for one, ok in zip(numbers, finite, strict=True)]
        return {"name": str(name), "kind": "number", "values": values}
    if column.dtype.kind == "M" and (column.dropna() == column.dropna().dt.normalize()).all():
        column = column.dt.strftime("%Y-%m-%d")  # days without a time
    texts: list[JsonValue] = [None if gone else str(one) for one, gone in zip(column, missing, strict=True)]
    return {"name": str(name), "kind": "text", "values": texts}
