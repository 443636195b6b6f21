"""Filter the rows that a search of a run may return, by place and by column."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rs_embed.core.checks import short
from rs_embed.core.geo import densified, one_cell, prepared, project
from rs_embed.core.polygon import Ring
from rs_embed.core.specs import BBox, GridBlock, PointBuffer, SpatialSpec
from rs_embed.errors import SpecError
from rs_embed.places.single import Single, read_place

if TYPE_CHECKING:
    import pyarrow as pa
    from shapely.geometry.base import BaseGeometry

Where: TypeAlias = Mapping[str, object]
"""Column -> value, list of values, or tuple (low, high); both ends are included, and either may be `None`."""
_DEGREES = "EPSG:4326"
_NEAR_A_POLE = 84.0


@dataclass(frozen=True)
class Filter:
    """The rows that may be found; by default, all."""

    within: SpatialSpec | None = None
    where: Where = field(default_factory=dict)

    @classmethod
    def of(cls, within: "Single | None", where: Where | None) -> Self:
        """Check the user's filter, as far as possible without a table.

        Raises:
            SpecError: It is not a place, or not a mapping of columns.
        """
        if where is not None and not (isinstance(where, Mapping) and all(isinstance(name, str) for name in where)):
            raise SpecError(
                f"Expected where as a mapping of columns, got {short(where)}.",
                fix='for example where={"crop": ["maize", "wheat"], "area_ha": (1, 5)}',
            )
        for name, wanted in (where or {}).items():
            if isinstance(wanted, tuple) and len(wanted) != 2:
                raise SpecError(
                    f"Expected (low, high) for {name!r}, got {short(wanted)}.",
                    fix=f'where={{"{name}": {list(wanted)!r}}} for a choice of values',
                )
        if isinstance(within, Sequence) and not isinstance(within, str) and len(within) == 4:
            if not all(isinstance(edge, int | float) for edge in within):
                raise SpecError(f"Expected west, south, east and north, got {short(within)}.", fix="give four degrees")
            within = BBox(*within)
        place, _ = read_place(within)
        return cls(place, dict(where or {}))

    @property
    def columns(self) -> list[str]:
        """The columns that are used, besides the centre of each place."""
        return list(self.where)

    def __bool__(self) -> bool:
        return self.within is not None or bool(self.where)

    def mask(self, rows: "pa.Table") -> NDArray[np.bool_]:
        """Return which rows may be found.

        Args:
            rows: A table with `center_lon`, `center_lat` and the columns of `where`.

        Raises:
            SpecError: A value cannot be compared with its column.
        """
        mask = np.ones(len(rows), np.bool_)
        for name, wanted in self.where.items():
            mask &= _matches(rows[name], name, wanted)
        if self.within is not None:
            lon, lat = (rows[name].to_numpy().astype(float, copy=False) for name in ("center_lon", "center_lat"))
            at = np.flatnonzero(mask)
            mask[at] = _inside(self.within, lon[at], lat[at])
        return mask


def _matches(column: "pa.ChunkedArray", name: str, wanted: object) -> NDArray[np.bool_]:
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        if isinstance(wanted, tuple):
            low, high = (None if end is None else _scalar(end, column.type) for end in wanted)
            ends = [pc.greater_equal(column, low)] if low is not None else []
            ends += [pc.less_equal(column, high)] if high is not None else []
            found = ends[0] if len(ends) == 1 else pc.and_(*ends) if ends else pc.is_valid(column)
        elif isinstance(wanted, Sequence | Set | np.ndarray) and not isinstance(wanted, str):
            values = [_scalar(value, column.type).as_py() for value in wanted]
            found = pc.is_in(column, value_set=pa.array(values, column.type))
        else:
            found = pc.is_null(column) if wanted is None else pc.equal(column, _scalar(wanted, column.type))
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise SpecError(
            f"Expected values that compare with the column {name!r} ({column.type}), got {short(wanted)}.",
            fix="give a value, a list of values, or (low, high), of the type of the column",
        ) from error
    mask: NDArray[np.bool_] = pc.fill_null(found, fill_value=False).to_numpy()
    return mask


def _scalar(value: object, kind: "pa.DataType") -> "pa.Scalar":
    """Convert a value to the type of its column: text becomes a number or a time if the column contains these."""
    import pandas as pd
    import pyarrow as pa

    if isinstance(value, np.generic):
        value = value.item()
    if pa.types.is_timestamp(kind):
        moment = pd.Timestamp(value)
        if kind.tz is not None and moment.tzinfo is None:
            moment = moment.tz_localize("UTC")
        return pa.scalar(moment, kind)
    if pa.types.is_string(kind) and not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    if isinstance(value, str) and not pa.types.is_string(kind):
        return pa.scalar(value).cast(kind)
    if isinstance(value, float) and pa.types.is_integer(kind):
        return pa.scalar(value)  # 2.5 is between two integers
    return pa.scalar(value, kind)


def _inside(place: SpatialSpec, lon: NDArray[np.float64], lat: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which points are in a place or on its border."""
    import shapely

    if isinstance(place, BBox) and place.is_geographic:
        width = place.maxlon - place.minlon + (360 if place.maxlon < place.minlon else 0)
        inside: NDArray[np.bool_] = np.mod(lon - place.minlon, 360) <= width
        inside &= (lat >= place.minlat) & (lat <= place.maxlat)
        return inside
    shape, crs = _shape(place)
    near = np.flatnonzero(_near(shape, crs, lon, lat))
    xs, ys = (lon[near], lat[near]) if crs == _DEGREES else project(lon[near], lat[near], _DEGREES, crs)
    inside = np.zeros(len(lon), np.bool_)
    inside[near] = shapely.intersects_xy(prepared(shape), xs, ys)
    return inside


def _shape(place: SpatialSpec) -> "tuple[BaseGeometry, str]":
    """A place as a polygon in a CRS."""
    import shapely

    if isinstance(place, PointBuffer):
        cell = one_cell(place)
        return shapely.box(*cell.boundingbox), str(cell.crs)
    if isinstance(place, BBox):
        return shapely.box(place.minlon, place.minlat, place.maxlon, place.maxlat), place.crs
    if isinstance(place, GridBlock):
        return shapely.box(place.west, place.south, place.east, place.north), place.crs
    parts = [shapely.Polygon(rings[0], rings[1:]) for rings in place.parts]
    return shapely.union_all(parts), _DEGREES if place.crs.upper() == _DEGREES else place.crs


def _near(shape: "BaseGeometry", crs: str, lon: NDArray[np.float64], lat: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which points are in the box around it, in degrees, so that only few are projected."""
    if crs == _DEGREES:
        west, south, east, north = shape.bounds
    else:
        lons, lats = project(*densified(_ring(shape.bounds)), crs, _DEGREES)
        if not np.isfinite(lons).all() or np.abs(lats).max() > _NEAR_A_POLE:
            return np.isfinite(lon)
        lons = np.unwrap(lons, period=360)
        west, south, east, north = lons.min(), lats.min(), lons.max(), lats.max()
    margin = 0.01 * (north - south + east - west) if crs != _DEGREES else 0.0
    near: NDArray[np.bool_] = np.mod(lon - west + margin, 360) <= east - west + 2 * margin
    near &= (lat >= south - margin) & (lat <= north + margin)
    return near


def _ring(edges: tuple[float, float, float, float]) -> Ring:
    west, south, east, north = edges
    return ((west, south), (east, south), (east, north), (west, north), (west, south))
