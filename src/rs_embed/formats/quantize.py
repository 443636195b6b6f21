"""Quantise vectors to fewer bytes, and restore them."""

import numpy as np
from numpy.typing import NDArray

from rs_embed.errors import StorageError
from rs_embed.formats.base import Dtype

INT8_MAX = 127


def quantize(vectors: NDArray[np.float32], dtype: Dtype) -> tuple[NDArray[np.generic], NDArray[np.float32] | None]:
    """Convert vectors `[N, D]` to a type; for int8, also return the factor of each row.

    For int8, a row with a value that is not finite gets the factor NaN and is restored as NaN.

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
    """Restore the vectors given to `quantize`, to the stored precision."""
    vectors: NDArray[np.float32] = stored.astype(np.float32)
    return vectors if scale is None else vectors * scale[:, None]
