"""Tables of places: read from specs, coordinates, a DataFrame or a file, and checked row by row.

`reading` reads tables, `single` reads one place; `files` (`texts`, `vectors`), `naming`, `days` and `checks` do the
parts, `problems` collects the errors of rows, and `columns` (with `kept`, `strings`) holds the result.
"""

from rs_embed.places.columns import Place, Places
from rs_embed.places.days import Temporal
from rs_embed.places.naming import Column
from rs_embed.places.reading import Given, read_places
from rs_embed.places.single import Single, read_place

__all__ = ["Column", "Given", "Place", "Places", "Single", "Temporal", "read_place", "read_places"]
