"""Combine several frames of one place into one."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rs_embed.core.specs import Composite, SensorSpec
from rs_embed.errors import SpecError


def composite(frames: Sequence[NDArray[np.float32]], how: Composite) -> NDArray[np.float32]:
    """Combine several frames into one.

    Args:
        frames: One or more of `[C, H, W]`, clearest first; NaN is nodata and never counts.
        how: "median" and "mean" work on each band of each pixel, in the unit given (the mean of dB is a geometric
            mean). "mosaic" takes each pixel, all its bands together, from the first frame that has most of its bands,
            frames with more valid pixels going first. "first" is the first frame as it is.

    Returns:
        `[C, H, W]`, NaN where no frame has a value. Beyond the frames themselves, memory is one band of all of them
        (median) or one frame (mean, mosaic).
    """
    if how == "first" or len(frames) == 1:
        return frames[0]
    if how == "mosaic":
        return _mosaic(frames)
    if how == "mean":
        return _mean(frames)
    return np.stack([_median(np.stack(planes)) for planes in zip(*frames, strict=True)])


def refuse_cloud_mask(sensor: SensorSpec) -> None:
    """Raise `SpecError` if a sensor has a cloud mask, which files and arrays do not support."""
    if sensor.cloud_mask != "none":
        raise SpecError(
            f"cloud_mask={sensor.cloud_mask!r} needs an archive with cloud masks.",
            fix="leave it out, and make cloudy pixels nodata in the file",
        )


def _median(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the median of `[T, H, W]` over T. Sorting puts NaN last, and is faster than `np.nanmedian`."""
    values.sort(axis=0)
    valid = np.isfinite(values).sum(axis=0)[None]
    below = np.take_along_axis(values, np.maximum(valid - 1, 0) // 2, axis=0)
    above = np.take_along_axis(values, np.minimum(valid // 2, len(values) - 1), axis=0)
    middle: NDArray[np.float32] = (below[0] + above[0]) / np.float32(2)
    return middle


def _mean(frames: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    total = np.zeros(frames[0].shape, np.float64)
    count = np.zeros(frames[0].shape, np.int32)
    for frame in frames:
        valid = np.isfinite(frame)
        total += np.where(valid, frame, 0)
        count += valid
    return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)


def _mosaic(frames: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    valid_bands = [np.isfinite(frame).sum(axis=0) for frame in frames]
    clearest_first = sorted(range(len(frames)), key=lambda i: -int(valid_bands[i].sum()))
    result = frames[clearest_first[0]].copy()
    best = valid_bands[clearest_first[0]].copy()
    for i in clearest_first[1:]:
        better = valid_bands[i] > best
        result[:, better] = frames[i][:, better]
        best[better] = valid_bands[i][better]
    return result
