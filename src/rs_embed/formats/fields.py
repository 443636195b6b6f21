"""The words of the STAC embeddings extension (`emb:`, v0.0.1) for what a run is."""

import re
from collections.abc import Iterable, Mapping

from pydantic import JsonValue

from rs_embed.formats.base import RunHeader

HEADER_FIELD = "rs_embed:header"
"""Under this name the whole `RunHeader` travels, beside the fields that others read."""
_ARXIV = re.compile(r"arxiv:(\d{4}\.\d{4,5})", re.IGNORECASE)
_DOI = re.compile(r"(?:doi:|doi\.org/)(10\.\S+)", re.IGNORECASE)
_EARTH_ENGINE = "https://developers.google.com/earth-engine/datasets/catalog/"


def table_fields(header: RunHeader) -> dict[str, JsonValue]:
    """What the key `emb` of a GeoParquet file holds."""
    return {
        **collection_fields(header),
        "emb:quantization": quantization(header),
        "emb:runtime_parameters": runtime_parameters(header),
        "processing:datetime": header.created,
        HEADER_FIELD: header.to_json(),
    }


def collection_fields(header: RunHeader) -> dict[str, JsonValue]:
    """What describes all embeddings of a run alike."""
    fields: dict[str, JsonValue] = {
        "emb:type": "chip",
        "emb:dimensions": header.dim,
        "data_type": header.dtype,
        "emb:chip_layout": _chip_layout(header),
        "sci:publications": [publication(text) for text in header.publications],
        **{f"rs_embed:{name}": value for name, value in own_fields(header).items()},
    }
    if header.gsd_m is not None:
        fields["gsd"] = header.gsd_m
    return fields


def own_fields(header: RunHeader) -> dict[str, JsonValue]:
    """What the extension has no word for."""
    return {
        "model_id": header.model_id,
        "card_revision": header.card_revision,
        "output": header.output,
        "weights": header.weights,
        "weights_note": header.weights_note,
        "versions": dict(header.versions),
        **header.extra,
    }


def runtime_parameters(header: RunHeader) -> dict[str, JsonValue]:
    """What the model was run with."""
    knobs = header.extra.get("knobs", {})
    return {"model_id": header.model_id, **(knobs if isinstance(knobs, dict) else {"knobs": knobs})}


def quantization(header: RunHeader) -> dict[str, JsonValue] | None:
    """How vectors were made smaller; `None` if they were not."""
    if header.dtype == "float32":
        return None
    method = "linear, symmetric, one factor per row in column `scale`" if header.dtype == "int8" else "cast"
    return {"method": method, "original_dtype": "float32", "quantized_dtype": header.dtype}


def publication(citation: str) -> dict[str, JsonValue]:
    """An entry of `sci:publications`."""
    if found := _DOI.search(citation):
        return {"doi": found[1], "citation": citation}
    if found := _ARXIV.search(citation):
        return {"doi": f"10.48550/arXiv.{found[1]}", "citation": citation}
    return {"citation": citation}


def model_uri(model_id: str, url: str = "") -> str:
    """Where the model is described; a name of our own where nothing is known."""
    return url or f"urn:rs-embed:model:{model_id}"


def source_uris(collections: Iterable[str]) -> list[str]:
    """Where the imagery is described: its page in Earth Engine's catalog, whose names are the shared ones."""
    return [_EARTH_ENGINE + name.replace("/", "_") for name in collections] or ["urn:rs-embed:source:unknown"]


def _chip_layout(header: RunHeader) -> dict[str, JsonValue]:
    layout: dict[str, JsonValue] = {"layout_type": "variable_grid"}
    if header.chip_size_px is not None:
        layout["chip_size"] = list(header.chip_size_px)
    return layout


def without_none(fields: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """The same without empty entries, which the extension's schema does not allow."""
    return {name: value for name, value in fields.items() if value is not None}
