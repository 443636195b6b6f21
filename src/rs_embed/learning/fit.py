"""`fit`: train a head on labelled places, and measure it where it was not trained."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rs_embed.core.optional import require
from rs_embed.core.specs import OutputSpec, Precision
from rs_embed.embedders.card import ModelCard
from rs_embed.errors import ChoiceWarning, SpecError, warn
from rs_embed.exports.results.embedding_map import EmbeddingMap
from rs_embed.exports.results.open_region import open_region
from rs_embed.exports.results.run import Run
from rs_embed.learning.crossval import HeadChoice, one_thread
from rs_embed.learning.folds import FOLDS, Blocks, Fold, Folds, make_folds
from rs_embed.learning.head import Head, HeadFacts, Validation
from rs_embed.learning.heads import Targets, search
from rs_embed.learning.labels import Kind, Labels, read_labels
from rs_embed.learning.origin import VectorOrigin
from rs_embed.learning.palette import colours_of
from rs_embed.learning.predict import means
from rs_embed.learning.sampling import Vectors, computed, context_m, in_region, of_run, with_size
from rs_embed.learning.scores import Draws, Predicted, intervals, scores_of
from rs_embed.pipeline.request import AcceptLicence, Backend, Bands, EmbeddingRequest, KnobValue, Modalities, Sensors
from rs_embed.places import Given, Temporal

if TYPE_CHECKING:
    from rs_embed.core.specs import InputPrep
    from rs_embed.exports.results.map_store import Time

FEW = 30
"""Number of labels below which a score says little."""
TOKENS = OutputSpec.grid(debias="position")
"""The tokens that maps of `embed_region` consist of, unless asked otherwise."""


def fit(
    labels: "Given | Labels | Run",
    label: str | Sequence[str] | None = None,
    *,
    model: str | ModelCard | None = None,
    region: EmbeddingMap | str | Path | None = None,
    head: HeadChoice = "auto",
    kind: Kind | None = None,
    temporal: Temporal = None,
    output: OutputSpec = TOKENS,
    backend: Backend = "auto",
    buffer_m: float | None = None,
    time: "Time" = None,
    sensor: Sensors = None,
    modality: Modalities = None,
    bands: Bands = None,
    input_prep: "InputPrep" = "auto",
    device: str = "auto",
    precision: Precision = "fp32",
    accept_licence: AcceptLicence = None,
    blocks: Blocks = "auto",
    groups: str | None = None,
    folds: int = FOLDS,
    seed: int = 0,
    colours: Mapping[str, str] | None = None,
    progress: bool = True,
    **knobs: KnobValue,
) -> Head:
    """Train a head on labelled places. It predicts places (`Head.predict`) and maps (`Head.map`).

    Vectors come from one of three sources: a `model`, which computes them; the map of a `region`, which is only read;
    or a run of `export_embeddings`, whose table has the column of labels.

    A map consists of tokens, so with `model` the head is trained on tokens: the one under each point, up to 16 inside
    each polygon. For a head that predicts whole places, such as fields, pass `output=OutputSpec.pooled()`.

    The head is chosen and tuned in spatial folds, and its score comes from folds in which it was not trained.

    Args:
        labels: A table of points or polygons with a column of labels, as for `read_labels`; what `read_labels` has
            read; or a run.
        label: The column of the labels, or several of 0 and 1. Not needed for labels already read.
        model: Id, alias or card of the model. For a run of several models: which one.
        region: The map of `embed_region` to read tokens from, or its folder.
        head: "knn", "logistic" (classes), "ridge" (numbers), or "auto" for the one that predicts best in the folds.
        kind: "classes", "number" or "multilabel", if the column does not say.
        temporal: The window of days, if the table has none; as in `get_embeddings`.
        output: `OutputSpec.grid()` for tokens, `OutputSpec.pooled()` for a vector per place.
        backend: Where imagery comes from; as in `get_embeddings`, with `sensor`, `modality`, `bands`, `input_prep`,
            `device`, `precision`, `accept_licence` and the model's knobs. For tokens, `input_prep` is "tile", as for
            maps.
        buffer_m: Half the side of the square around a point, metres. For tokens: the imagery that the model sees around
            it; by default its whole window. (The buffer of labels already read counts for pooled vectors only.)
        time: Which time of the region, where the map has several.
        blocks: Side of the spatial blocks of the folds, metres. "auto" takes the distance up to which labels are alike;
            `head.validation.notes` tells why. "random" ignores where places lie: its scores are too optimistic.
        groups: A column of groups instead: places of one farm or scene are never in training and test.
        folds: Number of folds.
        seed: Of random choices.
        colours: Class -> "#rrggbb"; the others get colours that are easy to tell apart.
        progress: Show a bar on a terminal or in a notebook.

    Raises:
        SpecError: The labels or arguments are invalid, or no place has a vector.
        RSEmbedError: The vectors could not be computed.
        MissingDependency: scikit-learn, or the extra `export`, is not installed.
    """
    require("sklearn", "ml")
    require("shapely", "export")
    request: EmbeddingRequest | None = None
    imagery = {"sensor": sensor, "modality": modality, "bands": bands, "buffer_m": buffer_m, **knobs}
    if isinstance(labels, Run):
        _refuse("a run", region=region, temporal=temporal, **imagery)
        read, vectors = _from_run(labels, label, kind, model, groups)
    elif region is not None:
        _refuse("a region", model=model, **imagery)
        opened = region if isinstance(region, EmbeddingMap) else open_region(region)
        read = _read(labels, label, kind, temporal, opened.cell_m / 2)
        vectors = in_region(read.places, opened, time)
    elif model is not None:
        grids = output.kind == "grid"
        request = EmbeddingRequest(
            model_id=model,
            knobs=knobs,
            output=output,
            backend=backend,
            sensor=sensor,
            modality=modality,
            bands=bands,
            input_prep="tile" if grids and input_prep == "auto" else input_prep,
            device=device,
            precision=precision,
            accept_licence=accept_licence,
        )
        read = _read(labels, label, kind, temporal, buffer_m or (context_m(request) if grids else None))
        vectors = computed(read.places, request, progress=progress)
    else:
        raise SpecError(
            "Expected a source of vectors, got none.",
            fix='model="mosaiks_rcf" computes them; region=<the folder of a map> reads them; or pass a run',
        )
    training = _Training.of(read, vectors)
    cut = training.folds(blocks, groups, folds, seed)
    with one_thread():
        validation = None if cut is None else training.validated(head, cut, seed)
        fitted = search(head, training.x, training.targets, [] if cut is None else training.of_vectors(cut.splits()))
    return Head(
        fitted,
        HeadFacts(
            head=fitted.head,
            kind=fitted.kind,
            outputs=fitted.outputs,
            setting=fitted.setting,
            column=training.labels.column,
            classes=training.labels.classes,
            colours=colours_of(training.labels.classes, colours),
            origin=training.origin,
            places=len(training.labels),
            vectors=len(training.x),
            support=training.labels.support(),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            versions={"python": python_version()} | {name: version(package) for name, package in _PACKAGES.items()},
            validation=validation,
            request=None if request is None else _lasting(request),
        ),
    )


@dataclass(frozen=True, eq=False)
class _Training:
    """Vectors and labels, each vector with its place."""

    labels: Labels
    """The labelled places that have vectors."""
    x: NDArray[np.float32]
    """`[M, D]`."""
    place: NDArray[np.intp]
    """`[M]`: which of the labelled places it is of."""
    origin: VectorOrigin

    @classmethod
    def of(cls, labels: Labels, vectors: Vectors) -> "_Training":
        """Match vectors with labels; places without a vector are left out, with a warning."""
        x, place = vectors.stacked()
        there, place = np.unique(place, return_inverse=True)
        if vectors.errors:
            first, why = next(iter(vectors.errors.items()))
            warn(
                f"{len(vectors.errors):,} of {len(labels):,} labelled places have no vector and are left out; "
                f"row {labels.places.rows[first]}: {why}",
                ChoiceWarning,
            )
        labels, origin = labels.take(there), vectors.known_origin
        if (labels.targets == labels.targets[:1]).all():
            raise SpecError(
                f"Expected at least two different labels, got one in all {len(labels):,} places with a vector.",
                fix="add places with other labels",
            )
        if labels.kind == "multilabel":  # several labels describe a place as a whole
            x, place = means(x.astype(np.float64), place, len(labels)).astype(np.float32), np.arange(len(labels))
        if origin.token_m is not None:  # for folds, a point is as large as its token
            labels = _sized(labels, origin.token_m / 2)
        if origin.warning:
            warn(f"The weights of {origin.model_id} are random ({origin.warning}): so are its vectors.", ChoiceWarning)
        return cls(labels, x, place, origin)

    @property
    def targets(self) -> Targets:
        """The target of each vector."""
        return Targets.of(self.labels).rows(self.place)

    def folds(self, blocks: Blocks, groups: str | None, count: int, seed: int) -> Folds | None:
        """Cut the places into folds; `None` where they are too few or too near to each other for automatic ones."""
        if len(self.labels) < FEW:
            warn(f"There are only {len(self.labels)} labels: a score from fewer than {FEW} says little.", ChoiceWarning)
        try:
            return make_folds(self.labels, blocks=blocks, groups=groups, folds=count, seed=seed)
        except SpecError as error:
            if blocks != "auto" or groups is not None:
                raise
            warn(f"The head is not tuned, and its score not measured: {error.headline}", ChoiceWarning)
            return None

    def of_vectors(self, splits: Sequence[Fold], among: NDArray[np.intp] | None = None) -> list[Fold]:
        """Turn folds of places into folds of their vectors; `among` are the places that indices count."""
        which = np.arange(len(self.labels)) if among is None else among
        own = self.place if among is None else self.place[self.rows(among)]
        return [(_where(own, which[train]), _where(own, which[test])) for train, test in splits]

    def rows(self, places: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return the vectors of some places."""
        return _where(self.place, places)

    def validated(self, head: HeadChoice, folds: Folds, seed: int) -> Validation:
        """Score the head in folds in which it is neither tuned nor trained."""
        whole = Targets.of(self.labels)
        answers = np.zeros((len(self.labels), whole.outputs))
        for train, test in folds.splits():
            rows, tested = self.rows(train), self.rows(test)
            inner = self.of_vectors(folds.inner(train), train)
            fitted = search(head, self.x[rows], whole.rows(self.place[rows]), inner)
            answers[test] = means(fitted.answers(self.x[tested]), self.place[tested], len(self.labels))[test]
        found = Predicted(self.labels.kind, self.labels.targets, answers)
        scores = intervals(scores_of(found, Draws.of(folds.block, seed)))
        return Validation(
            scores={name: (one.value, one.low, one.high) for name, one in scores.items()},
            folds=folds.count,
            blocks=int(folds.block.max()) + 1,
            notes=folds.notes,
            confusion=_rows(found.confusion()) if found.kind == "classes" else None,
        )


