"""Which places to label next: those of which a head is least sure, unlike each other."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rs_embed.core.atomic import part_of
from rs_embed.core.checks import require_number, require_whole
from rs_embed.core.geo import pixel_size_m, project
from rs_embed.core.optional import require
from rs_embed.embedding.points import cells_of
from rs_embed.errors import NoValidPixels, StorageError
from rs_embed.exports.results.map_level import Cells, ground
from rs_embed.learning.class_map import Mappable, MapTokens, tokens_of
from rs_embed.learning.footprints import on_sphere
from rs_embed.learning.heads import unit
from rs_embed.learning.labels import Labels
from rs_embed.learning.palette import colours_of
from rs_embed.learning.predict import names_of
from rs_embed.learning.qgis import label_form
from rs_embed.learning.sampling import places_of
from rs_embed.places import Given

if TYPE_CHECKING:
    import geopandas

    from rs_embed.exports.results.map_store import Time
    from rs_embed.learning.head import Head

_CANDIDATES = 8192
"""Tokens drawn at random from the map, among which the suggestions are found."""
_WINDOWS = 64
"""Windows that the sample is drawn from, if they hold enough tokens."""
_UNSURE = 20
"""With a head, only the least sure candidates count: so many for each suggestion, but no fewer than a tenth."""


def suggest_labels(
    what: Mappable,
    head: "Head | None" = None,
    *,
    count: int = 20,
    known: "Given | Labels | None" = None,
    apart_m: float = 0.0,
    time: "Time" = None,
    seed: int = 0,
    column: str | None = None,
    classes: Sequence[str] = (),
    out: str | Path | None = None,
) -> "geopandas.GeoDataFrame":
    """Suggest places to label next, the most useful first.

    With a head, candidates are the tokens of which it is least sure. Each suggestion is the candidate that is least
    like those before it, and least like the labels that you have. Without a head, all tokens are candidates: a start
    that covers the variety of the area.

    Args:
        what: A grid, or the map of a region, or its file or folder.
        head: The head to improve; it must have been trained on such tokens.
        count: Number of suggestions.
        known: The places that have labels already, as a table or as labels: places unlike them come first.
        apart_m: Least distance between two suggestions, metres.
        time: Of a region: may be left out where the map has only one.
        seed: Of the random sample of tokens.
        column: Name of the empty column to fill in; by default the one of the head, or "label".
        classes: Names to choose from in QGIS; by default those of the head.
        out: A GeoPackage to write (.gpkg), with a form for QGIS that offers the classes. Fill in the column, save, and
            read it with `read_labels(out, column)`, which leaves out the rows without a label.

    Returns:
        Points (degrees), one row for each: `id`, the empty column, `predicted` and `uncertainty` (with a head of
        classes or labels), `cell_m` (side of the token around the point).

    Raises:
        SpecError: The tokens have another origin, or an argument is invalid.
        NoValidPixels: There is no token with a value.
        StorageError: The file cannot be written.
    """
    require("geopandas", "export")
    import geopandas

    require_whole("count", count, 1, 10_000)
    require_number("apart_m", apart_m, 0, 1e7)
    path = None if out is None else _new(out)
    tokens = tokens_of(what, head, time, 0)
    if head is not None:
        head.origin.require(tokens.origin)
    names = tuple(classes) or (head.classes if head else ())
    field = column or (head.facts.column if head else "label")
    found = _candidates(tokens, seed)
    answers = None if head is None else head.fitted.answers(found.vectors)
    unsure = None if head is None or answers is None else _uncertainty(head, answers)
    nearby = np.empty((0, found.vectors.shape[1]), np.float32) if known is None else _under(tokens, known)
    chosen = _spread(found, unsure, nearby, count, apart_m)
    columns: dict[str, object] = {"id": [str(number + 1) for number in range(len(chosen))], field: [None] * len(chosen)}
    if head is not None and answers is not None:
        columns["predicted"] = names_of(head, answers[chosen].astype(np.float32))
    if unsure is not None:
        columns["uncertainty"] = unsure[chosen]
    columns["cell_m"] = pixel_size_m(tokens.geobox)
    points = geopandas.points_from_xy(found.lon[chosen], found.lat[chosen], crs="EPSG:4326")
    frame = geopandas.GeoDataFrame(columns, geometry=points)
    frame[field] = frame[field].astype(object)
    if path is not None:
        _write(frame, path, field, names)
    return frame


@dataclass(frozen=True, eq=False)
class _Candidates:
    """A random sample of the tokens of a map."""

    vectors: NDArray[np.float32]
    """`[M, D]`."""
    lon: NDArray[np.float64]
    """Of the middle of the token, degrees."""
    lat: NDArray[np.float64]


def _candidates(tokens: MapTokens, seed: int) -> _Candidates:
    draw = np.random.default_rng(seed)
    windows = list(tokens.windows())
    each = -(-_CANDIDATES // max(1, min(len(windows), _WINDOWS)))
    vectors: list[NDArray[np.float32]] = []
    places: list[NDArray[np.float64]] = []
    for number in draw.permutation(len(windows)).tolist():
        cells = windows[number]
        values = tokens.read(cells)
        rows, cols = np.nonzero(np.isfinite(values).all(axis=-1))
        some = np.sort(draw.permutation(len(rows))[:each])
        vectors.append(values[rows[some], cols[some]])
        places.append(np.stack([rows[some] + cells.row + 0.5, cols[some] + cells.col + 0.5]))
        if sum(map(len, vectors)) >= _CANDIDATES:
            break
    if not sum(map(len, vectors)):
        raise NoValidPixels("Expected tokens with a value, got none.", fix="choose another place or time")
    row, col = np.concatenate(places, axis=1)
    lon, lat = project(*ground(tokens.geobox, row, col), str(tokens.geobox.crs), "EPSG:4326")
    return _Candidates(np.concatenate(vectors), lon, lat)


def _uncertainty(head: "Head", answers: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Return 0 (sure) to 1: how close the two most probable classes are, or labels are to one half."""
    if head.kind == "number":
        return None
    if head.kind == "multilabel":
        return np.asarray(1 - np.abs(2 * answers - 1).mean(axis=1))
    two = np.sort(answers, axis=1)[:, -2:]
    return np.asarray(1 - (two[:, 1] - two[:, 0]))


