"""Pictures as SVG text. Widths are in percent, so that a picture fits a phone; colours come from the style sheet."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from rs_embed.learning.scores import Interval

_LEFT, _RIGHT = 9.0, 98.0
"""Edges of the plotted area, percent of the width."""
_HEIGHT_PX, _TOP_PX, _FOOT_PX = 240, 10, 34
_STEPS = (1, 2, 2.5, 5, 10)
SERIES = 6
"""Number of colours."""
_MOST_POINTS = 2500
"""Points of a picture; of more, every n-th is drawn."""


@dataclass(frozen=True)
class Line:
    """One line of a chart."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: str
    """A digit of the style sheet, or "q" for quiet."""


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Return round numbers from `low` to `high`."""
    span = high - low
    if not (math.isfinite(span) and span > 0):
        return [low]
    rough = span / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * one for one in _STEPS if power * one >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(step * at, 12) for at in range(first, math.floor(high / step + 1e-9) + 1)]


def interval_bar(score: Interval, span: tuple[float, float], reference: float | None, colour: str) -> str:
    """Draw a score with its interval, and a dashed line at another score."""
    low, value, high = (_percent(one, span) for one in (score.low, score.value, score.high))
    at = "" if reference is None else f'x1="{_percent(reference, span)}%" x2="{_percent(reference, span)}%"'
    line = f'<line class="reference" {at} y1="0" y2="30"/>' if at else ""
    return (
        f'<svg height="30" aria-hidden="true">{line}'
        f'<line class="range k{colour}" x1="{low}%" x2="{high}%" y1="15" y2="15"/>'
        f'<circle class="mark f{colour}" cx="{value}%" cy="15" r="6"/></svg>'
    )


def axis(span: tuple[float, float]) -> str:
    """Draw the numbers below such bars."""
    texts = "".join(
        f'<text x="{_percent(one, span)}%" y="12" text-anchor="middle">{one:g}</text>' for one in ticks(*span)
    )
    return f'<svg height="16" aria-hidden="true">{texts}</svg>'


def chart(
    lines: Sequence[Line], *, x_name: str, y_name: str, at_x: Sequence[float] = (), reference: float | None = None
) -> str:
    """Draw lines over a grid whose x is logarithmic, with a list of their names.

    Args:
        lines: The lines.
        x_name: What x is.
        y_name: What y is.
        at_x: Where to write numbers below; by default at four places.
        reference: Where to draw a dashed line.
    """
    points = [point for line in lines for point in line.points]
    if not points:
        return "<p>Too few places for a curve.</p>"
    xs, ys = (np.array(column, float) for column in zip(*points, strict=True))
    spread = (math.log10(xs.min()), math.log10(xs.max()) + 1e-9)
    low, high = _padded(ys if reference is None else np.append(ys, reference))
    parts = []
    for one in ticks(low, high):
        y = _pixel(one, low, high)
        parts.append(f'<line class="grid" x1="{_LEFT}%" x2="{_RIGHT}%" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{_LEFT - 1.2}%" y="{y + 4}" text-anchor="end">{one:g}</text>')
    for one in at_x or [float(f"{x:.2g}") for x in np.geomspace(xs.min(), xs.max(), 4)]:
        x = _percent(math.log10(one), spread)
        parts.append(f'<text x="{x}%" y="{_HEIGHT_PX - 18}" text-anchor="middle">{one:,.4g}</text>')
    parts.append(f'<text x="{_RIGHT}%" y="{_HEIGHT_PX - 2}" text-anchor="end">{escape(x_name)}</text>')
    if reference is not None:
        y = _pixel(reference, low, high)
        parts.append(f'<line class="reference" x1="{_LEFT}%" x2="{_RIGHT}%" y1="{y}" y2="{y}"/>')
    for line in lines:
        at = [(_percent(math.log10(x), spread), _pixel(y, low, high)) for x, y in line.points]
        parts += [
            f'<line class="line k{line.colour}" x1="{a}%" y1="{b}" x2="{c}%" y2="{d}"/>'
            for (a, b), (c, d) in pairwise(at)
        ]
        parts += [f'<circle class="mark f{line.colour}" cx="{a}%" cy="{b}" r="4"/>' for a, b in at]
    name = escape(f"{y_name} against {x_name}")
    return f'<svg height="{_HEIGHT_PX}" role="img" aria-label="{name}">{"".join(parts)}</svg>{_key(lines)}'


def scatter(
    x: NDArray[np.float64], y: NDArray[np.float64], colours: Sequence[int], *, name: str, diagonal: bool = False
) -> str:
    """Draw points at one scale on both axes.

    Args:
        x: To the right, `[N]`.
        y: Upwards, `[N]`.
        colours: A number for each.
        name: What it shows, for those who do not see it.
        diagonal: Whether to draw the line on which both are equal.
    """
    low_x, low_y = float(x.min()), float(y.min())
    wide, high = float(np.ptp(x)), float(np.ptp(y))
    if diagonal:
        low_x = low_y = min(low_x, low_y)
        wide = high = max(float(x.max()), float(y.max())) - low_x
    unit = 100 / (max(wide, high) or 1.0)
    wide, high = max(25.0, wide * unit), max(25.0, high * unit)
    line = f'<line class="reference thin" x1="0" y1="{high}" x2="{wide}" y2="0"/>' if diagonal else ""
    step = max(1, -(-len(x) // _MOST_POINTS))
    places = zip((x - low_x) * unit, high - (y - low_y) * unit, colours, strict=True)
    dots = [f'<circle class="f{colour % SERIES}" cx="{a:.2f}" cy="{b:.2f}" r="1"/>' for a, b, colour in places]
    box = f'viewBox="-2 -2 {wide + 4:.1f} {high + 4:.1f}" height="300"'
    return f'<svg class="points" {box} role="img" aria-label="{escape(name)}">{line}{"".join(dots[::step])}</svg>'


def _key(lines: Sequence[Line]) -> str:
    named = [line for line in lines if line.name]
    stroke = '<svg aria-hidden="true"><line class="line k{}" x1="0" x2="18" y1="5" y2="5"/></svg>'
    rows = "".join(f"<li>{stroke.format(line.colour)}{escape(line.name)}</li>" for line in named)
    return f'<ul class="key">{rows}</ul>' if rows else ""


def _padded(values: NDArray[np.float64]) -> tuple[float, float]:
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    margin = 0.08 * (high - low) or 0.05
    return low - margin, high + margin


def _percent(value: float, span: tuple[float, float]) -> float:
    share = (value - span[0]) / (span[1] - span[0]) if span[1] > span[0] else 0.5
    return round(_LEFT + (_RIGHT - _LEFT) * min(max(share, 0), 1), 2)


def _pixel(value: float, low: float, high: float) -> float:
    share = (value - low) / (high - low)
    return round(_HEIGHT_PX - _FOOT_PX - share * (_HEIGHT_PX - _FOOT_PX - _TOP_PX), 1)
