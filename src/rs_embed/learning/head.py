"""`Head`: a trained head in a small file that knows its classes, and which vectors it understands."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from rs_embed.core import display
from rs_embed.core.atomic import replacing
from rs_embed.errors import StorageError
from rs_embed.learning.heads import Fitted, HeadName
from rs_embed.learning.labels import Kind
from rs_embed.learning.origin import VectorOrigin

if TYPE_CHECKING:
    import geopandas

    from rs_embed.embedders.card import ModelCard
    from rs_embed.exports.results.embedding_map import EmbeddingMap
    from rs_embed.exports.results.map_store import Time
    from rs_embed.learning.class_map import ClassMap, Mappable
    from rs_embed.learning.predict import Predictable
    from rs_embed.pipeline.request import AcceptLicence, Backend
    from rs_embed.places import Temporal

_FIELD = "rs_embed_head"
"""The entry of the file's header with everything that is not an array."""
_VERSION = 1


@dataclass(frozen=True)
class Validation:
    """What the head scored where it was not trained: in folds that lie apart."""

    scores: Mapping[str, tuple[float, float, float]]
    """Score -> value, and the interval that holds 95 % of the draws of blocks; the first is the one that counts."""
    folds: int
    blocks: int
    notes: tuple[str, ...]
    """Why the folds are as they are, a sentence each."""
    confusion: tuple[tuple[int, ...], ...] | None = None
    """Classes only, `[K][K]`: labels of a class (row) that were predicted as a class (column)."""

    def __str__(self) -> str:
        name, (value, low, high) = next(iter(self.scores.items()))
        return f"{name} {value:.3f} [{low:.3f}, {high:.3f}] in {self.folds} folds of {self.blocks:,} blocks"


@dataclass(frozen=True)
class HeadFacts:
    """Everything about a head except its arrays."""

    head: HeadName
    kind: Kind
    outputs: int
    setting: Mapping[str, float]
    column: str
    """The column of the labels."""
    classes: tuple[str, ...]
    """Names of the classes or labels; empty for numbers."""
    colours: tuple[str, ...]
    """`#rrggbb` of each class."""
    origin: VectorOrigin
    """What made the vectors."""
    places: int
    """Number of labelled places."""
    vectors: int
    """Number of vectors: a polygon may have several tokens."""
    support: Mapping[str, int]
    """Places of each class."""
    created: str
    """ISO 8601, UTC."""
    versions: Mapping[str, str]
    validation: Validation | None = None
    request: str | None = None
    """The request for the vectors as JSON (`EmbeddingRequest`), to compute those of other places."""


_FACTS: TypeAdapter[HeadFacts] = TypeAdapter(HeadFacts)


