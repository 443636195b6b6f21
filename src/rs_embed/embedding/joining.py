"""Put results beside the columns of the user's own table, which stays as it is."""

from typing import TYPE_CHECKING, TypeVar

from rs_embed.errors import InputError, SpecError

if TYPE_CHECKING:
    import pandas as pd

    Table = TypeVar("Table", bound=pd.DataFrame)

COLUMNS = ("embedding", "valid_fraction", "status", "error")
"""What is added."""


def joined(table: "Table", results: "pd.DataFrame") -> "Table":
    """Return a copy of a table with the `COLUMNS` of its results, row for row.

    Args:
        table: A DataFrame or GeoDataFrame; index, geometry, CRS and types of columns are kept.
        results: As many rows, in the same order.

    Raises:
        InputError: The table has another number of rows.
        SpecError: The table has one of the columns already.
    """
    if len(table) != len(results):
        raise InputError(
            f"Expected a table of {len(results):,} rows, one for each result, got {len(table):,}.",
            fix="pass the table from which the places were read, unsorted and unfiltered",
        )
    taken = [name for name in COLUMNS if name in table.columns]
    if taken:
        raise SpecError(
            f"Expected a table without columns of the results, got {', '.join(taken)}.", fix="rename or drop them"
        )
    added: Table = table.assign(**{name: results[name].to_numpy() for name in COLUMNS})
    return added
