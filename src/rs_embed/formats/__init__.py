"""Embeddings on disk: one as a file of its own, many as a table (GeoParquet), and STAC beside them.

Public: what a format of your own needs, `FileFormat` and `register_format`, `texts_of` and `from_parts`.
"""

from rs_embed.formats.files import FileFormat as FileFormat
from rs_embed.formats.files import register_format as register_format
from rs_embed.formats.parts import from_parts as from_parts
from rs_embed.formats.parts import texts_of as texts_of
