"""Embeddings on disk: one as a file of its own, many as a table (GeoParquet), and STAC beside them.

Public: what a `FileFormat` of your own needs, `texts_of` and `from_parts`.
"""

from rs_embed.formats.parts import from_parts as from_parts
from rs_embed.formats.parts import texts_of as texts_of
