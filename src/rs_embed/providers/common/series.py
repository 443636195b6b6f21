"""Assign scenes to the frames of a series."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np

from rs_embed.core.chip import Chip
from rs_embed.core.specs import Series, TemporalSpec
from rs_embed.errors import InputError
from rs_embed.providers.base import Query


def frame_slots(times: Sequence[datetime], window: TemporalSpec | None, series: Series) -> list[tuple[int, ...]]:
    """Return the scenes that each frame may be made from, frames in order of time.

    Args:
        times: Acquisition times of the scenes, all within the window.
        window: The requested days; `None` means from the first scene to the last.
        series: The number of frames, and how they are sampled.

    Returns:
        One tuple of indexes into `times` per frame, in order of time; sub-windows without a scene are left out.
    """
    order = sorted(range(len(times)), key=lambda i: times[i])
    if not order:
        return []
    if series.sampling == "scenes" and len(order) <= series.frames and not series.keep_empty:
        return [(index,) for index in order]
    first, last = times[order[0]].date(), times[order[-1]].date()
    window = window or TemporalSpec(first, last + timedelta(days=1))
    slots = [tuple(i for i in order if times[i] in part) for part in series.windows(window)]
    return [slot for slot in slots if slot]


def with_empty_frames(chip: Chip, query: Query) -> Chip:
    """Add the empty frames that a series keeps, so that each of its sub-windows has a frame.

    Added frames are NaN, made of no scene, and dated at the middle of their sub-window. A chip stays as it is if the
    query has no window, or if its frames are undated or outside the window (like the sample scene).

    Raises:
        InputError: Two frames are in one sub-window, or a frame is in none.
    """
    series = query.series
    if series is None or not series.keep_empty or query.window is None:
        return chip
    if not any(time is not None and time in query.window for time in chip.times):
        return chip
    windows = series.windows(query.window)
    places = [i for time in chip.times if time for i, part in enumerate(windows) if time in part]
    if len(places) < len(chip.times) or len(set(places)) < len(places):
        raise InputError(
            f"Expected at most one frame in each of {len(windows)} sub-windows of {query.window}, got others.",
            chip=chip.describe(),
            fix="pass one date per sub-window, or use a series that keeps no empty frames",
        )
    frame_of = {place: frame for frame, place in enumerate(places)}
    values = np.full((len(windows), *chip.values.shape[1:]), np.nan, np.float32)
    values[places] = chip.values
    times = tuple(chip.times[frame_of[i]] if i in frame_of else part.middle for i, part in enumerate(windows))
    counts = chip.source.scenes_per_frame
    counts = tuple(counts[frame_of[i]] if i in frame_of else 0 for i in range(len(windows))) if counts else ()
    return replace(chip, values=values, times=times, source=replace(chip.source, scenes_per_frame=counts))


def mean_time(times: Sequence[datetime]) -> datetime | None:
    """Return the mean of some moments, UTC; `None` if there are none."""
    if not times:
        return None
    return datetime.fromtimestamp(sum(time.timestamp() for time in times) / len(times), UTC)
