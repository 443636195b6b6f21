"""Imagery in true colour for the page of a result that holds none."""

import re
from pathlib import Path

from odc.geo.geobox import GeoBox

from rs_embed.core.chip import Chip
from rs_embed.core.geo import pixel_size_m, refined
from rs_embed.core.specs import SensorSpec, TemporalSpec
from rs_embed.embedding.meta import Meta
from rs_embed.errors import SpecError
from rs_embed.explore.facts import credit_of
from rs_embed.explore.pictures import PICTURE_PX, RGB
from rs_embed.pipeline.request import Backend
from rs_embed.plan import opened
from rs_embed.providers.base import Query

_S2 = "COPERNICUS/S2_SR_HARMONIZED"
_FINEST_M = 10.0
"""Pixels of Sentinel-2; rasters of the user may be finer."""
_M_PER_DEGREE = 111_320.0
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


def true_colour(imagery: Backend, geobox: GeoBox | None, window: TemporalSpec | None) -> Chip:
    """Fetch red, green and blue on a refinement of a grid.

    Args:
        imagery: A backend, for Sentinel-2 of these days, or the path of a raster with these colours, whatever its date.
        geobox: The grid.
        window: The days of the result.

    Raises:
        SpecError: The grid has no place.
        RSEmbedError: The imagery could not be obtained.
    """
    if geobox is None or geobox.crs is None:
        raise SpecError("Expected a grid with a place, got one of an array.", fix="leave the imagery out")
    cell_m = pixel_size_m(geobox) * (_M_PER_DEGREE if geobox.crs.geographic else 1)
    times = PICTURE_PX // max(geobox.shape)
    if not _is_file(imagery):
        times = min(times, round(cell_m / _FINEST_M))
    times = max(1, times)
    sensor = SensorSpec(_S2, RGB, scale_m=cell_m / times)
    query = Query("true colour", sensor, refined(geobox, times), None if _is_file(imagery) else window)
    return opened(imagery).fetch(query)


def days_of_request(meta: Meta) -> TemporalSpec | None:
    """Return the days that an embedding was requested for; `None` if none were named."""
    days = _DAY.findall(meta.temporal or "")
    return TemporalSpec.range(*days) if len(days) == 2 else None


def with_imagery(credit: str, imagery: Backend, chip: Chip) -> str:
    """Add the source of the imagery to the line that names sources."""
    year = "" if chip.times[0] is None else f"{chip.times[0].year}"
    own = f"Imagery: {Path(str(imagery)).name}" if _is_file(imagery) else credit_of((chip.source.collection,), year)
    return own if own.startswith(credit) else f"{credit}; {own}"


def _is_file(imagery: Backend) -> bool:
    return isinstance(imagery, str | Path) and Path(imagery).expanduser().exists()
