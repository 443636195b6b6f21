"""A model that dies, with its whole process, at one place and at every second start."""

import os
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from echo import CARD, EchoEmbedder
from pyproj import Transformer

from rs_embed.core.chip import Chip
from rs_embed.core.settings import LibrarySettings
from rs_embed.embedders.base import ModelInput, ModelRequest, Network
from rs_embed.embedders.card import ModelCard
from rs_embed.embedders.prepare.framing import Frame

LON, LAT = 12.0, 47.0
"""Where."""


class DoomedEmbedder(EchoEmbedder):
    def prepare(self, chips: Mapping[str, Chip], frame: Frame) -> list[ModelInput]:
        box = chips["s2"].geobox
        x, y = Transformer.from_crs("EPSG:4326", str(box.crs), always_xy=True).transform(LON, LAT)
        col, row = ~box.affine @ (x, y)
        if 0 <= row < box.shape[0] and 0 <= col < box.shape[1]:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().prepare(chips, frame)

    @staticmethod
    def build(request: ModelRequest, settings: LibrarySettings) -> Network:
        with Path(request.card.title).open("a+") as starts:
            starts.write(".")
            starts.flush()
            if starts.tell() % 2 == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return EchoEmbedder.build(request, settings)


def faltering(starts: Path) -> ModelCard:
    """Its card.

    Args:
        starts: The file in which it counts how often it was started.
    """
    return replace(CARD, id="doomed", adapter="doomed:DoomedEmbedder", input_prep="resize", title=str(starts))
