"""Tables for a terminal, and the numbers in them."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

if TYPE_CHECKING:
    from rs_embed.embedding.embedding import Embedding


def table(rows: Sequence[Mapping[str, object]], columns: Sequence[str] = ()) -> Table:
    """The columns named, or all, of rows with equal keys."""
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for name in columns or rows[0]:
        drawn.add_column(name.replace("_", " "), overflow="fold")
    for row in rows:
        cells = [row[name] for name in columns or row]
        drawn.add_row(*(", ".join(map(str, cell)) if isinstance(cell, list) else str(cell) for cell in cells))
    drawn.columns[0].style, drawn.columns[0].no_wrap = "cyan", True
    return drawn


def embedding_row(embedding: "Embedding", seconds: float) -> dict[str, object]:
    """What a table says of an embedding; the norm of a grid is the mean over its tokens."""
    import numpy as np  # only a table of results needs it

    meta = embedding.meta
    return {
        "model": meta.model_id,
        "output": meta.output,
        "shape": " x ".join(map(str, embedding.data.shape)),
        "norm": f"{np.nanmean(np.linalg.norm(embedding.data, axis=0)):.4g}",
        "valid": f"{meta.valid_fraction:.0%}",
        "gsd_m": f"{meta.gsd_m:.4g}",
        "input_prep": meta.input_prep,
        "seconds": f"{seconds:.2f}",
        "weights": meta.warning or meta.weights.partition("#")[0].removesuffix(".safetensors"),
    }


def source_line(embedding: "Embedding") -> str:
    """Whose pixels they were, and of which days."""
    chips = [
        ", ".join([f"{one.collection} via {one.provider}", *(day[:10] for day in one.scene_times[:3])])
        for one in embedding.meta.inputs
    ]
    return f"{'; '.join(chips) or 'No imagery'}, as {embedding.meta.model_id} sees it:"


def finite(value: object) -> object:
    """The same with `None` for NaN and infinity, which JSON has not."""
    if isinstance(value, dict):
        return {name: finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
