"""Colours of classes."""

import colorsys
import re
from collections.abc import Mapping, Sequence

from rs_embed.core.checks import short
from rs_embed.errors import SpecError

_FIRST = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#999999")
"""Source: Okabe and Ito, Color Universal Design, https://jfly.uni-koeln.de/color/ (black left out, grey added)."""
_TURN = 0.618034
"""The golden ratio: hues that follow each other lie far apart."""


def colours_of(classes: Sequence[str], chosen: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Return a colour `#rrggbb` for each class: the chosen one, or the next that is easy to tell apart.

    Raises:
        SpecError: A colour is not `#rrggbb`, or its class does not exist.
    """
    chosen = chosen or {}
    for name, colour in chosen.items():
        if name not in classes:
            raise SpecError(
                f"Expected colours of {', '.join(classes)}, got one of {short(name)}.", fix="see the labels"
            )
        if not (isinstance(colour, str) and re.fullmatch(r"#[0-9a-fA-F]{6}", colour)):
            raise SpecError(f"Expected a colour #rrggbb for {short(name)}, got {short(colour)}.", fix='"#2e7d32"')
    return tuple(chosen.get(name, _colour(number)).lower() for number, name in enumerate(classes))


def rgb(colour: str) -> tuple[int, int, int]:
    """Return red, green and blue, 0 to 255, of `#rrggbb`."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _colour(number: int) -> str:
    if number < len(_FIRST):
        return _FIRST[number]
    later = number - len(_FIRST)
    parts = colorsys.hsv_to_rgb(later * _TURN % 1, (0.45, 0.75)[later % 2], (0.9, 0.65)[later // 2 % 2])
    return "#" + "".join(f"{round(255 * part):02x}" for part in parts)
