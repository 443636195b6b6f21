"""Vectors of several models for the same places: computed once, over one fetch, and kept as runs.

Models that share imagery form one run of `export_embeddings`, so a call that was stopped goes on, and a place that
fails is a row with its error. A later call with other models computes only what no run holds yet.
"""

import json
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from rs_embed.core.atomic import replacing, storing
from rs_embed.core.hashing import json_digest
from rs_embed.core.settings import LibrarySettings, WeightsKnobs
from rs_embed.core.specs import Precision
from rs_embed.embedders.choosing import download_mb, download_text
from rs_embed.embedders.licences import strictest
from rs_embed.embedding.embedding import Embedding
from rs_embed.errors import RSEmbedWarning
from rs_embed.exports.call import export_embeddings
from rs_embed.exports.results.run import Run, open_run
from rs_embed.exports.unit_writer import slug
from rs_embed.learning.baselines import ADAPTER
from rs_embed.learning.one_fetch import OneFetch
from rs_embed.learning.variants import Part
from rs_embed.pipeline.request import AcceptLicence, Backend, EmbeddingRequest
from rs_embed.places import Places
from rs_embed.plan import Plan, backend_for
from rs_embed.providers import open_provider
from rs_embed.providers.base import Provider
from rs_embed.providers.cached import CachedProvider
from rs_embed.providers.common.checked import Checked

TIMED = 4
"""Places on which the time of a model is measured."""
_REPEATS, _TIMING_S = 5, 2.0
"""How often it is measured at most, and for how long."""
_PARTS = "parts.json"


@dataclass(frozen=True)
class Cost:
    """What the vector of a place costs."""

    seconds: float | None
    """Seconds a place, without fetching, measured here; `None` if no place could be timed."""
    imagery_mb: float
    """Pixels that are read for a place, MB, at 16 bits per value."""
    download: str
    """The weights: "4.2 MB", "bundled", "none"."""
    download_mb: float
    licence: str
    """Class of the licence: "permissive", "non-commercial", ..."""
    licence_id: str
    """Empty for band statistics, which no licence covers."""


@dataclass(frozen=True, eq=False)
class Computed:
    """The vectors of one part."""

    part: Part
    vectors: NDArray[np.float32]
    """`[N, D]`, in the order of the places; NaN where it failed."""
    errors: Mapping[int, str]
    """Index of a place -> why it failed."""
    cost: Cost
    weights: str
    run: Path
    """The folder of the run, with one of this model in it."""
    folder: str
    """The model's name in the run."""

    @property
    def is_random(self) -> bool:
        """Whether the weights are random."""
        return self.weights.startswith("random:")


@dataclass(frozen=True)
class ImagerySource:
    """Where imagery comes from, and how models run."""

    backend: Backend = "auto"
    device: str = "auto"
    precision: Precision = "fp32"
    accept_licence: AcceptLicence = None


@dataclass(frozen=True, eq=False)
class Planned:
    """A part that can run."""

    part: Part
    plan: Plan
    key: str
    """sha256 of everything that determines the vectors and is known in advance."""
    backend: Backend


def planned(part: Part, places: Places, source: ImagerySource) -> Planned:
    """Check whether a part can run, before anything is loaded or fetched.

    Raises:
        RSEmbedError: The request is invalid, a licence is not accepted, or the backend lacks an input.
    """
    request = EmbeddingRequest(
        model_id=part.card,
        knobs=part.knobs,
        output=part.output,
        modality=part.modality,
        input_prep=part.input_prep,
        backend=source.backend,
        device=source.device,
        precision=source.precision,
        accept_licence=source.accept_licence,
    )
    plan = Plan.laid(request, [], [])
    backend = backend_for(source.backend, [part.card])
    plan.job_with(Checked(open_provider(backend)))
    checkpoint = getattr(plan.model.knobs, "ckpt", None)
    stamp = None if checkpoint is None or not checkpoint.is_file() else checkpoint.stat().st_mtime_ns
    key = json_digest([plan.fingerprint(), places.digest(), str(backend_identity(backend)), source.device, stamp])
    return Planned(part, plan, key, backend)


def backend_identity(backend: Backend) -> str:
    """Return what identifies the imagery."""
    return str(backend) if isinstance(backend, str | Path) else backend.identity()


def has_random_weights(plan: Plan) -> bool:
    """Whether a plan asks for random weights."""
    knobs = plan.model.knobs
    return isinstance(knobs, WeightsKnobs) and not knobs.pretrained


def compute(
    wanted: Sequence[Planned], places: Places, folder: Path, source: ImagerySource, *, progress: bool = True
) -> list[Computed]:
    """Return the vectors of all parts, from the runs in a folder or computed now.

    Args:
        wanted: The parts.
        places: The places.
        folder: Holds the runs.
        source: Where imagery comes from.
        progress: Show a bar on a terminal.

    Raises:
        RSEmbedError: See `export_embeddings`.
    """
    held = _held(folder, len(places))
    retried = [one for one in held.values() if one.failed and one.keys <= {each.key for each in wanted}]
    again = {key for one in retried for key in one.keys}
    groups = _groups([one for one in wanted if one.key not in held])
    groups += _by_run([one for one in wanted if one.key in again], held)
    with _one_cache(folder / "chips", on=len(groups) > 1) as cached:
        for group in groups:
            provider, backend = cached(open_provider(group[0].backend)), str(group[0].backend)
            like = [one for each in groups for one in each if str(one.backend) == backend]
            inputs = [(modality.name, sensor) for one in like for modality, sensor in one.plan.model.inputs]
            once = OneFetch(provider, inputs) if inputs else provider
            _run(group, places, folder, source, once, progress=progress)
    held = _held(folder, len(places))
    return [_read(one, held[one.key], places) for one in wanted]


