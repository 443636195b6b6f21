"""Predictions of places: one row each, with probabilities, and failed rows with their error."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from rs_embed.core.optional import require
from rs_embed.core.specs import OutputSpec
from rs_embed.embedders.card import ModelCard
from rs_embed.embedding.batch import Embeddings
from rs_embed.embedding.embedding import Embedding
from rs_embed.errors import Failure, SpecError
from rs_embed.exports.results.embedding_map import EmbeddingMap
from rs_embed.exports.results.open_region import open_region
from rs_embed.exports.results.run import Run, open_run
from rs_embed.formats.base import Row
from rs_embed.formats.footprint import Footprint, footprint, footprint_of
from rs_embed.learning.labels import Kind
from rs_embed.learning.origin import VectorOrigin
from rs_embed.learning.sampling import Vectors, computed, context_m, in_region, of_run, places_of
from rs_embed.pipeline.request import AcceptLicence, Backend, EmbeddingRequest
from rs_embed.places import Given, Temporal
from rs_embed.places.kept import OURS, frame_of

if TYPE_CHECKING:
    import geopandas
    import pandas as pd
    import shapely

    from rs_embed.exports.results.map_store import Time
    from rs_embed.learning.head import Head

Predictable: TypeAlias = "Embedding | Embeddings | Run | Given"
"""What a head predicts as a table."""


@dataclass(frozen=True)
class VectorSource:
    """Where the vectors of places come from; see `Head.predict`."""

    region: EmbeddingMap | str | Path | None = None
    time: "Time" = None
    model: str | ModelCard | None = None
    temporal: Temporal = None
    backend: Backend = "auto"
    buffer_m: float | None = None
    device: str = "auto"
    accept_licence: AcceptLicence = None
    progress: bool = True


def predict_table(head: "Head", what: Predictable, source: VectorSource) -> "geopandas.GeoDataFrame":
    """See `Head.predict`."""
    require("geopandas", "export")
    import geopandas
    import pandas as pd

    if isinstance(what, EmbeddingMap) or (isinstance(what, Embedding) and what.is_grid):
        raise SpecError(
            "Expected places or vectors, got a grid or the map of a region.",
            fix='head.map(grid, "classes.tif") predicts all of it; head.predict(points, region=map) some places',
        )
    if isinstance(what, Embedding):
        what = Embeddings([what], ["0"])
    if isinstance(what, str | Path) and Path(what).is_dir():
        what = open_run(what)
    if isinstance(what, Embeddings):
        frame, shapes, vectors = _of_embeddings(what)
    elif isinstance(what, Run):
        whole, vectors = of_run(what, cast("str | None", source.model))
        shapes, names = list(whole.geometry), [name for name in whole.columns if name == "id" or name not in OURS]
        frame = pd.DataFrame(whole[names])
    else:
        frame, shapes, vectors = _of_places(head, what, source)
    if vectors.origin is not None:
        head.origin.require(vectors.origin)
    table = pd.concat([frame.reset_index(drop=True), pd.DataFrame(predicted(head, vectors))], axis=1)
    table = table.loc[:, ~table.columns.duplicated(keep="last")]
    return geopandas.GeoDataFrame(table, geometry=shapes, crs="EPSG:4326")


def predicted(head: "Head", vectors: Vectors) -> dict[str, object]:
    """Return the columns that a head adds to a table; a place of several vectors gets the mean of its answers."""
    count = len(vectors.values)
    answers = np.full((count, head.fitted.outputs), np.nan, np.float32)
    if vectors.origin is not None and any(map(len, vectors.values)):
        x, place = vectors.stacked()
        answers[np.unique(place)] = means(head.fitted.answers(x), place, count)[np.unique(place)]
    there = np.isfinite(answers).all(axis=1)
    columns: dict[str, object] = {"predicted": names_of(head, answers)}
    if head.kind == "classes":
        columns["probability"] = np.where(there, np.nan_to_num(answers).max(axis=1), np.nan).astype(np.float32)
    columns |= {f"p_{name}": answers[:, number] for number, name in enumerate(head.classes)}
    errors = [vectors.errors.get(row) for row in range(count)]
    return columns | {"status": ["failed" if one else "ok" for one in errors], "error": errors}


def names_of(head: "Head", answers: NDArray[np.float32]) -> list[str | float | None]:
    """Return the class, the labels joined by ";", or the number of each row of answers `[N, K]`; `None` for NaN."""
    names = head.classes
    decision = decided(answers, head.kind)
    found: list[str | float | None] = []
    for answer, one in zip(answers, decision, strict=True):
        if not np.isfinite(answer).all():
            found.append(None)
        elif head.kind == "classes":
            found.append(names[int(one)])
        else:
            found.append(float(one) if head.kind == "number" else ";".join(np.array(names, object)[one]))
    return found


def decided(answers: NDArray[np.float32], kind: Kind) -> NDArray[np.generic]:
    """Return what float32 answers `[..., K]` mean, `[...]` or `[..., K]`, the same in tables and in maps.

    The most probable class (the first of equals), the labels above one half, or the number. NaN becomes any class.
    """
    if kind == "classes":
        return np.asarray(np.nan_to_num(answers).argmax(axis=-1))
    return answers > 0.5 if kind == "multilabel" else answers[..., 0]


def means(values: NDArray[np.float64], place: NDArray[np.intp], count: int) -> NDArray[np.float64]:
    """Return the mean of the values `[M, K]` of each place, `[count, K]`; 0 for places without."""
    sums = np.zeros((count, values.shape[1]))
    np.add.at(sums, place, values)
    mean: NDArray[np.float64] = sums / np.maximum(np.bincount(place, minlength=count), 1)[:, None]
    return mean


def _of_embeddings(many: Embeddings) -> "tuple[pd.DataFrame, list[Footprint | None], Vectors]":
    vectors, shapes = Vectors(), list[Footprint | None]()
    for one in many:
        if isinstance(one, Failure):
            vectors.add(one.error)
            shapes.append(None)
            continue
        if one.is_grid:
            raise SpecError("Expected vectors, got grids.", fix="head.map(grid) predicts the tokens of one grid")
        vectors.add_origin(VectorOrigin.of(one))
        vectors.add(one.data[None])
        shapes.append(None if one.geobox is None else footprint_of(one.geobox))
    frame = many.to_frame()
    frame = frame[[name for name in frame.columns if name not in OURS]]
    return frame.reset_index(), shapes, vectors


def _of_places(
    head: "Head", what: Given, source: VectorSource
) -> "tuple[pd.DataFrame, list[shapely.Geometry | None], Vectors]":
    import pandas as pd
    import shapely

    if source.region is not None:
        region = source.region if isinstance(source.region, EmbeddingMap) else open_region(source.region)
        head.origin.require(VectorOrigin.of_map(region))
        places = places_of(what, source.temporal, region.cell_m / 2)
        vectors = in_region(places, region, source.time)
    else:
        request = _request(head, source)
        tokens = request.output.kind == "grid"
        places = places_of(what, source.temporal, source.buffer_m or (context_m(request) if tokens else None))
        vectors = computed(places, request, progress=source.progress)
    ids = pd.Series([place.id for place in places], name="id", dtype=object)
    shapes = [
        shapely.Point(lon, lat)
        if np.isfinite(lon)
        else footprint(Row(place.index, place.id, place.spatial, None, None))
        for place, lon, lat in zip(places, places.lon, places.lat, strict=True)
    ]
    return pd.concat([ids, frame_of([place.kept for place in places])], axis=1), shapes, vectors


def _request(head: "Head", source: VectorSource) -> EmbeddingRequest:
    """Return the request for vectors like those of the head: its own, or one with the same model and knobs."""
    origin = head.origin
    if head.facts.request is not None:
        request = EmbeddingRequest.from_json(head.facts.request)
    else:
        knobs = {name: value for name, value in origin.knobs.items() if name != "modality"}
        pooled = OutputSpec.pooled("max" if (origin.pooling or "").endswith("max") else "mean")
        grid = OutputSpec.grid(debias="none" if origin.debiased is False else "position")
        request = EmbeddingRequest(
            model_id=origin.model_id,
            knobs=knobs,
            modality=str(origin.knobs["modality"]) if "modality" in origin.knobs else None,
            output=grid if origin.output == "grid" else pooled,
            input_prep="tile" if origin.output == "grid" else "auto",
        )
    changed: dict[str, object] = {"backend": source.backend, "device": source.device}
    changed |= {"accept_licence": source.accept_licence} if source.accept_licence else {}
    changed |= {"model_id": source.model} if source.model is not None else {}
    return request.model_copy(update=changed)
