"""The Zarr v3 store of a map: its metadata, and its shards as bytes.

A shard is one block of tokens with all channels. So each worker writes its blocks as whole files and needs to know
nothing about the others. The metadata do not record which blocks exist.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pydantic import BaseModel, ConfigDict, JsonValue

from rs_embed.core.atomic import make_folder, read_text, replacing, write_json
from rs_embed.core.geo import with_coordinates
from rs_embed.exports.journal import sealed, unsealed
from rs_embed.exports.records import Stamp
from rs_embed.exports.region.grid import MapGrid
from rs_embed.exports.unit import MAP, RECORDS
from rs_embed.formats.base import RunHeader
from rs_embed.formats.zarr_store import describe_grid, gdal_crs

if TYPE_CHECKING:
    import zarr
    from zarr.abc.store import Store
    from zarr.core.metadata import ArrayV3Metadata

EMBEDDING, VALID, SCALE = "embedding", "valid", "scale"
METADATA = f"{RECORDS}/map.json"
"""Path of the record of the metadata, in the folder of the model."""
NO_VALUE = -128
"""The number in int8 tokens without a value."""
CHUNK_BYTES = 2**20
"""Largest inner chunk, bytes: the cost of reading one token."""
_UNKNOWN_DAY = np.datetime64("NaT", "ns")


@dataclass(frozen=True)
class MapArray:
    """One array of the store at one level."""

    name: str
    level: int
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    shard: tuple[int, ...]
    """Shape of the part that one block writes."""
    chunk: tuple[int, ...]
    """Shape of the part that is read at once."""
    dtype: str
    fill: float | int

    @property
    def path(self) -> str:
        """Path inside the store."""
        return f"{self.level}/{self.name}" if self.level else self.name

    def file(self, time: int, row: int, column: int) -> str:
        """Path of a block's file, next to the store's folder."""
        at = (time, row, column) if self.name == VALID else (time, 0, row, column)
        return f"{MAP}/{self.path}/c/{'/'.join(map(str, at))}"

    def shard_bytes(self, values: NDArray[np.generic]) -> bytes:
        """Encode the file of a block."""
        from zarr.storage import MemoryStore

        content: dict[str, object] = {}
        made = self._create(MemoryStore(content), "", self.shard)  # type: ignore[arg-type]
        made[...] = values.reshape(self.shard)
        (chunk,) = (value for name, value in content.items() if name.startswith("c/"))
        data: bytes = chunk.to_bytes()  # type: ignore[attr-defined]
        return data

    def create(self, store: "Store") -> None:
        """Its metadata."""
        self._create(store, self.path, self.shape)

    def _create(self, store: "Store", path: str, shape: tuple[int, ...]) -> "zarr.Array[ArrayV3Metadata]":
        import zarr
        from zarr.codecs import BloscCodec

        size = np.dtype(self.dtype).itemsize
        codec = BloscCodec(cname="zstd", clevel=3, shuffle="shuffle" if size > 1 else "noshuffle", typesize=size)
        return zarr.create_array(
            store,
            name=path or None,
            shape=shape,
            shards=self.shard if self.shard != self.chunk else None,
            chunks=self.chunk,
            dtype=self.dtype,
            compressors=[codec],
            fill_value=self.fill,
            dimension_names=self.dims,
            config={"write_empty_chunks": True},  # a block exists as a whole, or not at all
        )


def arrays_of(grid: MapGrid, dim: int, dtype: str) -> list[MapArray]:
    """Return the arrays of all levels, the finest first."""
    found = []
    times = len(grid.days)
    for level in range(grid.levels + 1):
        side = grid.cells >> level
        rows, cols = (length >> level for length in grid.shape)
        most = max(1, int((CHUNK_BYTES / (4 * dim)) ** 0.5))
        part = max(one for one in range(1, min(side, most) + 1) if side % one == 0)
        fill = NO_VALUE if dtype == "int8" else np.nan
        found += [
            MapArray(EMBEDDING, level, ("time", "band", "y", "x"), (times, dim, rows, cols), (1, dim, side, side),
                     (1, dim, part, part), dtype, fill),
            MapArray(VALID, level, ("time", "y", "x"), (times, rows, cols), (1, side, side), (1, side, side),
                     "float32", 0.0),
        ]  # fmt: skip
        if dtype == "int8":
            shape, one = (times, dim, grid.rows, grid.columns), (1, dim, 1, 1)
            dims = ("time", "band", "block_y", "block_x")
            found.append(MapArray(SCALE, level, dims, shape, one, one, "float32", np.nan))
    return found


class MetadataRecord(BaseModel):
    """The hashes of the files that describe a map: all but its blocks."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    files: dict[str, Stamp]
    """Path in the model's folder -> stamp."""
    digest: str = ""
    """sha256 of the other field."""

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Read the record of a model's map; `None` if there is none, or if it is damaged."""
        try:
            return cls.model_validate(unsealed(read_text(folder / METADATA)))
        except (OSError, ValueError, RecursionError):
            return None

    def faults(self, folder: Path, *, whole: bool) -> dict[str, str]:
        """Return what is wrong with files, by path; see `Stamp.fault`."""
        found = {name: stamp.fault(folder / name, whole=whole) for name, stamp in self.files.items()}
        return {name: fault for name, fault in found.items() if fault is not None}


