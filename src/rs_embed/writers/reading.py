"""A table of an export, read back: vectors as numbers, rows as a frame, each row as the embedding it was."""

import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import shapely
from numpy.typing import NDArray

from rs_embed._optional import require
from rs_embed.embedding import Embedding
from rs_embed.embedding_files import from_parts
from rs_embed.errors import StorageError
from rs_embed.writers.base import RunHeader
from rs_embed.writers.fields import HEADER_FIELD
from rs_embed.writers.grids import read_grid
from rs_embed.writers.quantize import dequantize

if TYPE_CHECKING:
    import geopandas
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile


class TableFile:
    """One file that `write_table` or `write_index` wrote. Nothing but its header is read before it is asked for.

    Raises:
        StorageError: There is no such file, or it is not one of ours.
        MissingDependency: pyarrow is not installed.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.meta = self._header()
        """What the file says of the whole run."""

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
        """Whether it says where grids lie, instead of holding vectors."""
        return "href" in self.columns

    def table(self, columns: Sequence[str] | None = None) -> "pa.Table":
        """The rows as an Arrow table.

        Raises:
            StorageError: The file is damaged.
        """
        import pyarrow as pa

        try:
            return self._file.read(columns=None if columns is None else list(columns))
        except (OSError, pa.ArrowException) as error:
            raise _damaged(self.path, error) from error

    def matrix(self) -> NDArray[np.float32]:
        """`[N, D]`, one vector a row; NaN where the row failed. int8 comes back multiplied by its factor.

        Raises:
            StorageError: The file is an index of grids, or damaged.
        """
        if self.is_index:
            raise StorageError(f"Wanted vectors, found an index of grids in {str(self.path)!r}.", fix="read its grids")
        table = self.table(["embedding", "scale"] if "scale" in self.columns else ["embedding"])
        return vectors_of(table, self.meta.dim)

    def embeddings(self) -> Iterator[tuple[int, str, Embedding]]:
        """Row number, id and embedding of every row that did not fail, one at a time; grids are opened as they come."""
        kept = ["row", "id", "status", "meta", *(["href"] if self.is_index else [])]
        vectors = None if self.is_index else self.matrix()
        for i, one in enumerate(self.table(kept).to_pylist()):
            if one["status"] != "ok":
                continue
            if vectors is None:
                yield one["row"], one["id"], read_grid(self.path.parent / one["href"])
            else:
                yield one["row"], one["id"], from_parts(vectors[i], one["meta"])

    def to_frame(self, columns: Sequence[str] | None = None) -> "geopandas.GeoDataFrame":
        """The rows as a frame, with footprints as geometry."""
        return frame_of(self.table(columns))

    @cached_property
    def _file(self) -> "ParquetFile":
        require("pyarrow", "export")
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return pq.ParquetFile(self.path)
        except (OSError, pa.ArrowException) as error:
            raise _damaged(self.path, error) from error

    def _header(self) -> RunHeader:
        keys = self._file.schema_arrow.metadata or {}
        try:
            return RunHeader.from_json(json.loads(keys[b"emb"])[HEADER_FIELD])
        except (KeyError, ValueError) as error:
            raise StorageError(
                f"{str(self.path)!r} is Parquet, but not of rs_embed.", fix="give a file that export_embeddings wrote"
            ) from error


def vectors_of(table: "pa.Table", dim: int) -> NDArray[np.float32]:
    """The vectors of a table `[N, D]`, NaN where there is none."""
    import pyarrow.compute as pc

    vectors = np.full((table.num_rows, dim), np.nan, np.float32)
    there = pc.is_valid(table["embedding"]).to_numpy(zero_copy_only=False)
    if there.any():
        kept = table.filter(pc.is_valid(table["embedding"])).combine_chunks()
        stored = kept["embedding"].combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(-1, dim)
        vectors[there] = dequantize(stored, kept["scale"].to_numpy() if "scale" in table.column_names else None)
    return vectors


def frame_of(table: "pa.Table") -> "geopandas.GeoDataFrame":
    """An Arrow table as a frame; boxes are left out, they are for readers that skip.

    Raises:
        MissingDependency: geopandas is not installed.
    """
    require("geopandas", "export")
    import geopandas

    frame = table.drop_columns([name for name in ("bbox",) if name in table.column_names]).to_pandas()
    if "geometry" not in frame:
        return frame
    return geopandas.GeoDataFrame(frame, geometry=shapely.from_wkb(frame["geometry"]), crs="EPSG:4326")


def _damaged(path: Path, error: Exception) -> StorageError:
    found = "which is damaged" if path.exists() else "which does not exist"
    return StorageError(
        f"Wanted a table of an export, found {str(path)!r}, {found} ({type(error).__name__}: {error}).",
        fix="give a file that export_embeddings wrote; run the export again to mend it",
    )
