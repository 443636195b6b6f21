"""Many places as columns: a million rows are a few arrays; a `Place` is made for one row at a time."""

import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from rs_embed.core.geo import outline, project
from rs_embed.core.specs import BBox, GridBlock, PointBuffer, Region, SpatialSpec, TemporalSpec
from rs_embed.errors import StorageError
from rs_embed.places.kept import Kept, KeptRow, of_arrays
from rs_embed.places.strings import Strings

Days = NDArray[np.datetime64]
_UNREADABLE = (OSError, EOFError, BadZipFile, zlib.error, KeyError, ValueError, TypeError, NotImplementedError)
"""What numpy and zipfile raise for a file that is not ours or is damaged."""


@dataclass(frozen=True)
class Place:
    """One row of a table of places."""

    index: int
    """Row number in the user's table, from 0."""
    id: str
    spatial: SpatialSpec
    window: TemporalSpec | None
    kept: KeptRow = field(default_factory=KeptRow)
    """Other columns of the row: name -> value."""


@dataclass(frozen=True, eq=False)
class Places:
    """A table of places, checked when it was read. `read_places` makes one."""

    rows: NDArray[np.int64]
    """Row numbers in the user's table, from 0."""
    ids: Strings | None
    """Ids of the rows; `None` if the row numbers are the ids."""
    lon: NDArray[np.float64]
    """Longitude of points, degrees east; NaN for boxes and polygons."""
    lat: NDArray[np.float64]
    buffer_m: NDArray[np.float64]
    outlines: Strings | None
    """Boxes and polygons as text (`outline_text`), empty for points; `None`: all are points."""
    start: Days
    """First day of the window; NaT for rows without a window."""
    end: Days
    """The day after the last day of the window."""
    kept: Mapping[str, Kept] = field(default_factory=dict)
    """Other columns of the table, by name."""
    taken: Mapping[str, str] = field(default_factory=dict)
    """Role -> column that was used for it: "id", "lon", ..."""

    def __repr__(self) -> str:
        taken = [f"{what} from {name!r}" for what, name in self.taken.items()]
        if self.ids is None:
            taken.append("ids are row numbers")
        kept = [f"kept: {', '.join(self.kept)}"] if self.kept else []
        return f"Places({'; '.join([f'{len(self):,} rows', *taken, *kept])})"

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Place:
        row = int(self.rows[index])
        name = str(row) if self.ids is None else self.ids[index]
        return Place(row, name, self._spatial(index), self._window(index), KeptRow(self.kept, index))

    def __iter__(self) -> Iterator[Place]:
        return (self[index] for index in range(len(self)))

    def _spatial(self, index: int) -> SpatialSpec:
        text = "" if self.outlines is None else self.outlines[index]
        if text:
            return outline_spec(text)
        return PointBuffer(float(self.lon[index]), float(self.lat[index]), float(self.buffer_m[index]))

    def _window(self, index: int) -> TemporalSpec | None:
        if np.isnat(self.start[index]):
            return None
        return TemporalSpec(self.start[index].astype(object), self.end[index].astype(object))

    def take(self, indices: Sequence[int] | NDArray[np.int64]) -> "Places":
        """Select rows, in this order; they keep their row numbers."""
        at = np.asarray(indices, np.int64)
        return Places(
            self.rows[at],
            None if self.ids is None else self.ids.take(at),
            self.lon[at],
            self.lat[at],
            self.buffer_m[at],
            None if self.outlines is None else self.outlines.take(at),
            self.start[at],
            self.end[at],
            {name: column.take(at) for name, column in self.kept.items()},
            self.taken,
        )

    def centres(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return longitude and latitude of the centre of every place, degrees."""
        lon, lat = self.lon.copy(), self.lat.copy()
        for index in np.flatnonzero(np.isnan(lon)):
            lon[index], lat[index] = _middle(self._spatial(int(index)))
        return lon, lat

    def digest(self) -> str:
        """Return the sha256 of ids, places, days and kept columns of all rows, in order."""
        total = hashlib.sha256(f"places 1, {len(self)} rows, ids {self.ids is not None}".encode())
        for name, column in self._columns().items():
            total.update(f"{name} {column.dtype} {column.shape}".encode())
            total.update(np.ascontiguousarray(column).tobytes())
        return total.hexdigest()

    def _columns(self) -> dict[str, NDArray[np.generic]]:
        columns: dict[str, NDArray[np.generic]] = {"rows": self.rows}
        columns |= {"lon": self.lon, "lat": self.lat, "buffer_m": self.buffer_m}
        columns |= {"start": self.start.astype(np.int64), "end": self.end.astype(np.int64)}
        for name, texts in (("ids", self.ids), ("outlines", self.outlines)):
            if texts is not None:
                columns |= {name: texts.data, f"{name}_offsets": texts.offsets}
        if self.kept:
            told = json.dumps([[name, column.kind] for name, column in self.kept.items()]).encode()
            columns[_KEPT] = np.frombuffer(told, np.uint8)
        for number, column in enumerate(self.kept.values()):
            columns |= {f"{_KEPT}_{number}{part}": array for part, array in column.arrays().items()}
        return columns

    def save(self, path: Path) -> None:
        """Write all columns to an `.npz` file."""
        with path.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **self._columns())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file that `save` wrote.

        Raises:
            StorageError: It is not such a file.
        """
        try:
            with (
                path.open("rb") as file,
                np.load(file, allow_pickle=False) as columns,
            ):
                found = dict(columns)
            ids, outlines = (
                Strings(found[name], found[f"{name}_offsets"]) if name in found else None
                for name in ("ids", "outlines")
            )
            rows, lon, lat, buffer_m = (found[name] for name in ("rows", "lon", "lat", "buffer_m"))
            start, end = (found[name].astype("datetime64[D]") for name in ("start", "end"))
            kept = _kept(found)
        except _UNREADABLE as error:
            raise StorageError(
                f"Expected the places of a run at {str(path)!r}, got: {type(error).__name__}: {error}.",
                fix="repeat the call of export_embeddings with the table and verify=True, which writes this file again",
            ) from error
        return cls(rows, ids, lon, lat, buffer_m, outlines, start, end, kept)


_KEPT = "kept"


def _kept(found: Mapping[str, NDArray[np.generic]]) -> dict[str, Kept]:
    """Read the kept columns of a file; files of earlier versions have none."""
    told = json.loads(found[_KEPT].tobytes()) if _KEPT in found else []
    columns = {}
    for number, (name, kind) in enumerate(told):
        start = f"{_KEPT}_{number}"
        parts = ("", "_offsets", "_missing")
        columns[name] = of_arrays(kind, {part: found[start + part] for part in parts if start + part in found})
    return columns


def outline_text(spatial: BBox | Region | GridBlock) -> str:
    """Write a box, polygon or block as text, from which `outline_spec` makes the same one."""
    if isinstance(spatial, GridBlock):
        edges = [spatial.west, spatial.south, spatial.east, spatial.north, spatial.before_m, spatial.after_m]
        return f"{spatial.crs};{json.dumps({_BLOCK: edges})}"
    if isinstance(spatial, BBox):
        corners = [spatial.minlon, spatial.minlat, spatial.maxlon, spatial.maxlat]
        return f"{spatial.crs};{json.dumps(corners)}"
    if spatial.others:
        return f"{spatial.crs};{json.dumps({'type': 'MultiPolygon', 'coordinates': spatial.parts})}"
    return f"{spatial.crs};{json.dumps({'type': 'Polygon', 'coordinates': spatial.polygon})}"


_BLOCK = "block"


def outline_spec(text: str) -> BBox | Region | GridBlock:
    """The box, polygon or block that a text of `outline_text` describes."""
    crs, _, geometry = text.rpartition(";")
    shape = json.loads(geometry)
    if _BLOCK in shape:
        west, south, east, north, before_m, after_m = shape[_BLOCK]
        return GridBlock(west, south, east, north, crs, before_m, after_m)
    if isinstance(shape, list):
        minlon, minlat, maxlon, maxlat = shape
        return BBox(minlon, minlat, maxlon, maxlat, crs)
    return Region(shape, crs)


def _middle(spatial: SpatialSpec) -> tuple[float, float]:
    if isinstance(spatial, PointBuffer):
        return spatial.lon, spatial.lat
    lons, lats = project(*outline(spatial), spatial.crs, "EPSG:4326")
    middle = float(lons.min() + lons.max()) / 2
    return (middle + 180) % 360 - 180, float(lats.min() + lats.max()) / 2
