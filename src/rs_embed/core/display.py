"""How objects show themselves: one line for a terminal, a small card for a notebook.

Whatever is shown comes from users: ids, paths, messages. So all text is escaped, and colours are those of the page
around it, light or dark. Nothing is loaded from elsewhere.
"""

import base64
import struct
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

T = TypeVar("T")
LONGEST = 300
"""Characters of one text; the rest is cut."""
_LINE = "rgba(128,128,128,.35)"
_CARD = (
    f"display:inline-block;max-width:min(100%,860px);box-sizing:border-box;border:1px solid {_LINE};border-radius:8px;"
    "padding:12px 16px;margin:4px 0;font-family:system-ui,-apple-system,'Segoe UI',Roboto,sans-serif;font-size:13px;"
    "line-height:1.5;text-align:left;color:inherit;background:transparent"
)
_FACTS = "display:grid;grid-template-columns:max-content minmax(0,1fr);gap:2px 14px;margin:0"
_LABEL = "opacity:.65;white-space:nowrap"
_WARNING = (
    "display:inline-block;margin:6px 0 2px;padding:1px 8px;border-radius:4px;border:1px solid rgba(217,119,6,.65);"
    "background:rgba(245,158,11,.18);color:inherit;font-weight:600"
)
_BARS = 96
"""Columns of a sparkline."""


def safely(one: T, html: Callable[[T], str]) -> str:
    """The card, or the plain line where it cannot be made: what is shown must never stop a notebook."""
    try:
        return html(one)
    except Exception:  # noqa: BLE001  (a folder that is gone, a damaged file, an array of another shape)
        return f"<pre>{text_of(_plain(one))}</pre>"


def _plain(one: object) -> str:
    try:
        return repr(one)
    except Exception:  # noqa: BLE001
        return object.__repr__(one)


def text_of(value: object) -> str:
    """Any value as escaped text of limited length."""
    text = str(value)
    return escape(text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…")


def card(
    title: object,
    subtitle: object = "",
    facts: Mapping[str, object] | None = None,
    *,
    warning: object = None,
    picture: str = "",
    below: str = "",
) -> str:
    """A card: a heading, facts as label and value, and beside them a picture.

    Args:
        title: What it is; bold.
        subtitle: Beside it, in grey.
        facts: Label -> value; those that are `None` or empty are left out.
        warning: What must not be overlooked.
        picture: HTML from `image` or `sparkline`.
        below: HTML from `rows`.
    """
    head = f'<strong style="font-size:14px">{text_of(title)}</strong>'
    if subtitle:
        head += f' <span style="opacity:.65">{text_of(subtitle)}</span>'
    said = f'<br><span style="{_WARNING}">{text_of(warning)}</span>' if warning else ""
    shown = "".join(
        f'<span style="{_LABEL}">{text_of(label)}</span><span style="overflow-wrap:anywhere">{text_of(value)}</span>'
        for label, value in (facts or {}).items()
        if value is not None and value != ""
    )
    grid = f'<div style="{_FACTS}">{shown}</div>' if shown else ""
    text = f'<div style="min-width:0"><div style="margin-bottom:6px">{head}{said}</div>{grid}</div>'
    beside = f'<div style="flex:none">{picture}</div>' if picture else ""
    flex = "display:flex;gap:18px;align-items:flex-start;flex-wrap:wrap"
    return f'<div style="{_CARD}"><div style="{flex}">{beside}{text}</div>{below}</div>'


def rows(names: Sequence[str], lines: Iterable[Sequence[object]], more: str = "") -> str:
    """A small table, and a line on what it leaves out."""
    cell = f"padding:2px 16px 2px 0;text-align:left;border-bottom:1px solid {_LINE};overflow-wrap:anywhere"
    grid = f"display:grid;grid-template-columns:repeat({len(names)},auto);margin-top:10px"
    head = "".join(f'<span style="{cell};{_LABEL}">{text_of(name)}</span>' for name in names)
    body = "".join(f'<span style="{cell}">{text_of(value)}</span>' for line in lines for value in line)
    note = f'<div style="opacity:.65;margin-top:4px">{text_of(more)}</div>' if more else ""
    return f'<div style="{grid}">{head}{body}</div>{note}'


def image(colours: "NDArray[np.float32]", alt: str, longest_px: int = 190) -> str:
    """A picture `[H, W, 4]` in 0..1 as a PNG inside the page, enlarged without smoothing."""
    height, width = colours.shape[:2]
    scale = longest_px / max(height, width)
    size = f"width:{max(1, round(width * scale))}px;height:{max(1, round(height * scale))}px"
    style = f"{size};image-rendering:pixelated;border-radius:4px;display:block;background:rgba(128,128,128,.25)"
    data = base64.b64encode(png(colours)).decode("ascii")
    return f'<img alt="{text_of(alt)}" style="{style}" src="data:image/png;base64,{data}">'


def png(colours: "NDArray[np.float32]") -> bytes:
    """An array `[H, W, 4]` in 0..1 as a PNG of 8 bits."""
    import numpy as np

    pixels = np.round(np.clip(np.nan_to_num(colours), 0, 1) * 255).astype(np.uint8)
    height, width = pixels.shape[:2]
    lines = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], axis=1)  # filter 0: none

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    body = zlib.compress(lines.tobytes(), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def sparkline(values: "NDArray[np.float32]", alt: str) -> str:
    """A vector as bars around zero, from the smallest to the largest value of each of a hundred parts."""
    import numpy as np

    known = np.where(np.isfinite(values), values, 0).astype(np.float64)
    parts = np.array_split(known, min(_BARS, known.size)) if known.size else []
    width, height = 190, 76
    top, bottom = max(0.0, known.max(initial=0.0)), min(0.0, known.min(initial=0.0))
    unit = (height - 4) / ((top - bottom) or 1.0)
    zero_y = 2 + unit * top
    step = width / max(1, len(parts))
    bars = [
        f"M{step * (index + 0.5):.1f} {zero_y - unit * max(0.0, part.max()):.1f}"
        f"V{zero_y - unit * min(0.0, part.min()):.1f}"
        for index, part in enumerate(parts)
    ]
    box = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    label = f'role="img" aria-label="{text_of(alt)}"'
    zero = f'<path d="M0 {zero_y:.1f}H{width}" stroke="currentColor" stroke-opacity=".4" stroke-width="1"/>'
    line = f'<path d="{"".join(bars)}" stroke="#14b8a6" stroke-width="{max(1.0, 0.75 * step):.1f}"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {box} {label} style="display:block">{line}{zero}</svg>'


def parameters_text(millions: float) -> str:
    """A number of parameters as people write it: 55 k, 1.0 M, 314 M; a dash where there are none."""
    if millions == 0:
        return "-"
    if millions < 1:
        return f"{1000 * millions:.0f} k"
    return f"{millions:.1f} M" if millions < 100 else f"{millions:.0f} M"


def percent(share: float) -> str:
    """A share as a percentage that is 0 or 100 only if it is exactly that."""
    text = f"{share:.0%}"
    if (text == "100%" and share < 1) or (text == "0%" and share > 0):
        return "> 99 %" if share > 0.5 else "< 1 %"
    return text.replace("%", " %")
