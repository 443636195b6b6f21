"""File formats: single embeddings as files, many as a GeoParquet table, and a STAC catalogue of both.

`texts_of` and `from_parts` are public, for a `FileFormat` of your own.
"""

from rs_embed.formats.parts import from_parts as from_parts
from rs_embed.formats.parts import texts_of as texts_of
