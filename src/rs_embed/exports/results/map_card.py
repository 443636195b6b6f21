"""A map in words, for the console and for notebooks."""

import html
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rs_embed.exports.results.embedding_map import EmbeddingMap


def map_text(whole: "EmbeddingMap") -> str:
    """Return a line for each fact."""
    lines = [f"  {name + ':':<9}{text}" for name, text in _facts(whole).items()]
    return "\n".join([f"EmbeddingMap({str(whole.path)!r})", *lines])


def map_html(whole: "EmbeddingMap") -> str:
    """Return a table."""
    rows = "".join(
        f"<tr><th style='text-align:left'>{name}</th><td style='text-align:left'>{html.escape(text)}</td></tr>"
        for name, text in _facts(whole).items()
    )
    return f"<b>EmbeddingMap</b> <code>{html.escape(str(whole.path))}</code><table>{rows}</table>"


def _facts(whole: "EmbeddingMap") -> dict[str, str]:
    height, width = whole.shape
    days = [str(None) if one is None else f"{one.start} to {one.end}" for one in whole.times]
    more = f", and {len(days) - 3} more" if len(days) > 3 else ""
    facts = {
        "model": f"{whole.header.model_id}, {whole.dim} dimensions, {whole.levels[0].dtype}",
        "grid": f"{height} x {width} tokens of {whole.cell_m:g} m, {whole.geobox.crs}, "
        f"{len(whole.levels) - 1} overviews",
        "times": "no days" if days == ["None"] else ", ".join(days[:3]) + more,
        "done": f"{100 * whole.done:.4g} % of {whole.blocks:,} blocks",
        "weights": whole.header.weights_note or whole.header.weights or "not recorded",
    }
    return facts | ({"licence": whole.header.licence} if whole.header.licence else {})
