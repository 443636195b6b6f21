"""Generate missing modalities from available ones, and convert images to tokens and back."""

from rs_embed.generation.generating import generate
from rs_embed.generation.raster import GeneratedRaster, RoundTripError
from rs_embed.generation.result import Generated, GenerationMeta
from rs_embed.generation.tokenizing import Tokenized, detokenize, tokenize

__all__ = [
    "Generated",
    "GeneratedRaster",
    "GenerationMeta",
    "RoundTripError",
    "Tokenized",
    "detokenize",
    "generate",
    "tokenize",
]
