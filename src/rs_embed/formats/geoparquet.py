"""The parts of GeoParquet: the file header, and a bounding box per row, by which readers skip rows."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import shapely
from pyproj import CRS

from rs_embed.formats.footprint import Footprint

if TYPE_CHECKING:
    import pyarrow as pa


def covering(shapes: Sequence[Footprint | None]) -> "pa.Array":
    """Return a bounding box per row; -180 to 180 for a shape across the antimeridian, so that no reader skips it."""
    import pyarrow as pa

    bounds = np.array([(np.nan,) * 4 if shape is None else shape.bounds for shape in shapes]).reshape(-1, 4)
    sides = [pa.array(bounds[:, i], pa.float64()) for i in range(4)]
    empty = pa.array([shape is None for shape in shapes], pa.bool_())
    return pa.StructArray.from_arrays(sides, names=["xmin", "ymin", "xmax", "ymax"], mask=empty)


def geo_key(table: "pa.Table") -> str:
    """Return the key `geo` for the rows of an existing table."""
    return json.dumps(geo_header(list(shapely.from_wkb(table["geometry"].to_pylist()))), sort_keys=True)


def geo_header(shapes: Sequence[Footprint | None]) -> dict[str, object]:
    """Return the content of the key `geo`. Source: GeoParquet 1.1.0, "File Metadata"."""
    known = [shape for shape in shapes if shape is not None]
    column: dict[str, object] = {
        "encoding": "WKB",
        "geometry_types": sorted({shape.geom_type for shape in known}),
        "crs": CRS.from_epsg(4326).to_json_dict(),
        "edges": "planar",
        "orientation": "counterclockwise",
        "covering": {"bbox": {side: ["bbox", side] for side in ("xmin", "ymin", "xmax", "ymax")}},
    }
    if known:
        column["bbox"] = list(shapely.total_bounds(known))
    return {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
