"""Inputs of models other than pixels: months, and locations on the sphere."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rs_embed.core.chip import Chip
from rs_embed.embedders.base import ModelRequest
from rs_embed.errors import InputError

ONE_APART = frozenset((0, 1, 11))
"""Allowed difference, in months, of the mean dates of two modalities in one sub-window, whose scenes differ in date."""


def months_of(request: ModelRequest, chips: Mapping[str, Chip]) -> Tensor:
    """Return the month of each date, 0 for January; a single placeholder 0 if the model has no time series.

    Raises:
        InputError: The modalities differ in their dates, or one has none.
    """
    dated = {m.name: chips[m.name].times for m, _ in request.inputs if m.is_series and m.name in chips}
    months = {name: [time.month - 1 for time in times if time is not None] for name, times in dated.items()}
    if not months:
        return torch.zeros(1, dtype=torch.long, device="cpu")
    lacking = [name for name, times in dated.items() if None in times]
    if lacking:
        raise InputError(
            f"Expected the date of each frame of {', '.join(lacking)}, got none.", fix="pass `dates` or `temporal`"
        )
    first, *others = months.values()
    for other in others:
        apart = {(one - two) % 12 for one, two in zip(first, other, strict=False)}
        if len(other) != len(first) or not apart <= ONE_APART:
            raise InputError(
                "Expected the same dates for every modality, got different ones.",
                **{name: ", ".join(f"{time:%Y-%m-%d}" for time in times if time) for name, times in dated.items()},
                fix='pass temporal=TemporalSpec.range(...) with temporal_sampling="month" to align them by month',
            )
    return torch.tensor(first, device="cpu")


def on_the_sphere(lon: float | NDArray[np.float64], lat: float | NDArray[np.float64]) -> NDArray[np.float32]:
    """Convert degrees to points on the unit sphere, `[3, ...]`.

    x points to 0 E on the equator, y to 90 E on the equator, z to the north pole.
    """
    east, north = np.radians(lon), np.radians(lat)
    return np.stack([np.cos(north) * np.cos(east), np.cos(north) * np.sin(east), np.sin(north)]).astype(np.float32)
