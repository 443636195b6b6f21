"""What a long export left behind, given back as frames and arrays, failures included."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from rs_embed.embedding import Embedding
from rs_embed.errors import SpecError, StorageError
from rs_embed.pipeline.journal import MANIFEST
from rs_embed.pipeline.records import Record, Stamp, fault_in
from rs_embed.pipeline.remote import Remote, local_place, place_of
from rs_embed.pipeline.units import RECORDS, TABLES
from rs_embed.similarity import cosine
from rs_embed.writers.base import RunHeader
from rs_embed.writers.grids import read_grid
from rs_embed.writers.reading import TableFile, frame_of
from rs_embed.writers.stack import Stack

if TYPE_CHECKING:
    import geopandas
    import pandas as pd
    import xarray as xr

_PLACE = ("id", "row", "center_lon", "center_lat", "start_datetime", "end_datetime")


def open_run(path: str | Path) -> "Run":
    """Open the folder that `export_embeddings` filled, finished or not. Reads only its manifest.

    Raises:
        StorageError: There is no such run.
        SpecError: It lies in an object store.
    """
    return Run(local_place(path))


def download_run(uri: str, folder: str | Path) -> "Run":
    """Copy a run from an object store, and open it; tables and grids that are there already are not copied again.

    Raises:
        SpecError: It is none of an object store.
        StorageError: There is no such run, it cannot be read, or the folder holds another.
    """
    remote, target = place_of(uri), Path(folder).expanduser()
    if not isinstance(remote, Remote):
        raise SpecError(f"Wanted a run in an object store, found {uri!r}.", fix='for example "s3://bucket/run"')
    with TemporaryDirectory() as scratch:
        if remote.get(MANIFEST, Path(scratch)):
            _refuse_other(_json(Path(scratch) / MANIFEST), target)
    known: dict[str, Stamp] = {}
    for name in sorted(remote.sizes(), key=lambda one: not _is_record(one)):  # these first: they stamp the others
        path = target / name
        if name not in known or not path.is_file() or Stamp.of(path) != known[name]:
            remote.get(name, target)
        if _is_record(name):
            with suppress(ValueError):  # damaged: all of its unit is copied
                files = Record.model_validate_json(path.read_text("utf-8")).files
                known |= {f"{path.parents[1].name}/{file}": stamp for file, stamp in files.items()}
    return open_run(target)


def _is_record(name: str) -> bool:
    return f"/{RECORDS}/u" in name


def _refuse_other(manifest: dict[str, JsonValue], folder: Path) -> None:
    if not folder.exists():
        return
    is_run = (folder / MANIFEST).is_file()
    others = [] if is_run else sorted(one.name for one in folder.iterdir() if not one.name.startswith("."))
    if others or (is_run and manifest != _json(folder / MANIFEST)):
        raise StorageError(
            f"Expected a new folder or one with a part of this run, got {str(folder)!r} with something else.",
            found=", ".join(others[:5]) or "another run",
            fix="choose another folder",
        )


def read(path: str | Path) -> TableFile:
    """Open one table of an export; its `meta` is the header.

    Raises:
        StorageError: There is no such file, or it is not one of ours.
        MissingDependency: pyarrow is not installed.
    """
    return TableFile(path)


class Run:
    """A folder of embeddings. What has a record counts: units that are finished, and what is stored of others."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest: Mapping[str, JsonValue] = _json(path / MANIFEST)
        """What was asked for, as the export wrote it."""

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, {', '.join(self.models) or 'nothing finished'})"

    @cached_property
    def models(self) -> tuple[str, ...]:
        """Ids of the models that have a folder here."""
        return tuple(sorted(folder.parent.name for folder in self.path.glob(f"*/{TABLES}") if folder.is_dir()))

    def header(self, model: str | None = None) -> RunHeader | None:
        """What the files of a model say of themselves; `None` where none is finished.

        Args:
            model: May be left out if the run has only one; so everywhere.
        """
        tables = self.tables(model)
        return tables[0].meta if tables else None

    def tables(self, model: str | None = None) -> list[TableFile]:
        """The tables of a model's units, in order; of one that is not finished, with the rows that are done.

        Raises:
            StorageError: A table or a record is gone or damaged.
        """
        folder = self.path / self._only(model)
        return [
            TableFile(folder / name, partial(fault_in, path, name))
            for path in sorted((folder / RECORDS).glob("u*.json"))
            if (record := Record.load(path)) is not None
            for name in record.tables
        ]

    def to_frame(self, model: str | None = None, columns: Sequence[str] | None = None) -> "geopandas.GeoDataFrame":
        """One row for each row of the user's table that has been tried, in its order; failed ones have no embedding.

        Args:
            columns: Only these; leaving out `embedding` and `meta` saves most of the memory.
        """
        return frame_of(self._stack(model).joined(columns))

    def failures(self, model: str | None = None) -> "geopandas.GeoDataFrame":
        """The rows that failed: where, at which stage, and why."""
        frame = self.to_frame(model, ["id", "row", "geometry", "center_lon", "center_lat", "status", "stage", "error"])
        return frame[frame["status"] == "failed"].reset_index(drop=True)

    def matrix(self, model: str | None = None) -> NDArray[np.float32]:
        """`[N, D]`: the vectors of `to_frame`, in its order; NaN where a row failed.

        Raises:
            StorageError: The run holds grids.
        """
        stack = self._stack(model)
        if not stack.tables:
            return np.empty((0, 0), np.float32)
        vectors = np.empty((len(stack.order), stack.dim), np.float32)
        for places, part in stack.vectors():
            vectors[places] = part
        return vectors

    def embeddings(self, model: str | None = None) -> Iterator[Embedding]:
        """Every embedding, a unit at a time, in the order of the units; failed rows are left out."""
        for table in self.tables(model):
            yield from (embedding for _, _, embedding in table.embeddings())

    def grids(self, model: str | None = None) -> "Grids":
        """The grids by id; each is read when it is asked for."""
        frame = self.to_frame(model, ["id", "row", "status", "href"])
        done = frame[frame["status"] == "ok"]
        return Grids(self.path / self._only(model) / TABLES, list(zip(done["id"], done["href"], strict=True)))

    def to_xarray(self, model: str | None = None) -> "xr.Dataset":
        """Vectors as `embedding[row, band]`, with id, place, time and status of each row beside them."""
        import xarray as xr

        names = [*_PLACE, "status"]
        frame = self.to_frame(model, names)
        rows = {name: ("row", _plain(frame[name])) for name in names if name != "row"}
        vectors = self.matrix(model)
        coords = {"row": frame["row"].to_numpy(), "band": np.arange(vectors.shape[1]), **rows}
        return xr.Dataset({"embedding": (("row", "band"), vectors)}, coords=coords)

    def similar(self, id: str, top: int = 10, model: str | None = None) -> "pd.DataFrame":  # noqa: A002
        """The rows most like the row of that id, itself left out, best first.

        Cosine similarity over the whole run, a unit at a time.

        Args:
            id: As in the user's table; of several rows with it, the first that did not fail.
            top: How many.

        Raises:
            SpecError: There is no such row, or it failed.
            StorageError: The run holds grids.
        """
        frame = self.to_frame(model, [*_PLACE, "status"])
        mine = np.flatnonzero((frame["id"] == id) & (frame["status"] == "ok"))
        if mine.size == 0:
            raise SpecError(
                f"Wanted a row with the id {id!r} and an embedding, found none among {len(frame)} rows.",
                fix="look at Run.to_frame()['id'] and Run.failures()",
            )
        stack = self._stack(model)
        vector = next(part[places == mine[0]][0] for places, part in stack.vectors() if mine[0] in places)
        likeness = np.full(len(frame), np.nan, np.float32)
        for places, part in stack.vectors():
            likeness[places] = cosine(part, vector)
        likeness[mine[0]] = np.nan
        best = np.argsort(-np.nan_to_num(likeness, nan=-np.inf), kind="stable")[:top]
        best = best[~np.isnan(likeness[best])]
        found: pd.DataFrame = frame.iloc[best][list(_PLACE)].reset_index(drop=True)
        found.insert(2, "similarity", likeness[best])
        return found

    def _stack(self, model: str | None) -> Stack:
        return Stack(self.tables(model))

    def _only(self, model: str | None) -> str:
        if model is None and len(self.models) == 1:
            return self.models[0]
        if model is None or model not in self.models:
            raise SpecError(
                f"Wanted one of the models {', '.join(self.models) or '(none yet)'}, found {model!r}.",
                fix=f"for example model={self.models[0]!r}" if self.models else "run the export first",
            )
        return model