def _rows(matrix: NDArray[np.int64]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(row) for row in matrix.tolist())


def _where(values: NDArray[np.intp], wanted: NDArray[np.intp]) -> NDArray[np.intp]:
    return np.flatnonzero(np.isin(values, wanted))


def _refuse(source: str, **options: object) -> None:
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise SpecError(
            f"Expected {', '.join(given)} only beside a model, got it beside {source}, whose vectors exist.",
            fix="leave it out",
        )


def _from_run(
    run: Run, label: str | Sequence[str] | None, kind: Kind | None, model: str | ModelCard | None, groups: str | None
) -> tuple[Labels, Vectors]:
    if model is not None and not isinstance(model, str):
        raise SpecError("Expected the id of a model of the run, got a card.", fix="model=card.id")
    frame, vectors = of_run(run, model)
    named = _required(label)
    wanted = ["geometry", *([named] if isinstance(named, str) else named), *([groups] if groups else [])]
    read = read_labels(frame[[name for name in wanted if name in frame]], named, kind=kind)
    return read, vectors.take(read.places.rows)


def _read(
    labels: "Given | Labels",
    label: str | Sequence[str] | None,
    kind: Kind | None,
    temporal: Temporal,
    half_m: float | None,
) -> Labels:
    if isinstance(labels, Labels):
        return labels if half_m is None else _sized(labels, half_m)
    table, half_m = with_size(labels, half_m)
    return read_labels(table, _required(label), kind=kind, temporal=temporal, buffer_m=half_m)


def _sized(labels: Labels, half_m: float) -> Labels:
    """Give all points a square of half the side `half_m`, metres."""
    places = labels.places
    return replace(labels, places=replace(places, buffer_m=np.where(np.isnan(places.lon), np.nan, half_m)))


def _required(label: str | Sequence[str] | None) -> str | Sequence[str]:
    if label is None:
        raise SpecError("Expected the column of the labels, got none.", fix='for example label="crop"')
    return label


def _lasting(request: EmbeddingRequest) -> str | None:
    """Return a request as JSON, without its backend; `None` if the model is a card, which JSON cannot hold."""
    if not isinstance(request.model_id, str):
        return None
    return request.model_copy(update={"backend": "auto", "device": "auto"}).to_json()


_PACKAGES: Mapping[str, str] = {"rs_embed": "eo-rs-embed", "numpy": "numpy", "scikit-learn": "scikit-learn"}
