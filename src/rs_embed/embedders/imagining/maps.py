"""Land cover and NDVI as inputs of TerraMind: a tokenizer reads each map as token ids, which the encoder embeds.

Source: terratorch 1.2.11, models/backbones/terramind/model (terramind_vit.py, modality_info.py): these two modalities
have an embedding of token ids only, none of pixels.
"""

from pathlib import Path
from typing import cast

import torch

from rs_embed.core.optional import require
from rs_embed.embedders.base import ModelRequest
from rs_embed.embedders.cards.terramind import MAP_NAMES, MapName, TerraMindKnobs
from rs_embed.embedders.imagining.tokenizers import Tokenizer, tokenizer_for
from rs_embed.errors import WeightsNotFound


def map_names(request: ModelRequest) -> tuple[MapName, ...]:
    """Return the inputs that are read as token ids."""
    return tuple(name for name in MAP_NAMES if name in request.modality_names)


def check_maps(request: ModelRequest) -> None:
    """Check the tokenizers of a request as far as possible without loading them.

    Raises:
        MissingDependency: TerraTorch is not installed.
        WeightsNotFound: A given file does not exist.
    """
    for name in map_names(request):
        require("terratorch", extra="terratorch")
        path = _file(request, name)
        if path is not None and not path.is_file():
            raise WeightsNotFound(
                f"Expected a tokenizer of {name} at {str(path)!r}, got no such file.",
                fix="correct the path, or leave it out to use the hub's",
            )


def load_map_tokenizers(request: ModelRequest, device: torch.device) -> dict[str, Tokenizer]:
    """Return the tokenizers of the request's maps, from the cache if possible.

    Raises:
        WeightsError: The weights are missing, unreachable, corrupt, or belong to another model.
    """
    pretrained = cast("TerraMindKnobs", request.knobs).pretrained
    return {
        name: tokenizer_for(name, _file(request, name), pretrained=pretrained, device=device)
        for name in map_names(request)
    }


def _file(request: ModelRequest, name: MapName) -> Path | None:
    knobs = cast("TerraMindKnobs", request.knobs)
    path = {"LULC": knobs.lulc_tokenizer, "NDVI": knobs.ndvi_tokenizer}[name]
    return None if path is None else path.expanduser()