def _under(tokens: MapTokens, known: "Given | Labels") -> NDArray[np.float32]:
    """Return the tokens under the places that lie on the map, `[n, D]`."""
    places = known.places if isinstance(known, Labels) else places_of(known, half_m=1.0)
    rows, cols = cells_of(tokens.geobox, *places.centres())
    found = [
        tokens.read(Cells(row, col, 1, 1))[0] for row, col in zip(rows.tolist(), cols.tolist(), strict=True) if row >= 0
    ]
    values = np.concatenate(found) if found else np.empty((0, tokens.origin.dim), np.float32)
    return values[np.isfinite(values).all(axis=1)]


def _spread(
    found: _Candidates, unsure: NDArray[np.float64] | None, known: NDArray[np.float32], count: int, apart_m: float
) -> NDArray[np.intp]:
    """Choose candidates one by one: each the least similar to those before it and to the known ones.

    Similarity is the cosine of vectors less the mean of all candidates, without which all vectors of a model are alike.
    """
    pool = np.arange(len(found.vectors))
    if unsure is not None:
        size = max(_UNSURE * count, len(pool) // 10)
        pool = np.argsort(-unsure, kind="stable")[:size]
    mean = found.vectors.mean(axis=0, dtype=np.float64)
    vectors, others = unit(found.vectors[pool] - mean), unit(known - mean)
    where = on_sphere(found.lon[pool], found.lat[pool])
    nearest = (vectors @ others.T).max(axis=1) if len(others) else np.full(len(pool), -np.inf)
    free = np.ones(len(pool), bool)
    chosen: list[int] = []
    while len(chosen) < count and free.any():
        # without labels, the first is the least sure (the pool is in that order), or any: the sample is random
        best = int(np.where(free, nearest, np.inf).argmin())
        chosen.append(best)
        nearest = np.maximum(nearest, vectors @ vectors[best])
        free &= np.linalg.norm(where - where[best], axis=1) >= apart_m
        free[best] = False
    return pool[chosen]


def _new(out: str | Path) -> Path:
    path = Path(out).expanduser()
    if path.suffix.lower() != ".gpkg" or not path.parent.is_dir():
        raise StorageError(f"Expected a .gpkg in a folder that exists, got {str(path)!r}.", fix="choose such a name")
    if path.exists():
        raise StorageError(
            f"Expected a new file, got {str(path)!r}, which may hold labels.", fix="choose another name, or remove it"
        )
    return path


def _write(frame: "geopandas.GeoDataFrame", path: Path, field: str, classes: tuple[str, ...]) -> None:
    part = part_of(path)
    try:
        frame.astype({field: "string"}).to_file(part, driver="GPKG", layer=path.stem)
        os.replace(part, path)
    except (OSError, RuntimeError) as error:
        raise StorageError(f"Expected to write {str(path)!r}, got: {error}.", fix="check the folder") from error
    finally:
        part.unlink(missing_ok=True)
    label_form(path, field, classes, colours_of(classes))