def _groups(missing: Sequence[Planned]) -> list[list[Planned]]:
    """Group parts that one export can do: of one backend and one request, each model once."""
    groups: dict[tuple[object, ...], list[Planned]] = {}
    for one in missing:
        part = one.part
        facts = (str(one.backend), part.pooling, str(part.modality), part.input_prep)
        slot = 0
        while part.card.id in {other.part.card.id for other in groups.get((*facts, slot), [])}:
            slot += 1
        groups.setdefault((*facts, slot), []).append(one)
    return list(groups.values())


@contextmanager
def _one_cache(folder: Path, *, on: bool) -> Iterator[Callable[[Provider], Provider]]:
    """Keep chips on disk while several runs need them, unless the user has a chip cache."""
    settings = LibrarySettings.read()
    if not on or settings.chip_cache is not None:
        yield lambda provider: provider
        return
    yield lambda provider: CachedProvider(Checked(provider), folder, settings.chip_cache_gb)
    shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class _Held:
    """A finished run that holds the vectors of a part."""

    path: Path
    told: Mapping[str, JsonValue]
    """What was noted of the part."""
    keys: frozenset[str]
    """The parts of the run."""
    failed: bool
    """Whether a row of the part failed."""

    @property
    def model(self) -> str:
        """The model's folder in the run."""
        return str(self.told["folder"])


def _held(folder: Path, rows: int) -> dict[str, _Held]:
    """Return the parts of which a finished run exists, by key."""
    found: dict[str, _Held] = {}
    for path in sorted(folder.glob(f"*/{_PARTS}")):
        run, noted = open_run(path.parent), json.loads(path.read_text("utf-8"))
        for key, told in noted.items():
            model = told["folder"]
            if model in run.models and sum(map(len, run.tables(model))) == rows:
                failed = bool((run.to_frame(model, ["status"])["status"] == "failed").any())
                found[key] = _Held(path.parent, told, frozenset(noted), failed)
    return found


def _by_run(again: Sequence[Planned], held: Mapping[str, _Held]) -> list[list[Planned]]:
    groups: dict[Path, list[Planned]] = {}
    for one in again:
        groups.setdefault(held[one.key].path, []).append(one)
    return list(groups.values())


def _run(
    group: Sequence[Planned], places: Places, folder: Path, source: ImagerySource, provider: Provider, *, progress: bool
) -> None:
    """Export a group into its run, time its models, and note both."""
    path = folder / json_digest(sorted(one.key for one in group))[:16]
    first = group[0].part
    export_embeddings(
        [(one.part.card, one.part.knobs) for one in group],
        places,
        path,
        output=first.output,
        backend=provider,
        modality=first.modality,
        input_prep=first.input_prep,
        device=source.device,
        precision=source.precision,
        accept_licence=source.accept_licence,
        progress=progress,
    )
    noted: dict[str, JsonValue] = {}
    for one in group:
        name = slug(one.plan.model.card.id).removeprefix("-")
        seconds, megabytes = _measured(one, open_run(path), name, places, provider)
        noted[one.key] = {"folder": name, "seconds": seconds, "imagery_mb": megabytes}
    with storing(path), replacing(path / _PARTS) as part:
        part.write_text(json.dumps(noted, indent=1), "utf-8")


def _measured(one: Planned, run: Run, name: str, places: Places, provider: Provider) -> tuple[float | None, float]:
    """Return seconds a place, without fetching, and the MB of its pixels; on places that did not fail."""
    good = np.flatnonzero(np.isfinite(_aligned(run, name, places)[0]).all(axis=1))[:TIMED]
    if not len(good):
        return None, 0.0
    plan = Plan.of(one.plan.request.model_copy(update={"backend": provider}), places.take(good))
    megabytes = sum(query.nbytes for query in plan.items[0].queries) / 2 / 1e6  # of float32, at 16 bits
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RSEmbedWarning)  # the export has said all of it
        list(plan.run())  # the first time is slower, and fetches
        seconds: list[float] = []
        first = time.perf_counter()
        while not seconds or (len(seconds) < _REPEATS and time.perf_counter() - first < _TIMING_S):
            started = time.perf_counter()
            done = sum(isinstance(result, Embedding) for result in plan.run())
            seconds.append((time.perf_counter() - started) / max(1, done))
    return min(seconds), megabytes  # other work of the machine only adds


def _aligned(run: Run, name: str, places: Places) -> tuple[NDArray[np.float32], dict[int, str]]:
    """Return the vectors in the order of the places, and why some failed, by index."""
    frame, vectors = run.to_frame(name, ["row", "status", "error"]), run.matrix(name)
    at = {row: index for index, row in enumerate(places.rows.tolist())}
    where = np.array([at[row] for row in frame["row"].tolist()], np.int64)
    found = np.full((len(places), vectors.shape[1]), np.nan, np.float32)
    found[where] = vectors
    failed = np.flatnonzero((frame["status"] == "failed").to_numpy())
    return found, {int(where[one]): str(frame["error"].iloc[one]) for one in failed.tolist()}


def _read(one: Planned, held: _Held, places: Places) -> Computed:
    run, card = open_run(held.path), one.plan.model.card
    vectors, errors = _aligned(run, held.model, places)
    header = run.header(held.model)
    (size_mb, _), licence = download_mb(card), strictest(card)
    seconds, megabytes = held.told["seconds"], held.told["imagery_mb"]
    cost = Cost(
        None if seconds is None else float(cast("float", seconds)),
        float(cast("float", megabytes)),
        download_text(card),
        size_mb,
        licence.kind,
        "" if card.adapter == ADAPTER else licence.id,
    )
    weights = (header.weights if header else None) or ""
    return Computed(one.part, vectors, errors, cost, weights, held.path, held.model)
