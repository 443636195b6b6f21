"""What models are told beside pixels: months, and places on the sphere."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rs_embed.core.chip import Chip
from rs_embed.embedders.base import ModelRequest
from rs_embed.errors import InputError

ONE_APART = frozenset((0, 1, 11))
"""Difference of months that two means of the same days may have, as scenes of one modality are of other days."""


def months_of(request: ModelRequest, chips: Mapping[str, Chip]) -> Tensor:
    """Of each date, 0 for January; of what has no dates, there is one, of a month that nobody is told.

    Raises:
        InputError: Modalities do not have the same dates, or one has none.
    """
    dated = {m.name: chips[m.name].times for m, _ in request.inputs if m.is_series and m.name in chips}
    months = {name: [time.month - 1 for time in times if time is not None] for name, times in dated.items()}
    if not months:
        return torch.zeros(1, dtype=torch.long, device="cpu")
    lacking = [name for name, times in dated.items() if None in times]
    if lacking:
        raise InputError(
            f"Expected the date of each frame of {', '.join(lacking)}, got none.", fix="give `dates` or `temporal`"
        )
    first, *others = months.values()
    for other in others:
        apart = {(one - two) % 12 for one, two in zip(first, other, strict=False)}
        if len(other) != len(first) or not apart <= ONE_APART:
            raise InputError(
                "Expected the same dates of every modality, got others.",
                **{name: ", ".join(f"{time:%Y-%m-%d}" for time in times if time) for name, times in dated.items()},
                fix='temporal=TemporalSpec.range(...) lays them on its months, temporal_sampling="month"',
            )
    return torch.tensor(first, device="cpu")


def on_the_sphere(lon: float | NDArray[np.float64], lat: float | NDArray[np.float64]) -> NDArray[np.float32]:
    """`[3, ...]`: degrees as a point on the unit sphere; x towards 0 E, y towards 90 E, z towards the north pole."""
    east, north = np.radians(lon), np.radians(lat)
    return np.stack([np.cos(north) * np.cos(east), np.cos(north) * np.sin(east), np.sin(north)]).astype(np.float32)
