"""One place, in any of the forms that a table of places has."""

import numbers
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rs_embed.core.checks import short
from rs_embed.core.polygon import GeoInterface
from rs_embed.core.specs import SpatialSpec, TemporalSpec
from rs_embed.errors import SpecError
from rs_embed.places.columns import Place, Places
from rs_embed.places.reading import Given, is_frame, read_places, unpacked

if TYPE_CHECKING:
    import pandas as pd

Single: TypeAlias = """
    SpatialSpec | GeoInterface | Mapping[str, object] | Sequence[object] | NDArray[np.floating] | Place | Places
    | pd.DataFrame | str | Path
"""
"""Anything that can be read as one place."""


def read_place(
    given: "Single | None", temporal: TemporalSpec | None = None, buffer_m: float | None = None
) -> tuple[SpatialSpec | None, TemporalSpec | None]:
    """Read one place and its window; each is `None` if it is not given.

    Args:
        given: A spec; a (lon, lat); a shapely or GeoJSON geometry, degrees; a table, list or file with one place.
        temporal: The window, if a table does not have it.
        buffer_m: Half the side of the square around a point, metres.

    Raises:
        SpecError: It is not a place, or several.
    """
    if temporal is not None and not isinstance(temporal, TemporalSpec):
        raise SpecError(
            f"Expected a TemporalSpec, got {short(temporal)}.",
            fix='TemporalSpec.range("2022-06-01", "2022-09-01") or TemporalSpec.year(2022)',
        )
    if given is None or isinstance(given, SpatialSpec):
        if buffer_m is not None:
            raise SpecError("Expected buffer_m with a point, got it beside another place.", fix="leave it out")
        return given, temporal
    if not isinstance(given, Place):
        is_read = isinstance(given, Places)
        table = read_places(listed(given), temporal=None if is_read else temporal, buffer_m=buffer_m)
        if len(table) != 1:
            raise SpecError(
                f"Expected one place, got {len(table):,}.", fix="get_embeddings(...) for several, or choose one of them"
            )
        given, temporal = table[0], temporal if is_read else None
    if given.window is not None and temporal is not None:
        raise SpecError("Expected the days once, got the argument temporal and those of the row.", fix="leave it out")
    return given.spatial, given.window or temporal


def listed(given: "Single") -> "Given":
    """Put anything that is not a table into a list."""
    given = unpacked(given)
    if isinstance(given, Places | str | Path) or is_frame(given):
        return given
    if isinstance(given, np.ndarray) and given.ndim == 1:
        given = given.tolist()
    if isinstance(given, Mapping | GeoInterface):
        return [given]
    is_pair = isinstance(given, Sequence) and len(given) == 2 and all(isinstance(one, numbers.Number) for one in given)
    return [given] if is_pair else given