class Grids(Mapping[str, "xr.DataArray"]):
    """Grids by id, read one at a time."""

    def __init__(self, folder: Path, places: Sequence[tuple[str, str]]) -> None:
        self._folder = folder
        self._places: dict[str, list[str]] = {}
        for name, href in places:
            self._places.setdefault(name, []).append(href)

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __getitem__(self, name: str) -> "xr.DataArray":
        """`[band, y, x]` with coordinates and CRS."""
        return self.embedding(name).to_xarray()

    def embedding(self, name: str) -> Embedding:
        """The same with its metadata.

        Raises:
            SpecError: Several rows have that id.
            StorageError: The file is gone or damaged.
        """
        hrefs = self._places[name]
        if len(hrefs) > 1:
            raise SpecError(
                f"Wanted one grid of the id {name!r}, found {len(hrefs)}.",
                fix="read them by Run.to_frame()['href']",
                files=", ".join(hrefs),
            )
        return read_grid(self._folder / hrefs[0])


def _plain(column: "pd.Series") -> NDArray[np.generic]:
    """A column as xarray takes it: times without a zone (they are UTC), text as objects."""
    values: NDArray[np.generic]
    if column.dtype.kind == "M":
        values = column.dt.tz_localize(None).to_numpy()
    else:
        values = column.to_numpy(dtype=object) if column.dtype.kind not in "fiu" else column.to_numpy()
    return values


def _json(path: Path) -> dict[str, JsonValue]:
    try:
        content: dict[str, JsonValue] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StorageError(
            f"Wanted a run of export_embeddings, found no readable {str(path)!r} ({type(error).__name__}).",
            fix="give the folder that was its `out`",
        ) from error
    return content
