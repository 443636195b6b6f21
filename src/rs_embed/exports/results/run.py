"""What a long export left behind, given back as frames and arrays, failures included."""

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from rs_embed.core import display
from rs_embed.core.checks import require_whole
from rs_embed.embedding.embedding import Embedding
from rs_embed.errors import SpecError, StorageError
from rs_embed.exports.journal import MANIFEST
from rs_embed.exports.object_store import Remote, local_place, place_of
from rs_embed.exports.records import Record, Stamp, fault_in
from rs_embed.exports.results.filters import Filter, Where
from rs_embed.exports.results.kept_index import IndexReport, KeptIndex
from rs_embed.exports.results.run_index import RunIndex, build_index
from rs_embed.exports.results.searching import IndexedRows, ScannedRows, Searched, search
from rs_embed.exports.unit import RECORDS, TABLES
from rs_embed.formats.base import RunHeader
from rs_embed.formats.grids import Grids
from rs_embed.formats.reading import TableFile, frame_of
from rs_embed.formats.stack import Stack

if TYPE_CHECKING:
    import geopandas
    import pandas as pd
    import xarray as xr

    from rs_embed.embedding.joining import Table
    from rs_embed.explore.packing import Stored
    from rs_embed.explore.plane import Projection
    from rs_embed.explore.tiles import BaseMap
    from rs_embed.explore.widget import PageWidget
    from rs_embed.places.single import Single

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
        raise SpecError(f"Expected a run in an object store, got {uri!r}.", fix='for example "s3://bucket/run"')
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
        self._indices: dict[str, KeptIndex[RunIndex]] = {}

    def __repr__(self) -> str:
        rows = self._rows()
        count = "" if rows is None else f"{rows:,} rows, "
        return f"Run({str(self.path)!r}, {count}{', '.join(self.models) or 'nothing finished'})"

    def _repr_html_(self) -> str:
        return display.safely(self, _html)

    def _rows(self) -> int | None:
        """How many rows the export is for, as its manifest says."""
        places = self.manifest.get("places")
        request = self.manifest.get("request")
        if isinstance(request, dict):
            places = request.get("places")
        rows = places.get("rows") if isinstance(places, dict) else None
        return rows if isinstance(rows, int) else None

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

    def join(self, table: "Table", model: str | None = None) -> "Table":
        """Your table with the columns `embedding`, `valid_fraction`, `status` and `error` added, for a run of vectors.

        Unlike `to_frame`, this keeps everything: the index, the geometry with its CRS, lists, and types of columns.

        Args:
            table: The DataFrame or GeoDataFrame that was exported, in the same order. Rows that the run has not tried
                yet have no status.
            model: May be left out if the run has only one.

        Raises:
            InputError: It has fewer rows than the run.
            SpecError: It has one of these columns already.
            StorageError: The run holds grids.
        """
        from rs_embed.embedding.joining import COLUMNS, joined

        frame = self.to_frame(model, ["row", *COLUMNS]).set_index("row")
        rows = max(len(table), 1 + int(frame.index.max())) if len(frame) else len(table)
        return joined(table, frame.reindex(range(rows)))

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

    def grids(self, model: str | None = None) -> Grids:
        """The grids by id; each is read, and compared with its record, when it is asked for."""
        frame = self.to_frame(model, ["id", "row", "status", "href"])
        done, folder = frame[frame["status"] == "ok"], self.path / self._only(model)
        records = {
            os.path.normpath(folder / name): partial(fault_in, path, name)
            for path in sorted((folder / RECORDS).glob("u*.json"))
            if (record := Record.load(path)) is not None
            for name in record.files
        }
        return Grids(folder / TABLES, list(zip(done["id"], done["href"], strict=True)), records)

    def to_xarray(self, model: str | None = None) -> "xr.Dataset":
        """Vectors as `embedding[row, band]`, with id, place, time and status of each row beside them."""
        import xarray as xr

        names = [*_PLACE, "status"]
        frame = self.to_frame(model, names)
        rows = {name: ("row", _plain(frame[name])) for name in names if name != "row"}
        vectors = self.matrix(model)
        coords = {"row": frame["row"].to_numpy(), "band": np.arange(vectors.shape[1]), **rows}
        return xr.Dataset({"embedding": (("row", "band"), vectors)}, coords=coords)

    def build_index(self, model: str | None = None, *, progress: bool = True) -> IndexReport:
        """Build an index of the vectors in the run's folder, which makes `similar` fast on millions of rows.

        An index covers the rows that were there when it was built: after you add, retry or repair rows, build it again.
        An existing index is replaced once the new one is complete.

        Args:
            model: May be left out if the run has only one.
            progress: Show a bar on a terminal.

        Raises:
            SpecError: The run holds grids, or no row that did not fail.
            StorageError: A file is damaged, the run is in use, or the disk refuses.
            MissingDependency: The extra `search` is not installed.
        """
        name = self._only(model)
        return build_index(self.path / name, partial(self._stack, name), self._index(name).folder, progress=progress)

    def similar(
        self,
        id: "str | int | Embedding",  # noqa: A002
        top: int = 10,
        model: str | None = None,
        *,
        within: "Single | None" = None,
        where: Where | None = None,
        exact: bool = False,
    ) -> "pd.DataFrame":
        """The rows most like a row of the run, itself left out, or like an embedding of your own, best first.

        Cosine similarity. If there is an index (`build_index`) and the run has not changed since, the search uses it.
        It is fast, but may miss a few of the nearest rows. Otherwise all vectors are compared, a unit at a time. The
        result's `attrs` say which: `exact`, and for an index its `recall` (the share of the ten nearest that it finds).

        Args:
            id: As in the user's table (a number means the id of that text; without ids, the number of the row); of
                several rows with it, the first that did not fail. Or a vector of the same model and weights.
            top: How many.
            within: Only rows whose middle lies in this place: a box (west, south, east, north), or any form of a place
                that `get_embedding` takes.
            where: Only rows with these values: column -> value, list of values, or tuple (low, high), both included, of
                which either may be `None`. Columns are those of your table and of the run's.
            exact: Compare all vectors even if there is an index.

        Raises:
            SpecError: There is no such row, or it failed; the embedding is of another model, or a grid; a column of
                `where` does not exist, or cannot be compared with the value.
            StorageError: The run holds grids.
        """
        require_whole("top", top, 1, sys.maxsize)
        wanted, name = Filter.of(within, where), self._only(model)
        index = None if exact else self._index(name).current()
        rows: Searched = ScannedRows(self._stack(name)) if index is None else IndexedRows(index, self.path / name)
        return search(rows, id, top, wanted)

    def explore(
        self,
        path: str | Path = "explore.html",
        model: str | None = None,
        *,
        projection: "Projection" = "pca",
        base_map: "BaseMap | None" = None,
        stored: "Stored" = "auto",
        max_mb: float = 25.0,
    ) -> Path:
        """Write one HTML file: a map of the places, their principal components and their table, linked.

        A click on a place shows what is like it. You colour by a column, select with a lasso, search by id and label.
        Places that failed are left out; the page says how many. It needs no network.

        Args:
            path: Ends in .html; an existing file is replaced.
            model: May be left out if the run has only one.
            projection: How the vectors come on a plane: by "pca", or by "umap" where umap-learn is installed.
            base_map: See `Embedding.explore`.
            stored: See `Embedding.explore`.
            max_mb: Largest size of the file, MB.

        Raises:
            SpecError: The run holds grids, or the page would be larger than `max_mb`.
            NoValidPixels: No place has an embedding.
            StorageError: The path does not end in .html, or cannot be written.
        """
        from rs_embed.explore.page import PageOptions
        from rs_embed.exports.results.exploring import explore_run

        return explore_run(self, path, model, projection, PageOptions(base_map, stored, max_mb))

    def widget(
        self,
        model: str | None = None,
        *,
        projection: "Projection" = "pca",
        base_map: "BaseMap | None" = None,
        stored: "Stored" = "auto",
        height_px: int = 680,
    ) -> "PageWidget":
        """Show the page of `explore` in a notebook; needs the extra `notebook`.

        Args:
            height_px: Height of the view.

        The other arguments and errors are those of `explore`. `selected` and `labels` of the result are what you have
        clicked and labelled, as GeoDataFrames.

        Raises:
            MissingDependency: anywidget is not installed.
        """
        from rs_embed.explore.notebook import widget_of

        return widget_of(
            lambda page: self.explore(page, model, projection=projection, base_map=base_map, stored=stored), height_px
        )

    def _index(self, name: str) -> KeptIndex[RunIndex]:
        return self._indices.setdefault(name, KeptIndex(self.path / name, RunIndex))

    def _stack(self, model: str | None) -> Stack:
        return Stack(self.tables(model))

    def _only(self, model: str | None) -> str:
        if model is None and len(self.models) == 1:
            return self.models[0]
        if model is None or model not in self.models:
            raise SpecError(
                f"Expected one of the models {', '.join(self.models) or '(none yet)'}, got {model!r}.",
                fix=f"for example model={self.models[0]!r}" if self.models else "run the export first",
            )
        return model


def _html(run: Run) -> str:
    """A card that reads the manifest, the names of files and one header for each model."""
    rows, created = run._rows(), run.manifest.get("created")
    facts = {"Folder": run.path, "Rows": None if rows is None else f"{rows:,}", "Started": created}
    lines = []
    warning = None
    for model in run.models:
        units = len(list((run.path / model / RECORDS).glob("u*.json")))
        first = next(iter(sorted((run.path / model / TABLES).glob("*.parquet"))), None)
        header = None if first is None else TableFile(first).meta
        what = "" if header is None else f"{header.output}, {header.dim:,} dimensions, {header.dtype}"
        weights = "" if header is None else (header.weights or "").partition("#")[0]
        if weights.startswith("random:"):
            warning = f"{model}: random weights"
        lines.append((model, what, f"{units:,}", weights))
    below = display.rows(("model", "holds", "units", "weights"), lines) if lines else ""
    title = "Export" if lines else "Export, nothing finished"
    return display.card(title, run.path.name, facts, warning=warning, below=below)


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
            f"Expected a run of export_embeddings, got no readable {str(path)!r} ({type(error).__name__}).",
            fix="give the folder that was its `out`",
        ) from error
    return content
