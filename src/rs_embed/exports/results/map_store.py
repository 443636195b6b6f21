"""Read the metadata of a map: its model, region, grid, overviews and times, and how much of it is done."""

import json
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS
from pyproj.exceptions import CRSError
from shapely.geometry.base import BaseGeometry

from rs_embed.core.checks import require_crs, short
from rs_embed.core.geo import prepared
from rs_embed.core.specs import TemporalSpec
from rs_embed.errors import SpecError, StorageError
from rs_embed.exports.results.map_level import Level, ground
from rs_embed.formats.base import RunHeader
from rs_embed.formats.fields import HEADER_FIELD
from rs_embed.formats.parts import UNREADABLE

if TYPE_CHECKING:
    import zarr
    from zarr.abc.store import Store

REGION_FIELD = "rs_embed:region"
Time: TypeAlias = int | str | date | np.datetime64 | TemporalSpec | None
"""One time of a map: its number, a day in it ("2022-06-15"), the beginning of its start ("2022"), or its window."""


@dataclass(frozen=True)
class StoredMap:
    """The metadata of a map; its levels read values when they are asked for."""

    header: RunHeader
    region: BaseGeometry
    """The requested region, in the CRS of the map."""
    crs: CRS
    levels: tuple[Level, ...]
    """The map, then its overviews, each with half the resolution of the one before."""
    times: tuple[TemporalSpec | None, ...]
    """The windows of days, in order; a single `None` if no days were requested."""

    @classmethod
    def read(cls, path: Path, store: "Store | None") -> "StoredMap":
        """Read only the metadata.

        Args:
            path: Path of the Zarr store.
            store: The store to read its arrays from; by default, the one at `path`.

        Raises:
            StorageError: It is not a map of rs_embed, or it is damaged.
        """
        import zarr
        from zarr.storage import LocalStore

        try:
            group = zarr.open_group(store or LocalStore(path, read_only=True), mode="r", use_consolidated=False)
            told = group.attrs.asdict()
            written = told[HEADER_FIELD]
            header = RunHeader.from_json(written if isinstance(written, str) else json.dumps(written))
            region = shapely.from_geojson(json.dumps(told[REGION_FIELD]))
            crs = CRS(str(told.get("proj:code") or told["proj:wkt2"]))
            transform = np.array(told["spatial:transform"], np.float64)
            return cls(header, region, crs, _levels(path, group, Affine(*transform[:6]), crs), _windows(group))
        except (*UNREADABLE, shapely.errors.ShapelyError) as error:
            raise StorageError(
                f"Expected a map of embed_region at {str(path)!r}, got something else or a damaged one "
                f"({type(error).__name__}: {error}).",
                fix="give the folder that was the `out` of embed_region",
            ) from error

    def time_number(self, time: Time) -> int:
        """See `EmbeddingMap.time_number`."""
        found = [number for number, window in enumerate(self.times) if _is_meant(time, number, window)]
        if len(found) != 1:
            listed = ", ".join(f"{number}: {window}" for number, window in enumerate(self.times[:12]))
            last = self.times[-1]
            raise SpecError(
                f"Expected one of the {len(self.times)} times of the map, got {short(time)}, which fits {len(found)}.",
                times=listed + (", ..." if len(self.times) > 12 else ""),
                fix=f'for example time="{last.start}"' if last else "leave time out",
            )
        return found[0]

    @property
    def blocks(self) -> int:
        """Number of blocks to make, over all times."""
        return int(self._needed.sum()) * len(self.times)

    @property
    def done(self) -> float:
        """See `EmbeddingMap.done`."""
        there = 0
        for time in range(len(self.times)):
            rows, cols = np.array(self.levels[0].done(time), int).reshape(-1, 2).T
            there += int(self._needed[rows, cols].sum())
        return there / max(1, self.blocks)

    @cached_property
    def _needed(self) -> NDArray[np.bool_]:
        """Which blocks contain a part of the region."""
        level = self.levels[0]
        region = prepared(self.region)
        return np.stack([self._held(region, row) for row in range(level.blocks[0])])

    def _held(self, region: BaseGeometry, row: int) -> NDArray[np.bool_]:
        """One row of `_needed`; boxes of all blocks at once could take too much memory."""
        level = self.levels[0]
        block, (height, width) = level.block, level.geobox.shape
        cols = np.arange(level.blocks[1])
        left, top = ground(level.geobox, np.full_like(cols, row * block), cols * block)
        south, east = np.full_like(cols, min((row + 1) * block, height)), np.minimum((cols + 1) * block, width)
        right, bottom = ground(level.geobox, south, east)
        boxes = shapely.box(left, bottom, right, top)
        held: NDArray[np.bool_] = shapely.intersects(region, boxes) & ~shapely.touches(region, boxes)
        return held


def crs_named(name: str) -> CRS:
    """Return the CRS with a name.

    Raises:
        SpecError: There is none.
    """
    require_crs(name)
    try:
        return CRS(name)
    except CRSError as error:
        raise SpecError(
            f"Expected a CRS that pyproj knows, got {name!r}.", fix='for example crs="EPSG:32633"'
        ) from error


def _levels(path: Path, group: "zarr.Group", affine: Affine, crs: CRS) -> tuple[Level, ...]:
    import zarr

    name = f"EPSG:{crs.to_epsg()}" if crs.to_epsg() else crs.to_wkt()
    levels: list[Level] = []
    part: object = group
    while isinstance(part, zarr.Group):
        number = len(levels)
        levels.append(Level(part, path / str(number) if number else path, affine @ Affine.scale(2**number), name))
        part = group.get(str(number + 1))
    return tuple(levels)


def _windows(group: "zarr.Group") -> tuple[TemporalSpec | None, ...]:
    import xarray as xr

    parts = {}
    for name in ("time", "time_end"):
        array = group[name]
        parts[name] = xr.Variable("window", np.asarray(array[...]), array.attrs.asdict())  # type: ignore[index]
    decoded = xr.decode_cf(xr.Dataset(parts))
    starts, ends = (decoded[name].to_numpy().astype("datetime64[D]") for name in parts)
    return tuple(
        None if np.isnat(start) else TemporalSpec(start.astype(object), end.astype(object))
        for start, end in zip(starts, ends, strict=True)
    )


def _is_meant(time: Time, number: int, window: TemporalSpec | None) -> bool:
    if time is None or window is None:
        return time is None or time == 0
    if isinstance(time, TemporalSpec):
        return time == window
    if isinstance(time, int | np.integer):
        return time == number or str(window.start).startswith(f"{time}-")
    text = str(time)[:10]
    return str(window.start).startswith(text) or (len(text) == 10 and str(window.start) <= text < str(window.end))
