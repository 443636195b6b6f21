"""The fields of the STAC embeddings extension (`emb:`, v0.0.1) that describe a run."""

import re
from collections.abc import Iterable, Mapping

from pydantic import JsonValue

from rs_embed.formats.base import RunHeader

HEADER_FIELD = "rs_embed:header"
"""Name of the field with the whole `RunHeader`, next to the fields for other readers."""
_ARXIV = re.compile(r"arxiv:(\d{4}\.\d{4,5})", re.IGNORECASE)
_DOI = re.compile(r"(?:doi:|doi\.org/)(10\.\S+)", re.IGNORECASE)
_EARTH_ENGINE = "https://developers.google.com/earth-engine/datasets/catalog/"


def table_fields(header: RunHeader) -> dict[str, JsonValue]:
    """Return the content of the key `emb` of a GeoParquet file."""
    return {
        **collection_fields(header),
        "emb:quantization": quantization(header),
        "emb:runtime_parameters": runtime_parameters(header),
        "processing:datetime": header.created,
        HEADER_FIELD: header.to_json(),
    }


def collection_fields(header: RunHeader) -> dict[str, JsonValue]:
    """Return the fields that describe all embeddings of a run."""
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
    """Return the facts for which the extension has no field."""
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
    """Return the model and its knobs."""
    knobs = header.extra.get("knobs", {})
    return {"model_id": header.model_id, **(knobs if isinstance(knobs, dict) else {"knobs": knobs})}


def quantization(header: RunHeader) -> dict[str, JsonValue] | None:
    """Return how vectors were quantised; `None` if they were not."""
    if header.dtype == "float32":
        return None
    method = "linear, symmetric, one factor per row in column `scale`" if header.dtype == "int8" else "cast"
    return {"method": method, "original_dtype": "float32", "quantized_dtype": header.dtype}


def publication(citation: str) -> dict[str, JsonValue]:
    """Return an entry of `sci:publications`."""
    if found := _DOI.search(citation):
        return {"doi": found[1], "citation": citation}
    if found := _ARXIV.search(citation):
        return {"doi": f"10.48550/arXiv.{found[1]}", "citation": citation}
    return {"citation": citation}


def model_uri(model_id: str, url: str = "") -> str:
    """Return the URL of the model's description, or a URN of rs_embed if there is none."""
    return url or f"urn:rs-embed:model:{model_id}"


def source_uris(collections: Iterable[str]) -> list[str]:
    """Return the URLs of the imagery in Earth Engine's catalogue, whose ids all backends share."""
    return [_EARTH_ENGINE + name.replace("/", "_") for name in collections] or ["urn:rs-embed:source:unknown"]


def _chip_layout(header: RunHeader) -> dict[str, JsonValue]:
    layout: dict[str, JsonValue] = {"layout_type": "variable_grid"}
    if header.chip_size_px is not None:
        layout["chip_size"] = list(header.chip_size_px)
    return layout


def without_none(fields: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Remove empty entries, which the extension's schema does not allow."""
    return {name: value for name, value in fields.items() if value is not None}
