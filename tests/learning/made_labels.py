"""Synthetic labels on a plain around 7 degrees east, 50 degrees north."""

import numpy as np
import pandas as pd

from rs_embed.learning.labels import read_labels

DEGREE_KM = 111.2


def plain(count, side_km=100.0, seed=0, buffer_m=100.0):
    """`count` points in a square."""
    rng = np.random.default_rng(seed)
    east_km, north_km = rng.random((2, count)) * side_km
    lon = 7 + east_km / (DEGREE_KM * np.cos(np.radians(50)))
    return pd.DataFrame({"lon": lon, "lat": 50 + north_km / DEGREE_KM, "buffer_m": buffer_m})


def patches(frame, size_km, classes=3, seed=1):
    """A class for each square of `size_km`, drawn at random: labels that cluster in space."""
    col = ((frame.lon - 7) * DEGREE_KM * np.cos(np.radians(50)) // size_km).astype(int)
    row = ((frame.lat - 50) * DEGREE_KM // size_km).astype(int)
    drawn = np.random.default_rng(seed).integers(0, classes, (100, 100))
    return np.array(["abcdefgh"[one] for one in drawn[row, col]])


def labelled(frame, values, **options):
    return read_labels(frame.assign(y=values), "y", **options)
