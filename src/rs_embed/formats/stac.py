"""Write a STAC collection with its items next to the data, with the embeddings extension, for use in catalogues."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import shapely
from pydantic import JsonValue

from rs_embed.core.atomic import replacing
from rs_embed.formats.base import RunHeader
from rs_embed.formats.fields import (
    collection_fields,
    model_uri,
    quantization,
    runtime_parameters,
    source_uris,
    without_none,
)
from rs_embed.formats.files import format_of
from rs_embed.formats.reading import TableFile

if TYPE_CHECKING:
    import pyarrow as pa

STAC_VERSION = "1.0.0"
"""The version on which version 0.0.1 of the embeddings extension builds; pystac and others also read it as 1.1."""
COLLECTION, ITEMS = "collection.json", "items"
_SCHEMA = "https://stac-extensions.github.io/{}/schema.json"
_ITEM_EXTENSIONS = ("embeddings/v0.0.1", "processing/v1.2.0", "projection/v2.0.0")
_COLLECTION_EXTENSIONS = ("embeddings/v0.0.1", "scientific/v1.0.0", "item-assets/v1.0.0")
_WORLD = (-180.0, -90.0, 180.0, 90.0)
_PARQUET = "application/vnd.apache.parquet"


@dataclass(frozen=True)
class StacItem:
    """One item of the catalogue: a table of vectors, or one grid."""

    id: str
    href: str
    """Path of the data, relative to the folder of the collection."""
    geometry: Mapping[str, JsonValue] | None
    """GeoJSON; for a table, the bounding box of all rows."""
    bbox: tuple[float, float, float, float] | None
    start: datetime | None
    end: datetime | None
    rows: int
    """Number of embeddings."""
    proj_code: str | None = None
    transform: tuple[float, ...] | None = None


def items_of(path: Path, folder: Path) -> Iterator[StacItem]:
    """Yield the item of a table that `write_table` wrote, or one item per grid of an index that `write_index` wrote.

    Args:
        path: The table.
        folder: The folder of the collection, to which hrefs are relative.

    Raises:
        StorageError: The table cannot be read.
    """
    table = TableFile(path)
    kept = ["geometry", "bbox", "status", "start_datetime", "end_datetime", "datetime"]
    rows = table.table([*kept, *(["href", "proj_code", "transform"] if table.is_index else [])])
    if table.is_index:
        yield from _grid_items(rows, path, folder)
    else:
        yield _table_item(rows, path.stem, path.relative_to(folder).as_posix())


def write_stac(folder: Path, header: RunHeader, items: Sequence[StacItem]) -> None:
    """Write `items/<id>.json` into the folder of a model, then `collection.json` atomically.

    The same items give the same bytes. Failed rows have no item.
    """
    (folder / ITEMS).mkdir(exist_ok=True)
    for item in items:
        _dump(folder / ITEMS / f"{item.id}.json", _item(item, header))
    with replacing(folder / COLLECTION) as part:
        _dump(part, _collection(header, items))


def _table_item(rows: "pa.Table", name: str, href: str) -> StacItem:
    columns = rows.to_pydict()
    done = [status == "ok" for status in columns["status"]]
    boxes = [box for box, ok in zip(columns["bbox"], done, strict=True) if box is not None and ok]
    bbox = _around(boxes)
    geometry = None if bbox is None else json.loads(shapely.to_geojson(shapely.box(*bbox)))
    times = [_times(columns, i) for i, ok in enumerate(done) if ok]
    start = min((first for first, _ in times if first is not None), default=None)
    end = max((last for _, last in times if last is not None), default=None)
    return StacItem(name, href, geometry, bbox, start, end, sum(done))


def _grid_items(rows: "pa.Table", path: Path, folder: Path) -> Iterator[StacItem]:
    columns = rows.to_pydict()
    for i, href in enumerate(columns["href"]):
        if href is None:
            continue
        place = PurePosixPath(os.path.relpath(path.parent / href, folder))
        blob = columns["geometry"][i]
        geometry = None if blob is None else json.loads(shapely.to_geojson(shapely.from_wkb(blob)))
        start, end = _times(columns, i)
        transform = columns["transform"][i]
        item = StacItem(place.stem, place.as_posix(), geometry, _around([columns["bbox"][i]]), start, end, 1)
        yield replace(
            item, proj_code=columns["proj_code"][i], transform=None if transform is None else tuple(transform)
        )


def _times(columns: Mapping[str, list[datetime | None]], i: int) -> tuple[datetime | None, datetime | None]:
    """Return the requested time window, or else the time of the scenes."""
    scenes = columns["datetime"][i]
    return columns["start_datetime"][i] or scenes, columns["end_datetime"][i] or scenes


def _around(boxes: Sequence[Mapping[str, float] | None]) -> tuple[float, float, float, float] | None:
    known = [box for box in boxes if box is not None]
    if not known:
        return None
    low = min(box["xmin"] for box in known), min(box["ymin"] for box in known)
    return *low, max(box["xmax"] for box in known), max(box["ymax"] for box in known)


def _item(item: StacItem, header: RunHeader) -> dict[str, JsonValue]:
    properties: dict[str, JsonValue] = {
        "created": _zulu(datetime.fromisoformat(header.created)),
        "processing:datetime": _zulu(datetime.fromisoformat(header.created)),
        "emb:runtime_parameters": runtime_parameters(header),
        "emb:quantization": quantization(header),
        "rs_embed:rows": item.rows,
        "proj:code": item.proj_code,
        "proj:transform": None if item.transform is None else list(item.transform),
    }
    grid = format_of(Path(item.href))
    media = _PARQUET if grid is None else grid.media_type
    asset: dict[str, JsonValue] = {"href": f"../{item.href}", "type": media, "roles": ["data"]}
    links = [_link("root", "../collection.json"), _link("parent", "../collection.json")]
    return {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": [_SCHEMA.format(name) for name in _ITEM_EXTENSIONS],
        "id": item.id,
        "collection": header.model_id,
        "geometry": None if item.geometry is None else dict(item.geometry),
        **({} if item.bbox is None else {"bbox": list(item.bbox)}),
        "properties": {**_datetimes(item, header), **without_none(properties)},
        "links": [*links, _link("collection", "../collection.json")],
        "assets": {"embeddings": asset},
    }


def _datetimes(item: StacItem, header: RunHeader) -> dict[str, JsonValue]:
    if item.start is not None and item.end is not None:
        return {"datetime": None, "start_datetime": _zulu(item.start), "end_datetime": _zulu(item.end)}
    # STAC requires a time; without a requested window and scene times, only that of the run is known.
    return {"datetime": _zulu(datetime.fromisoformat(header.created)), "rs_embed:datetime_is_of_the_run": True}


def _collection(header: RunHeader, items: Sequence[StacItem]) -> dict[str, JsonValue]:
    count = sum(item.rows for item in items)
    links: list[JsonValue] = [_link("root", "./collection.json")]
    links += [_link("item", f"./{ITEMS}/{item.id}.json", "application/geo+json") for item in items]
    links.append(_link("emb:model", model_uri(header.model_id, header.model_url), None))
    links += [_link("emb:source-data", uri, None) for uri in source_uris(header.source_data)]
    return {
        "type": "Collection",
        "stac_version": STAC_VERSION,
        "stac_extensions": [_SCHEMA.format(name) for name in _COLLECTION_EXTENSIONS],
        "id": header.model_id,
        "title": header.title or f"Embeddings by {header.model_id}",
        "description": f"{count} embeddings of {header.dim} dimensions by {header.model_id}.",
        "license": "various",  # the licences of the imagery and of the weights both apply
        "extent": _extent(items),
        **collection_fields(header),
        "rs_embed:weights_licence": header.licence,
        "item_assets": {"embeddings": {"roles": ["data"], "title": "Embeddings"}},
        "links": links,
    }


def _extent(items: Sequence[StacItem]) -> dict[str, JsonValue]:
    boxes = [item.bbox for item in items if item.bbox is not None] or [_WORLD]
    west, south, east, north = zip(*boxes, strict=True)
    starts = [item.start for item in items if item.start is not None]
    ends = [item.end for item in items if item.end is not None]
    interval: list[JsonValue] = [_zulu(min(starts)) if starts else None, _zulu(max(ends)) if ends else None]
    return {
        "spatial": {"bbox": [[min(west), min(south), max(east), max(north)]]},
        "temporal": {"interval": [interval]},
    }


def _link(rel: str, href: str, media: str | None = "application/json") -> dict[str, JsonValue]:
    return without_none({"rel": rel, "href": href, "type": media})


def _zulu(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _dump(path: Path, content: Mapping[str, JsonValue]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
