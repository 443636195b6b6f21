"""Find out which column of a table holds what: from the caller, or by the usual names."""

import re
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal

from rs_embed.core.checks import short
from rs_embed.errors import ChoiceWarning, SpecError, warn
from rs_embed.places.kept import OURS, Kept, keep_column
from rs_embed.places.texts import SEPARATORS, UNNAMED

if TYPE_CHECKING:
    import pandas as pd

Column = str | Literal[False] | None
"""A column's name; `None` looks for the usual names; `False` means that there is none."""

_USUAL: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "id": (("id",),),
    "lon": (("lon", "longitude", "lng", "long", "decimallongitude"), ("x", "point_x")),
    "lat": (("lat", "latitude", "decimallatitude"), ("y", "point_y")),
    "start": (("start", "start_date", "start_datetime"),),
    "end": (("end", "end_date", "end_datetime"),),
    "date": (("date",),),
    "year": (("year",),),
    "buffer_m": (("buffer_m", "buffer"),),
    "geometry": (("geometry", "geom", "wkt"),),
}
"""Usual names, in any case; a later group counts only if no name of an earlier one is found."""


@dataclass(frozen=True)
class Columns:
    """Which column holds what, as the caller says."""

    id: Column = None
    lon: Column = None
    lat: Column = None
    start: Column = None
    end: Column = None
    date: Column = None
    year: Column = None
    buffer_m: Column = None
    geometry: Column = None

    def found(self, names: Collection[str]) -> dict[str, str]:
        """Return role -> column for a table with these names; roles without a column are left out.

        Raises:
            SpecError: A given column does not exist, or several columns have a usual name.
        """
        columns = {field.name: _column(field.name, vars(self)[field.name], names) for field in fields(self)}
        return {what: name for what, name in columns.items() if name is not None}


def _column(what: str, given: Column, names: Collection[str]) -> str | None:
    if given is False:
        return None
    if given is not None:
        if not isinstance(given, str | int) or given not in names:
            raise SpecError(
                f"Expected the column {short(given)} for {what}, got a table without one of that name.",
                columns=", ".join(map(str, names)),
                fix=f"{what}=<one of them>",
            )
        return given
    for group in _USUAL[what]:
        usual = [name for name in names if isinstance(name, str) and name.strip().lower() in group]
        if len(usual) > 1:
            raise SpecError(
                f"Expected one column for {what}, got {', '.join(map(repr, usual))}.", fix=f"{what}={usual[0]!r}"
            )
        if usual:
            return usual[0]
    return None


def which_where(found: Mapping[str, str], columns: Columns, names: Collection[str]) -> Literal["geometry", "points"]:
    """Decide which columns hold the place: those that were named, else the only ones that exist."""
    has_points, has_geometry = {"lon", "lat"} <= set(found), "geometry" in found
    if has_points and has_geometry and not (columns.lon or columns.lat or columns.geometry):
        raise SpecError(
            "Expected coordinates or geometries, got both.",
            columns=f"{found['lon']!r}, {found['lat']!r} and {found['geometry']!r}",
            fix="geometry=False, or lon=False and lat=False",
        )
    if has_geometry and not (columns.lon or columns.lat):
        return "geometry"
    if has_points:
        return "points"
    missing = [what for what in ("lon", "lat") if what not in found]
    guesses = {what: found.get(what) or _likely(_LIKELY[what], names) for what in ("lon", "lat")}
    named = ", ".join(f"{what}={'...' if guess is None else guess!r}" for what, guess in guesses.items())
    missing = [what for what in ("lon", "lat") if what not in found]
    guesses = {what: found.get(what) or _likely(_LIKELY[what], names) for what in ("lon", "lat")}
    named = ", ".join(f"{what}={guess!r}" for what, guess in guesses.items())
    one = f"; a table of text has its fields separated by one of {SEPARATORS!r}" if len(names) == 1 else ""
    raise SpecError(
        "Expected columns of longitude and latitude, or a geometry, got neither."
        if len(missing) == 2
        else f"Expected columns of longitude and latitude, got none for {missing[0]}.",
        columns=", ".join(map(str, names)),
        fix=f"name them: read_places(table, {named}){one}",
    )


_LIKELY: Mapping[str, tuple[str, ...]] = {"lon": ("lon", "lng", "east", "x"), "lat": ("lat", "north", "y")}
"""What names of coordinates have in them: good enough for a suggestion, not for a choice."""


def _likely(parts: Sequence[str], names: Collection[str]) -> str:
    """A column that may be meant; `...` where none looks so."""
    texts = [name for name in names if isinstance(name, str)]
    for part in parts:
        for name in texts:
            if part in re.split(r"[^a-z]+", name.lower()) or (len(part) > 1 and part in name.lower()):
                return name
    return "..."


def _is_geo(frame: "pd.DataFrame") -> bool:
    geopandas = sys.modules.get("geopandas")  # no GeoDataFrame without it
    return geopandas is not None and isinstance(frame, geopandas.GeoDataFrame)


def with_active_geometry(columns: Columns, frame: "pd.DataFrame") -> Columns:
    """A GeoDataFrame says itself which column is the geometry."""
    if not _is_geo(frame) or columns.geometry is not None or columns.lon or columns.lat:
        return columns
    active = frame.active_geometry_name
    named = {field.name: vars(columns)[field.name] for field in fields(columns)}
    return columns if active is None else Columns(**named | {"geometry": active, "lon": False, "lat": False})


def likely_id(frame: "pd.DataFrame", taken: Collection[str]) -> dict[str, str]:
    """Find the only column whose name ends in `_id`, if its values are unique: `plot_id`, but not `tile_id`."""
    names = [name for name in frame.columns if isinstance(name, str) and name.strip().lower().endswith("_id")]
    names = [name for name in names if name not in taken and name.lower() not in OURS]
    if len(names) != 1 or frame[names[0]].isna().any() or frame[names[0]].astype(str).duplicated().any():
        return {}
    return {"id": names[0]}


def kept_columns(frame: "pd.DataFrame", found: Mapping[str, str]) -> dict[str, Kept]:
    """Return all columns without a role, and the ids as well if their column is not called `id`."""
    taken = {name for what, name in found.items() if what != "id" or name.strip().lower() == "id"}
    if "geometry" in found:  # what says the same in numbers
        taken |= {
            name for name in frame.columns if str(name).strip().lower() in ("lon", "lat", "longitude", "latitude")
        }
    others = {str(name): frame[name] for name in frame.columns if name not in taken}
    others = {name: column for name, column in others.items() if not name.startswith(UNNAMED)}
    kept = {name: keep_column(name, column) for name, column in others.items()}
    clashing = [name for name, column in kept.items() if column is not None and name.lower() in OURS]
    told = [
        name for name in clashing if name.lower() not in ("id", "geometry")
    ]  # these were switched off by the caller
    if told:
        warn(
            f"Columns with names of result columns are not kept: {', '.join(told)}. Rename them to keep them.",
            ChoiceWarning,
        )
    return {name: column for name, column in kept.items() if column is not None and name not in clashing}