def write_metadata(folder: Path, grid: MapGrid, header: RunHeader, *, verify: bool = False) -> None:
    """Write the metadata of the store at all levels, unless they exist as recorded; the root's come last.

    Args:
        folder: Folder of the model.
        grid: Grid of the map.
        header: Header of the run.
        verify: Whether to compare every byte of existing metadata with their record, not only the sizes.
    """
    record = MetadataRecord.read(folder)
    if record is not None and not record.faults(folder, whole=verify):
        return
    stamps: dict[str, Stamp] = {}
    with TemporaryDirectory(prefix="rs-embed-") as text:
        made = Path(text) / MAP
        _write_groups(made, grid, header)
        files = sorted(path for path in made.rglob("*") if path.is_file())
        for path in sorted(files, key=lambda one: one == made / "zarr.json"):
            name = path.relative_to(text).as_posix()
            make_folder((folder / name).parent)
            with replacing(folder / name) as part:
                part.write_bytes(path.read_bytes())
                stamps[name] = Stamp.of(part)
    make_folder((folder / METADATA).parent)
    write_json(folder / METADATA, sealed(MetadataRecord(files=stamps).model_dump(mode="json")))


def _write_groups(path: Path, grid: MapGrid, header: RunHeader) -> None:
    import zarr
    from zarr.storage import LocalStore

    store = LocalStore(path)
    root = zarr.create_group(store)
    for level in range(1, grid.levels + 1):
        zarr.create_group(store, path=str(level))
    for array in arrays_of(grid, header.dim, header.dtype):
        array.create(store)
    for level in range(grid.levels + 1):
        _write_coordinates(path / str(level) if level else path, geobox_at(grid, level), grid, header)
    root.update_attributes(_attributes(grid, header))  # last: xarray writes the attributes of a dataset, which has none


def geobox_at(grid: MapGrid, level: int) -> GeoBox:
    """Return the grid of an overview."""
    height, width = (side >> level for side in grid.shape)
    return GeoBox((height, width), grid.geobox.affine @ Affine.scale(2**level), grid.crs)


def _write_coordinates(group: Path, geobox: GeoBox, grid: MapGrid, header: RunHeader) -> None:
    import xarray as xr
    import zarr

    lazy = xr.DataArray(np.broadcast_to(np.float32(0), geobox.shape), dims=("y", "x"))
    placed = with_coordinates(lazy, geobox).coords
    first, last = (_moments([None if days is None else days[end] for days in grid.days]) for end in (0, 1))
    coords = {
        **placed,
        "time": ("time", first, {"long_name": "first day of the window"}),
        "time_end": ("time", last, {"long_name": "day after the window"}),
        "band": np.arange(header.dim),
    }
    xr.Dataset(coords=coords).to_zarr(group, mode="a", zarr_format=3, consolidated=False)
    found = zarr.open_group(group, mode="a")
    for name in (EMBEDDING, VALID):
        found[name].attrs.update({"grid_mapping": "spatial_ref", "_CRS": gdal_crs(geobox)})
    found[EMBEDDING].attrs["coordinates"] = "time_end"


def _moments(days: Sequence[date | None]) -> NDArray[np.datetime64]:
    return np.array([_UNKNOWN_DAY if day is None else np.datetime64(day, "ns") for day in days])


def _attributes(grid: MapGrid, header: RunHeader) -> dict[str, JsonValue]:
    cell_px = max(1, round(grid.cell_m / (header.gsd_m or grid.cell_m)))
    levels: list[JsonValue] = [_level(level) for level in range(grid.levels + 1)]
    polygons: list[JsonValue] = [[[list(corner) for corner in ring] for ring in rings] for rings in grid.region]
    return {
        **describe_grid(
            grid.geobox,
            model_id=header.model_id,
            sources=header.source_data,
            dim=header.dim,
            dtype=header.dtype,
            cell_px=cell_px,
            version=header.versions.get("rs_embed", ""),
        ),
        "multiscales": {"layout": levels, "resampling_method": "average"},
        "rs_embed:header": json.loads(header.to_json()),
        "rs_embed:region": {"type": "MultiPolygon", "coordinates": polygons},
        "rs_embed:block": {"cells": grid.cells, "cell_m": grid.cell_m, "rows": grid.rows, "columns": grid.columns},
    }


def _level(level: int) -> dict[str, JsonValue]:
    if level == 0:
        return {"asset": "."}
    return {
        "asset": str(level),
        "derived_from": "." if level == 1 else str(level - 1),
        "transform": {"scale": [2.0, 2.0], "translation": [0.0, 0.0]},
    }