@dataclass(frozen=True, eq=False)
class Head:
    """A classifier or regression on embeddings. `fit` makes one, `load_head` reads one.

    It knows the model, weights and settings that made its vectors, and refuses any other vectors. `print` it for its
    facts and its score.
    """

    fitted: Fitted
    """The arrays, which predict vectors."""
    facts: HeadFacts
    """Classes, origin, labels and score."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the probabilities; empty for numbers."""
        return self.facts.classes

    @property
    def kind(self) -> Kind:
        """What it predicts: "classes", "number" or "multilabel"."""
        return self.facts.kind

    @property
    def origin(self) -> VectorOrigin:
        """What made the vectors that it understands."""
        return self.facts.origin

    @property
    def validation(self) -> Validation | None:
        """Its score where it was not trained; `None` if it was not measured."""
        return self.facts.validation

    def predict(
        self,
        what: "Predictable",
        *,
        region: "EmbeddingMap | str | Path | None" = None,
        time: "Time" = None,
        model: "str | ModelCard | None" = None,
        temporal: "Temporal" = None,
        backend: "Backend" = "auto",
        buffer_m: float | None = None,
        device: str = "auto",
        accept_licence: "AcceptLicence" = None,
        progress: bool = True,
    ) -> "geopandas.GeoDataFrame":
        """Predict places: a table with one row for each, in order. Failed rows stay, with their error.

        Columns are `id`, those of your table, `predicted`, `probability` (of the predicted class), `p_...` for each
        class, `status`, `error` and `geometry`; they replace columns of yours with these names. Several labels are
        joined by ";".

        Args:
            what: Vectors that exist: an `Embedding`, `Embeddings`, a run or its folder. Or places: what `read_places`
                takes. Their vectors are read from `region`, or computed as those of the labels were.
            region: The map of `embed_region` to read places from, or its folder.
            time: Which time of the region, where it has several.
            model: Which model of the run; or the card, if the head was trained with a card of your own.
            temporal: The days of places, as in `get_embeddings`; with `backend`, `buffer_m`, `device`,
                `accept_licence` and `progress`.

        Raises:
            SpecError: The vectors have another origin, or they are a grid: that is for `map`.
            RSEmbedError: Vectors could not be computed.
        """
        from rs_embed.learning.predict import VectorSource, predict_table

        source = VectorSource(region, time, model, temporal, backend, buffer_m, device, accept_licence, progress)
        return predict_table(self, what, source)

    def map(
        self,
        what: "Mappable",
        out: str | Path | None = None,
        *,
        probabilities: str | Path | None = None,
        time: "Time" = None,
        level: int = 0,
    ) -> "ClassMap":
        """Predict every token of a grid or of a region.

        Args:
            what: A grid, or the map of a region (or its folder).
            out: A Cloud Optimized GeoTIFF to write, block by block: class 1 is the first, 0 is nodata. It holds a
                colour table; files beside it name the classes for QGIS (`.qml`) and GDAL (`.aux.xml`). Numbers become
                float32. Several labels become a band with the probability of each. Without it, the map must be small.
            probabilities: Another GeoTIFF, with a band for the probability of each class.
            time: Of a region: may be left out where the map has only one.
            level: Of a region: 0 is the map, 1 and more are overviews.

        Raises:
            SpecError: The tokens have another origin, or the map is too large without `out`.
            StorageError: A file cannot be written.
        """
        from rs_embed.learning.class_map import map_classes, tokens_of

        return map_classes(self, tokens_of(what, self, time, level), out, probabilities)

    def save(self, path: str | Path) -> Path:
        """Write the head to a `.safetensors` file: arrays and text, nothing that runs when it is read.

        Raises:
            StorageError: The path does not end in .safetensors, or cannot be written.
        """
        from safetensors.numpy import save

        path = Path(path).expanduser()
        if path.suffix != ".safetensors" or not path.parent.is_dir():
            raise StorageError(
                f"Expected a .safetensors in a folder that exists, got {str(path)!r}.", fix="choose such a name"
            )
        arrays = {name: np.ascontiguousarray(array) for name, array in self.fitted.arrays.items()}
        content = save(arrays, metadata={_FIELD: text_of(self.facts)})
        try:
            with replacing(path, durable=False) as part:
                part.write_bytes(content)
        except OSError as error:
            raise StorageError(f"Expected to write {str(path)!r}, got: {error}.", fix="check the folder") from error
        return path

    def __repr__(self) -> str:
        lines = [f"  {name + ':':<12} {text}" for name, text in self._told().items()]
        return "\n".join([f"Head({self.facts.column!r} by {self.facts.head})", *lines])

    def _repr_html_(self) -> str:
        title = f"Head for {self.facts.column!r}"
        return display.safely(
            self, lambda one: display.card(title, one.facts.head, one._told(), warning=one.origin.warning)
        )

    def _told(self) -> dict[str, str]:
        facts, origin = self.facts, self.origin
        setting = ", ".join(f"{name} = {value:g}" for name, value in facts.setting.items())
        token = "pooled vectors" if origin.token_m is None else f"tokens of {origin.token_m:g} m"
        support = ", ".join(f"{name} {count:,}" for name, count in facts.support.items())
        told = {
            "predicts": support or "numbers",
            "head": f"{facts.head}, {setting}",
            "vectors": f"{origin.model_id}, revision {origin.card_revision}, {origin.dim} dimensions, {token}",
            "labels": f"{facts.places:,} places, {facts.vectors:,} vectors",
            "score": "not measured" if facts.validation is None else str(facts.validation),
            "weights": origin.weights or "not recorded",
            "warning": origin.warning or "",
        }
        return {name: text for name, text in told.items() if text}


def load_head(path: str | Path) -> Head:
    """Read a head that `Head.save` wrote. Nothing in the file is executed.

    Raises:
        StorageError: It does not exist, or is not such a file.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path).expanduser()
    try:
        with safe_open(path, framework="numpy") as file:
            facts = facts_of((file.metadata() or {}).get(_FIELD))
            arrays: dict[str, NDArray[np.generic]] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise StorageError(
            f"Expected a head at {str(path)!r}, got none ({type(error).__name__}: {error}).",
            fix="give the file that Head.save or rs-embed fit wrote",
        ) from error
    return Head(Fitted(facts.head, facts.kind, facts.outputs, facts.setting, _checked(arrays, facts, path)), facts)


def text_of(facts: HeadFacts) -> str:
    """Return facts as JSON."""
    return json.dumps({"version": _VERSION, "facts": _FACTS.dump_python(facts, mode="json")})


def facts_of(text: str | None) -> HeadFacts:
    """Read facts that `text_of` wrote.

    Raises:
        ValueError: There are none, or they are of a later version; also `KeyError` and `TypeError`.
    """
    if text is None:
        raise ValueError("its header tells of no head")
    written = json.loads(text)
    if written["version"] > _VERSION:
        raise ValueError(f"a later version of rs_embed wrote it, in format {written['version']}")
    return _FACTS.validate_python(written["facts"])


def _checked(arrays: dict[str, NDArray[np.generic]], facts: HeadFacts, path: Path) -> dict[str, NDArray[np.generic]]:
    """Check that the arrays have the shapes that the facts tell."""
    dim, outputs = facts.origin.dim, facts.outputs
    found = {name: array.shape for name, array in arrays.items()}
    wanted: dict[str, tuple[int, ...]]
    if facts.head == "knn":
        count = found.get("vectors", (0,))[0]
        wanted = {"vectors": (count, dim), "targets": (count, outputs) if facts.kind == "multilabel" else (count,)}
    else:
        wanted = {"mean": (dim,), "scale": (dim,), "weights": (outputs, dim), "bias": (outputs,)}
    named = len(facts.classes) == len(facts.colours) == (0 if facts.kind == "number" else outputs)
    if found != wanted or not named:
        raise StorageError(f"Expected arrays {wanted} in {str(path)!r}, got {found}.", fix="fit the head again")
    return arrays
