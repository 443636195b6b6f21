"""One bright pixel sent through the real patches of a network, and the tokens that answer beside the grid's geobox."""

import numpy as np
import torch
from numpy.typing import NDArray

from rs_embed import OutputSpec, PointBuffer, TemporalSpec, get_embedding, plan_embedding
from rs_embed.core.settings import WeightsKnobs
from rs_embed.embedders.card import ModelCard
from rs_embed.embedding.embedding import Embedding
from rs_embed.testing import FieldProvider

YEAR = TemporalSpec.year(2022)
DARK, BRIGHT = 0.1, 0.25
"""Reflectances, and so 1000 and 2500 DN."""


def place_of(side_px: int, scale_m: float) -> PointBuffer:
    return PointBuffer(lon=12.94, lat=47.77, buffer_m=side_px * scale_m / 2)


def unmix(card: ModelCard, **options: object) -> None:
    """Let the tokens of a card's random network see nothing but their own patch: attention adds nothing to them."""
    scale_m = card.modalities[0].sensor.scale_m
    place = place_of(card.modalities[0].image_px, scale_m)
    plan = plan_embedding(card, place, YEAR, backend=FieldProvider(), pretrained=False, **options)
    with torch.no_grad():
        for name, parameter in plan.job.embedder.network.module.named_parameters():
            if name.endswith((".attn.proj.weight", ".attn.proj.bias", ".to_out.weight", ".to_out.bias")):
                parameter.zero_()


def embed(card: ModelCard, side_px: int, pixel: tuple[int, int] | None, unit: float, **options: object) -> Embedding:
    """The grid of a dark place, with one bright pixel."""
    scale_m = card.modalities[0].sensor.scale_m

    def field(lon: NDArray[np.float64], lat: NDArray[np.float64], band: str) -> NDArray[np.float64]:
        values = np.full(lon.shape, DARK * unit)
        if pixel is not None:
            values[pixel] = BRIGHT * unit
        return values

    random = {"pretrained": False} if issubclass(card.knobs, WeightsKnobs) else {}
    call = {"input_prep": "crop", "output": OutputSpec.grid()} | random | options
    place, provider = place_of(side_px, scale_m), FieldProvider(field)
    return get_embedding(card, place, YEAR, backend=provider, **call)


def assert_that_the_cell_on_it_answers(
    card: ModelCard, side_px: int, pixels: list[tuple[int, int]], unit: float = 10_000, **options: object
) -> None:
    """Each bright pixel changes the tokens whose cell it lies in, no other, and none if it lies in none."""
    dark = embed(card, side_px, None, unit, **options)
    scale_m = card.modalities[0].sensor.scale_m
    chip = plan_embedding(card, place_of(side_px, scale_m), YEAR, backend=FieldProvider(), pretrained=False)
    affine = chip.items[0].queries[0].geobox.affine
    for pixel in pixels:
        change = np.abs(embed(card, side_px, pixel, unit, **options).data - dark.data).max(axis=0)
        answers = {tuple(cell) for cell in np.argwhere(change > change.max() * 1e-3).tolist()}
        col, row = ~dark.geobox.affine @ (affine @ (pixel[1] + 0.5, pixel[0] + 0.5))
        inside = 0 <= row < change.shape[0] and 0 <= col < change.shape[1]
        assert answers == ({(int(row), int(col))} if inside else set()), f"pixel {pixel} of {card.id}"
