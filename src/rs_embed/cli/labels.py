"""The options that say where labels are, for all commands that take some."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rs_embed.cli.options import OptionSet, either, together
from rs_embed.core.specs import TemporalSpec

if TYPE_CHECKING:
    from rs_embed.learning.labels import Labels

_label = partial(typer.Option, rich_help_panel="Labels")
_when = partial(typer.Option, rich_help_panel="Imagery and time")
LabelTable = Annotated[
    Path, typer.Argument(metavar="TABLE", help="CSV, Parquet, GeoJSON, GeoPackage or shapefile of labelled places.")
]


@dataclass(frozen=True)
class LabelOptions(OptionSet):
    """The options that say which column holds labels, and where and when its places are."""

    label: Annotated[str, _label(help="Column of the labels; several columns of 0 and 1, joined by commas.")]
    kind: Annotated[Literal["classes", "number", "multilabel"] | None, _label(help="What whole numbers mean.")] = None
    id_column: Annotated[str | None, _label(metavar="COLUMN", help="Column of the ids.")] = None
    lon_column: Annotated[str | None, _label(metavar="COLUMN", help="Column of the longitude, or of x in --crs.")] = (
        None
    )
    lat_column: Annotated[str | None, _label(metavar="COLUMN", help="Column of the latitude, or of y in --crs.")] = None
    year_column: Annotated[str | None, _label(metavar="COLUMN", help="Column of the calendar years.")] = None
    crs: Annotated[str | None, _label(help="CRS of the coordinates.")] = None
    buffer: Annotated[
        str | None, _when(help="Half the side of the square around a point, metres, or the column with it.")
    ] = None
    start: Annotated[str | None, _when(help="First day for all rows, YYYY-MM-DD.")] = None
    end: Annotated[str | None, _when(help="The day after the last, YYYY-MM-DD.")] = None
    year: Annotated[int | None, _when(help="A whole calendar year instead.")] = None

    def read(self, table: Path) -> "Labels":
        """Read the table."""
        from rs_embed.learning.labels import read_labels

        days = together("--start and --end", self.start, self.end)
        either("--year", self.year, "--start and --end", days)
        window = TemporalSpec.year(self.year) if self.year is not None else TemporalSpec.range(*days) if days else None
        return read_labels(
            table,
            self.label.split(",") if "," in self.label else self.label,
            kind=self.kind,
            temporal=window,
            buffer_m=number_or_name(self.buffer),
            id=self.id_column,
            lon=self.lon_column,
            lat=self.lat_column,
            year=self.year_column,
            crs=self.crs,
        )


def number_or_name(text: str | None) -> float | str | None:
    """Read metres, or the name of a column."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return text
