"""Read a table of an export: as vectors, as a data frame, or as embeddings."""

import json
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import shapely
from numpy.typing import NDArray

from rs_embed.core.optional import require
from rs_embed.embedding.embedding import Embedding
from rs_embed.errors import StorageError
from rs_embed.formats.base import RunHeader
from rs_embed.formats.fields import HEADER_FIELD
from rs_embed.formats.files import load
from rs_embed.formats.parts import from_parts
from rs_embed.formats.quantize import dequantize
from rs_embed.formats.table import CHECKSUM, checksum_of

if TYPE_CHECKING:
    import geopandas
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile


class TableFile:
    """A file that `write_table` or `write_index` wrote. Only its header is read until data are requested.

    Raises:
        StorageError: The file does not exist, or rs_embed did not write it.
        MissingDependency: pyarrow is not installed.
    """

    def __init__(self, path: str | Path, fault: "Callable[[Path], str | None] | None" = None) -> None:
        """Open the file.

        Args:
            path: The file.
            fault: Returns what is wrong with the file's bytes, or `None`. It is called once, before vectors or all
                columns are read. The checksum of every page read is verified in any case.
        """
        self.path: Path = Path(path)
        self._fault = fault
        self.keys: dict[str, str] = self._own_keys()
        """The file's metadata: the GeoParquet key `geo`, and the key `emb` of the embeddings."""
        self.meta: RunHeader = self._header()
        """The header of the run."""

    def __repr__(self) -> str:
        return f"TableFile({str(self.path)!r}, {self.meta.model_id}, {len(self)} rows)"

    def __len__(self) -> int:
        rows: int = self._file.metadata.num_rows
        return rows

    @property
    def columns(self) -> list[str]:
        """Names of all columns."""
        names: list[str] = self._file.schema_arrow.names
        return names

    @property
    def is_index(self) -> bool:
        """Whether the file is an index with paths of grids, and not a table of vectors."""
        return "href" in self.columns

    def table(self, columns: Sequence[str] | None = None) -> "pa.Table":
        """Return the rows as an Arrow table.

        Raises:
            StorageError: The file is damaged.
        """
        import pyarrow as pa

        if columns is None or "embedding" in columns:
            self._compare()
        if unknown := set(columns or ()) - set(self.columns):
            raise _damaged(self.path, f"no column {', '.join(sorted(unknown))}")
        try:
            return self._file.read(columns=None if columns is None else list(columns))
        except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
            raise _damaged(self.path, f"{type(error).__name__}: {error}") from error

    def _compare(self) -> None:
        """Verify all bytes with `fault`, once."""
        if self._fault is not None and (found := self._fault(self.path)) is not None:
            raise _damaged(self.path, found)
        self._fault = None

    def matrix(self) -> NDArray[np.float32]:
        """Return the vectors, `[N, D]` float32, one per row; NaN where the row failed.

        int8 vectors are multiplied by their factors.

        Raises:
            StorageError: The file is an index of grids, or damaged.
        """
        if self.is_index:
            raise StorageError(f"Expected vectors, got an index of grids in {str(self.path)!r}.", fix="read its grids")
        table = self.table(["embedding", "scale"] if "scale" in self.columns else ["embedding"])
        try:
            return vectors_of(table, self.meta.dim)
        except ValueError as error:  # the width differs from the header's
            raise _damaged(self.path, str(error)) from error

    def embeddings(self) -> Iterator[tuple[int, str, Embedding]]:
        """Yield row number, id and embedding of every row that did not fail; grids are opened one at a time."""
        kept = ["row", "id", "status", "meta", *(["href"] if self.is_index else [])]
        vectors = None if self.is_index else self.matrix()
        for i, one in enumerate(self.table(kept).to_pylist()):
            if one["status"] != "ok":
                continue
            if vectors is None:
                yield one["row"], one["id"], load(self.path.parent / one["href"])
            else:
                yield one["row"], one["id"], from_parts(vectors[i], one["meta"])

    def to_frame(self, columns: Sequence[str] | None = None) -> "geopandas.GeoDataFrame":
        """Return the rows as a GeoDataFrame, with footprints as geometry."""
        return frame_of(self.table(columns))

    @cached_property
    def _file(self) -> "ParquetFile":
        require("pyarrow", "export")
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return pq.ParquetFile(self.path, page_checksum_verification=True)
        except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
            raise _damaged(self.path, f"{type(error).__name__}: {error}") from error

    def _own_keys(self) -> dict[str, str]:
        metadata = self._file.schema_arrow.metadata or {}
        try:
            found = {name.decode(): value.decode() for name, value in metadata.items()}
        except UnicodeDecodeError as error:
            raise _damaged(self.path, str(error)) from error
        if CHECKSUM in found and found[CHECKSUM] != checksum_of(found):
            raise _damaged(self.path, "the metadata do not match their checksum")
        return {name: found[name] for name in ("geo", "emb") if name in found}

    def _header(self) -> RunHeader:
        try:
            return RunHeader.from_json(json.loads(self.keys["emb"])[HEADER_FIELD])
        except (KeyError, ValueError) as error:
            raise StorageError(
                f"Expected a table of rs_embed, got {str(self.path)!r}, a Parquet file of another program.",
                fix="pass a file that export_embeddings wrote",
            ) from error


def vectors_of(table: "pa.Table", dim: int) -> NDArray[np.float32]:
    """Return the vectors of a table, `[N, D]`; NaN where there is none."""
    import pyarrow.compute as pc

    vectors = np.full((table.num_rows, dim), np.nan, np.float32)
    there = pc.is_valid(table["embedding"]).to_numpy(zero_copy_only=False)
    if there.any():
        kept = table.filter(pc.is_valid(table["embedding"])).combine_chunks()
        stored = kept["embedding"].combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(-1, dim)
        vectors[there] = dequantize(stored, kept["scale"].to_numpy() if "scale" in table.column_names else None)
    return vectors


def frame_of(table: "pa.Table") -> "geopandas.GeoDataFrame":
    """Convert an Arrow table to a GeoDataFrame, without the bounding boxes.

    Raises:
        MissingDependency: geopandas is not installed.
    """
    require("geopandas", "export")
    import geopandas

    frame = table.drop_columns([name for name in ("bbox",) if name in table.column_names]).to_pandas()
    if "geometry" not in frame:
        return frame
    return geopandas.GeoDataFrame(frame, geometry=shapely.from_wkb(frame["geometry"]), crs="EPSG:4326")


def _damaged(path: Path, reason: str) -> StorageError:
    found = "which is damaged" if path.exists() else "which does not exist"
    return StorageError(
        f"Expected a table of an export, got {str(path)!r}, {found} ({reason}).",
        fix="run `rs-embed verify RUN` to list what is damaged and how to compute it again",
    )
