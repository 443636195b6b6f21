"""Which scenes make which frame of a series."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from rs_embed.core.specs import Series, TemporalSpec


def frame_slots(times: Sequence[datetime], window: TemporalSpec | None, series: Series) -> list[tuple[int, ...]]:
    """The scenes that each frame may be made of, frames in order of time.

    Args:
        times: When each scene was acquired; all of them lie in the window.
        window: The days asked for; `None`: from the first scene to the last.
        series: How many frames, and how they are sampled.

    Returns:
        One tuple of indexes into `times` per frame, in order of time; sub-windows without a scene are left out.
    """
    order = sorted(range(len(times)), key=lambda i: times[i])
    if not order:
        return []
    if series.sampling == "scenes" and len(order) <= series.frames:
        return [(index,) for index in order]
    first, last = times[order[0]].date(), times[order[-1]].date()
    window = window or TemporalSpec(first, last + timedelta(days=1))
    slots = [
        tuple(i for i in order if part.start <= times[i].date() < part.end) for part in window.split(series.frames)
    ]
    return [slot for slot in slots if slot]


def mean_time(times: Sequence[datetime]) -> datetime | None:
    """The mean moment, UTC; `None` of none."""
    if not times:
        return None
    return datetime.fromtimestamp(sum(time.timestamp() for time in times) / len(times), UTC)
