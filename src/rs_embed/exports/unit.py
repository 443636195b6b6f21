"""Work units: which rows of a table are done together. Pure, so that every process cuts a table alike."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rs_embed.core.geo import utm_epsg
from rs_embed.core.optional import require
from rs_embed.places.columns import Places

UNIT_ROWS = 4096
"""One file: 12.6 MB of 768 float32."""
TABLES, RECORDS, GRIDS, MAP = "units", "records", "grids", "map.zarr"
"""Folders of a model: nothing but tables in the first, so that any reader takes it whole."""
_HILBERT_LEVEL = 16
"""The Earth in 65,536 x 65,536 cells, 600 m and less; always the same, so that a row's cell depends on it alone."""


@dataclass(frozen=True, eq=False)
class WorkUnit:
    """Rows that stand in one table."""

    number: int
    rows: NDArray[np.int64]
    """Row numbers of the table, in the order in which they are done and stored."""

    @property
    def name(self) -> str:
        """Of its files."""
        return f"u{self.number:06d}"


@dataclass(frozen=True, eq=False)
class Units:
    """All units of a table."""

    order: NDArray[np.int64]
    """Every row number once: neighbours on the ground are neighbours here."""
    unit_rows: int

    def __len__(self) -> int:
        return (len(self.order) + self.unit_rows - 1) // self.unit_rows

    def __getitem__(self, number: int) -> WorkUnit:
        start = number * self.unit_rows
        return WorkUnit(number, self.order[start : start + self.unit_rows])

    def __iter__(self) -> Iterator[WorkUnit]:
        return (self[number] for number in range(len(self)))

    def digest(self) -> str:
        """sha256 of which row is in which unit."""
        text = f"units of {self.unit_rows}:".encode()
        return hashlib.sha256(text + np.ascontiguousarray(self.order).tobytes()).hexdigest()


def cut_units(places: Places, unit_rows: int = UNIT_ROWS) -> Units:
    """The rows by UTM zone, along a Hilbert curve within each, cut into units of at most `unit_rows`.

    Neighbours come from the same scenes, and readers of the files find a region in few of them.

    Raises:
        MissingDependency: geopandas is not installed.
    """
    require("geopandas", "export")
    import geopandas

    lon, lat = places.centres()
    zone = np.vectorize(utm_epsg, otypes=[np.int64])(lon, lat)
    points = geopandas.GeoSeries.from_xy(lon, lat)
    along = points.hilbert_distance(total_bounds=(-180, -90, 180, 90), level=_HILBERT_LEVEL).to_numpy()
    return Units(np.lexsort((np.arange(len(places)), along, zone)).astype(np.int64), unit_rows)
