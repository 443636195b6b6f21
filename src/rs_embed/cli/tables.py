"""Tables for a terminal, and the numbers in them."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, cast

from rich import box
from rich.table import Table

from rs_embed.core.display import parameters_text

if TYPE_CHECKING:
    from rs_embed.embedders.describe import ModelDescription
    from rs_embed.embedding.embedding import Embedding

ModelOrder = Literal["catalogue", "id", "params", "dim", "licence"]
_SENSORS = {
    "COPERNICUS/S2": "S2",
    "COPERNICUS/S1": "S1",
    "COPERNICUS/S3": "S3",
    "COPERNICUS/DEM": "DEM",
    "USGS/SRTM": "DEM",
    "LANDSAT/LC08": "L8",
    "LANDSAT/LC09": "L9",
    "IGN/": "aerial",
    "AIRBUS/SPOT": "SPOT",
    "USDA/NAIP": "NAIP",
    "ECMWF/ERA5": "ERA5",
    "GOOGLE/SATELLITE_EMBEDDING": "AlphaEarth",
    "TESSERA/": "TESSERA",
}
"""How the name of a collection starts -> what a list of models calls it."""
_MOST_SENSORS = 3
"""Shown for each model; a sign says that there are more."""


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


def ordered(models: "Sequence[ModelDescription]", by: ModelOrder) -> "list[ModelDescription]":
    """The models in that order; numbers ascend."""
    keys = {"id": "id", "params": "parameters_m", "dim": "dim", "licence": "licence"}
    return sorted(models, key=lambda one: cast("dict[str, str]", one)[keys[by]]) if by in keys else list(models)


def models_table(models: "Sequence[ModelDescription]") -> Table:
    """A line for each model, 80 columns wide at most; aliases stand below."""
    drawn = table([_line(model) for model in models])
    drawn.columns[2].justify = drawn.columns[3].justify = "right"
    for column in drawn.columns:
        column.no_wrap = True
    notes = [f"{alias} = {model['id']}" for model in models for alias in model["aliases"]]
    notes = [f"Aliases: {', '.join(notes)}"] if notes else []
    for kind in ("baseline", "precomputed"):
        ids = [model["id"] for model in models if model["kind"] == kind]
        notes += [f"{kind.capitalize()}: {', '.join(ids)}"] if ids else []
    drawn.caption, drawn.caption_justify, drawn.caption_style = "\n".join(notes) or None, "left", ""
    return drawn


def _line(model: "ModelDescription") -> dict[str, object]:
    weights = "hub" if " / " in model["weights"] else model["weights"]
    if model["weights"].startswith("package "):
        weights = "package"
    return {
        "id": model["id"],
        "sensors": _sensors(model),
        "params": parameters_text(model["parameters_m"]),
        "dim": model["dim"],
        "weights": "none" if weights == "precomputed" else weights,
        "licence": "see page" if model["licence"].startswith("see ") else model["licence"].split()[0].rstrip(":"),
    }


def _sensors(model: "ModelDescription") -> str:
    if not model["modalities"]:
        return "(location)"
    found: dict[str, None] = {}
    for modality in model["modalities"]:
        name = modality["collection"]
        found[next((short for start, short in _SENSORS.items() if name.startswith(start)), "more")] = None
    others = len(found) - _MOST_SENSORS + ("more" in found)
    names = [name for name in found if name != "more"]
    return ", ".join(names[:_MOST_SENSORS]) + (", ..." if others > 0 else "")


def finite(value: object) -> object:
    """The same with `None` for NaN and infinity, which JSON has not."""
    if isinstance(value, dict):
        return {name: finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
