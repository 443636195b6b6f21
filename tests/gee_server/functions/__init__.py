"""Earth Engine's functions, under its names; importing this offers them to the interpreter."""

from gee_server.functions import (  # noqa: F401
    collections,
    elements,
    filters,
    geometries,
    image_bands,
    image_math,
    image_projection,
    image_values,
    joins,
    reducers,
    scalars,
    times,
)
