"""Work units: which rows of a table are done together. Pure functions, so that every process makes the same units."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rs_embed.core.geo import utm_epsg
from rs_embed.core.optional import require
from rs_embed.places.columns import Places

UNIT_ROWS = 4096
"""Rows per file: 12.6 MB for 768 float32."""
TABLES, RECORDS, GRIDS, MAP = "units", "records", "grids", "map.zarr"
"""Folders of a model. The first holds only tables, so that readers can open it as one dataset."""
_HILBERT_LEVEL = 16
"""The Earth in 65,536 x 65,536 cells of at most 600 m; constant, so that a row's cell depends only on its place."""


@dataclass(frozen=True, eq=False)
class WorkUnit:
    """The rows of one table."""

    number: int
    rows: NDArray[np.int64]
    """Row numbers in the user's table, in the order in which they are done and stored."""

    @property
    def name(self) -> str:
        """The name of its files."""
        return f"u{self.number:06d}"


@dataclass(frozen=True, eq=False)
class Units:
    """All units of a table."""

    order: NDArray[np.int64]
    """Every row number once, in an order that keeps neighbouring places together."""
    unit_rows: int

    def __len__(self) -> int:
        return (len(self.order) + self.unit_rows - 1) // self.unit_rows

    def __getitem__(self, number: int) -> WorkUnit:
        start = number * self.unit_rows
        return WorkUnit(number, self.order[start : start + self.unit_rows])

    def __iter__(self) -> Iterator[WorkUnit]:
        return (self[number] for number in range(len(self)))

    def digest(self) -> str:
        """Return a sha256 of which row is in which unit."""
        text = f"units of {self.unit_rows}:".encode()
        return hashlib.sha256(text + np.ascontiguousarray(self.order).tobytes()).hexdigest()


def cut_units(places: Places, unit_rows: int = UNIT_ROWS) -> Units:
    """Cut a table into units of at most `unit_rows` rows, by UTM zone and along a Hilbert curve within each zone.

    So neighbouring places come from the same scenes, and readers find a region in few files.

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
