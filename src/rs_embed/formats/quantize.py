"""Vectors in fewer bytes, and back."""

import numpy as np
from numpy.typing import NDArray

from rs_embed.errors import StorageError
from rs_embed.formats.base import Dtype

INT8_MAX = 127


def quantize(vectors: NDArray[np.float32], dtype: Dtype) -> tuple[NDArray[np.generic], NDArray[np.float32] | None]:
    """`[N, D]` in the type asked for, and the factor of each row (int8 only).

    A row with a value that is not finite has the factor NaN: it comes back as NaN, not as numbers.

    Raises:
        StorageError: A value is too large for float16.
    """
    if dtype == "float32":
        return vectors, None
    if dtype == "float16":
        with np.errstate(over="ignore"):
            half = vectors.astype(np.float16)
        if (np.isinf(half) & np.isfinite(vectors)).any():
            raise StorageError(
                f"Expected values up to {np.finfo(np.float16).max:g} for float16, got {np.abs(vectors).max():g}.",
                fix='use dtype="float32" or "int8"',
            )
        return half, None
    scale = np.abs(vectors).max(axis=1, initial=0).astype(np.float32) / np.float32(INT8_MAX)
    scale = np.where(np.isfinite(scale), np.maximum(scale, np.finfo(np.float32).tiny), np.nan).astype(np.float32)
    with np.errstate(invalid="ignore"):
        whole = np.rint(vectors / scale[:, None])
    return np.nan_to_num(whole, nan=0).clip(-INT8_MAX, INT8_MAX).astype(np.int8), scale


def dequantize(stored: NDArray[np.generic], scale: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """What `quantize` was given, to the precision that was kept."""
    vectors: NDArray[np.float32] = stored.astype(np.float32)
    return vectors if scale is None else vectors * scale[:, None]
