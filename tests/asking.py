"""Queries in one line."""

from odc.geo.geobox import GeoBox

from rs_embed.core.specs import Composite, SensorSpec, TemporalSpec
from rs_embed.providers.base import Query

S2, L1C = "COPERNICUS/S2_SR_HARMONIZED", "COPERNICUS/S2_HARMONIZED"
S1, S1_FLOAT = "COPERNICUS/S1_GRD", "COPERNICUS/S1_GRD_FLOAT"
RGB = ("B4", "B3", "B2")


def ask(
    bands: tuple[str, ...] = RGB,
    geobox: GeoBox | None = None,
    *,
    collection: str = S2,
    window: TemporalSpec | None = None,
    composite: Composite = "median",
    scale_m: float = 10.0,
) -> Query:
    """A query for the modality "M"."""
    return Query("M", SensorSpec(collection, bands, scale_m=scale_m, composite=composite), geobox, window)


def grid(col: float, row: float, width: int, height: int, pixel_m: float = 10.0) -> GeoBox:
    """Columns and rows counted in 10 m pixels from the corner of the rasters that `make_raster` writes."""
    from affine import Affine

    west, north = 600_000 + 10 * col, 5_300_000 - 10 * row
    return GeoBox((height, width), Affine(pixel_m, 0, west, 0, -pixel_m, north), "EPSG:32633")
