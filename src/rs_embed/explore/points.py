"""Vectors of many places as a page: a map, their principal components and a table, linked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pydantic import JsonValue

from rs_embed.core.geo import project
from rs_embed.embedding.batch import Embeddings
from rs_embed.embedding.embedding import Embedding
from rs_embed.embedding.show import days_of
from rs_embed.errors import NoValidPixels, SpecError
from rs_embed.explore.facts import credit_of, facts_of_meta, space_of
from rs_embed.explore.grids import about, said, told_vectors
from rs_embed.explore.packing import Blobs, PageComponents, have_values, pack
from rs_embed.explore.page import PLAIN, Page, PageOptions, checked_path
from rs_embed.explore.plane import plane_of, require_projection
from rs_embed.places.kept import OURS

if TYPE_CHECKING:
    import pandas as pd

_PER_PLACE = (
    "Place",
    "Fingerprint",
    "Computed",
    "Valid pixels",
    "Days of the scenes",
    "Scenes,",
    "Remarks,",
    "Absent,",
)
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

    @classmethod
    def of(cls, many: Embeddings) -> tuple[Self, str]:
        """Make dots of the results of a batch, and the line that names their imagery.

        Raises:
            SpecError: They are grids, or come from several models.
            NoValidPixels: Every item failed.
        """
        done = [(row, one) for row, one in enumerate(many) if isinstance(one, Embedding)]
        if not done:
            raise NoValidPixels(f"Expected embeddings, got {len(many)} failures.", fix="see .failures")
        first = done[0][1]
        spaces = {_space(one) for _, one in done}
        if first.is_grid or len(spaces) > 1:
            found = "grids" if first.is_grid else f"{len(spaces)} kinds, whose axes are unrelated"
            raise SpecError(
                f"Expected vectors of one model, got {found}.",
                fix="explore one grid: embs[0].explore(), or the places of one model",
            )
        places = np.full((2, len(many)), np.nan)
        vectors = np.full((len(many), first.data.size), np.nan, np.float32)
        for row, one in done:
            vectors[row] = one.data
            if one.geobox is not None:
                places[:, row] = _middle(one.geobox)
        meta = first.meta
        frame = many.to_frame()
        columns = {str(name): frame[name] for name in frame.columns if name not in OURS or name == "valid_fraction"}
        days = sorted({day for _, one in done if (day := days_of(one.meta))})
        when = days[0] if len(days) == 1 else ""
        dots = cls(
            meta.model_id, when, many.ids, places[0], places[1], vectors, columns,
            facts=_common(facts_of_meta(meta, "")), space=_space(first), warning=meta.warning,
        )  # fmt: skip
        collections = tuple(one.collection for one in meta.inputs)
        return dots, credit_of(collections, when)


def explore_points(
    dots: Dots, path: str | Path, credit: str, projection: str = "pca", options: PageOptions = PLAIN
) -> Path:
    """Write a page of points; see `Run.explore`.

    Raises:
        NoValidPixels: No place has a vector and a location.
        SpecError: The page would be larger than `max_mb`, or there are too few places for UMAP.
        StorageError: The path does not end in .html, or cannot be written.
        MissingDependency: umap-learn is not installed.
    """
    require_projection(projection)
    target = checked_path(path)
    there = have_values(dots.vectors) & np.isfinite(dots.lon) & np.isfinite(dots.lat)
    if not there.any():
        raise NoValidPixels(
            f"Expected places with an embedding, got none among {len(there):,}.", fix="see Run.failures()"
        )
    vectors, rows = dots.vectors[there], np.flatnonzero(there).tolist()
    how = options.form([(len(vectors), vectors.shape[1])])
    blobs = Blobs()
    lon, lat = _joined(dots.lon[there]), dots.lat[there]
    narrow = float(np.cos(np.radians((lat.min() + lat.max()) / 2)))
    components = PageComponents.fit(vectors)
    plane = plane_of(vectors, components, projection)
    missing = f"{len(there) - len(rows):,} of {len(there):,} places have no embedding" if len(rows) < len(there) else ""
    told_facts = {"Places": f"{len(rows):,}", "Left out": missing, "Plane": f"{plane.text}. {plane.note}".strip()}
    facts = {**dots.facts, **{label: text for label, text in told_facts.items() if text}}
    layer: dict[str, JsonValue] = {
        **said(dots.name, dots.when, dots.space, facts, dots.warning),
        **told_vectors(pack(vectors, how), np.zeros(len(vectors), bool), blobs),
        "components": blobs.add(components.bytes(vectors)),
        "shares": list(components.shares),
        "x": blobs.add(lon * narrow),
        "y": blobs.add(lat),
        "projection": blobs.add(plane.at),
        "projected": plane.text,
        "ids": [str(dots.ids[row]) for row in rows],
        "columns": [_column(name, column.iloc[rows]) for name, column in list(dots.columns.items())[:_MOST_COLUMNS]],
    }
    title = f"{dots.name}, {len(rows):,} places"
    told: dict[str, JsonValue] = {
        "kind": "points",
        "title": title,
        "credit": credit,
        "about": about(options.tiles),
        "crs": _degrees(narrow),
        "pictures": [],
        "layers": [layer],
    }
    return Page(title, told, blobs, tiles=options.tiles).write(target, options.max_mb)


def _common(facts: Mapping[str, str]) -> dict[str, str]:
    """Facts without those that differ from place to place: of the first place, they would mislead."""
    return {name: text for name, text in facts.items() if not name.startswith(_PER_PLACE)}


def _space(one: Embedding) -> str:
    return space_of(one.meta.model_id, one.meta.card_revision, one.meta.weights, len(one.data))


def _middle(geobox: GeoBox) -> tuple[float, float]:
    """Longitude and latitude of the middle of a chip."""
    box = geobox.boundingbox
    x, y = np.array([(box.left + box.right) / 2]), np.array([(box.bottom + box.top) / 2])
    lon, lat = project(x, y, str(geobox.crs), "EPSG:4326")
    return float(lon[0]), float(lat[0])


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
