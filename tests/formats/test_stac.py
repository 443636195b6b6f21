"""Catalogs find the data: pystac reads and validates what lies beside it."""

import json
from dataclasses import replace

import geopandas
import numpy as np
import pystac
import pytest
from made_rows import DIM, HEADER, failed, row
from pystac.validation import validate_dict

from rs_embed.core.specs import PointBuffer
from rs_embed.embedding.embedding import Embedding
from rs_embed.formats.base import Row
from rs_embed.formats.stac import items_of, write_stac
from rs_embed.formats.table import write_index, write_table

# Source: json-schema of the STAC embeddings extension, v0.0.1 ("additionalProperties": false for these prefixes).
COLLECTION_FIELDS = {"emb:type", "emb:dimensions", "emb:chip_layout", "emb:temporal_resolution", "emb:fit_for_use",
                     "emb:uncertainty"}  # fmt: skip
ITEM_FIELDS = {"emb:runtime_parameters", "emb:preprocessing", "emb:postprocessing", "emb:fit_for_use",
               "emb:spatial_coverage", "emb:uncertainty", "emb:quantization", "emb:energy"}  # fmt: skip
LAYOUT_FIELDS = {"layout_type", "chip_size", "stride", "grid_id", "grid_definition"}


@pytest.fixture
def pooled(tmp_path):
    (tmp_path / "units").mkdir()
    header = replace(HEADER, dtype="int8", chip_size_px=(64, 64))
    for number, rows in enumerate(([row(0), failed(1)], [row(2, place=PointBuffer(-70, 10, 320))])):
        write_table(tmp_path / "units" / f"u{number:06}.parquet", rows, header)
    tables = sorted((tmp_path / "units").glob("*.parquet"))
    write_stac(tmp_path, header, [item for path in tables for item in items_of(path, tmp_path)])
    return tmp_path


@pytest.fixture
def gridded(tmp_path):
    (tmp_path / "units").mkdir(), (tmp_path / "grids").mkdir()
    rows = [row(0, grid=True, dim=4), failed(1), row(2, grid=True, dim=4)]
    files = [r.embedding and r.embedding.save(tmp_path / "grids" / f"g{r.index}.tif") for r in rows]
    path, header = tmp_path / "units" / "u000000.parquet", replace(HEADER, output="grid", dim=4)
    write_index(path, rows, header, [file and f"../grids/{file.name}" for file in files])
    write_stac(tmp_path, header, list(items_of(path, tmp_path)))
    return tmp_path


def core_is_valid(thing):
    """pystac knows the core schemas offline; extensions it would have to fetch."""
    assert validate_dict(thing.to_dict(include_self_link=False), extensions=[])


@pytest.mark.parametrize("kind", ["pooled", "gridded"])
def test_pystac_reads_and_validates_all_of_it(kind, request):
    folder = request.getfixturevalue(kind)
    collection = pystac.Collection.from_file(str(folder / "collection.json"))
    core_is_valid(collection)
    items = list(collection.get_items())
    assert len(items) == 2
    for item in items:
        core_is_valid(item)
        assert item.get_collection().id == "mosaiks_rcf"
        asset = item.assets["embeddings"]
        assert (folder / asset.get_absolute_href()).exists(), "the link leads to the data"


@pytest.mark.parametrize("kind", ["pooled", "gridded"])
def test_the_files_keep_to_the_embeddings_extension(kind, request):
    folder = request.getfixturevalue(kind)
    collection = json.loads((folder / "collection.json").read_text())
    assert {name for name in collection if name.startswith("emb:")} <= COLLECTION_FIELDS
    assert collection["emb:type"] == "chip" and collection["data_type"] in ("float32", "int8")
    assert collection["emb:dimensions"] in (4, DIM) and collection["gsd"] == 10
    assert set(collection["emb:chip_layout"]) <= LAYOUT_FIELDS
    assert {"emb:model", "emb:source-data"} <= {link["rel"] for link in collection["links"]}
    assert all("doi" in one for one in collection["sci:publications"])
    for path in (folder / "items").iterdir():
        item = json.loads(path.read_text())
        assert {name for name in item["properties"] if name.startswith("emb:")} <= ITEM_FIELDS
        assert item["stac_version"] == collection["stac_version"] == "1.0.0"
        if kind == "pooled":
            assert item["properties"]["emb:quantization"]["quantized_dtype"] == "int8"


def test_an_item_of_a_table_covers_its_rows(pooled):
    item = pystac.Item.from_file(str(pooled / "items" / "u000000.json"))
    frame = geopandas.read_parquet(pooled / "units" / "u000000.parquet")
    np.testing.assert_allclose(item.bbox, frame[frame["status"] == "ok"].total_bounds)
    assert item.properties["rs_embed:rows"] == 1, "the failed row is in the table, not in the catalog"
    assert item.common_metadata.start_datetime.isoformat() == "2020-01-01T00:00:00+00:00"
    collection = pystac.Collection.from_file(str(pooled / "collection.json"))
    west, south, east, north = collection.extent.spatial.bboxes[0]
    assert west < -70 < 12.9 < east and south < 10 < 47.7 < north


def test_an_item_of_a_grid_knows_its_crs_and_place(gridded):
    item = pystac.Item.from_file(str(gridded / "items" / "g2.json"))
    grid = Embedding.load(gridded / "grids" / "g2.tif")
    assert item.properties["proj:code"] == "EPSG:32633"
    assert item.properties["proj:transform"] == list(grid.geobox.affine)[:6]
    assert "cloud-optimized" in item.assets["embeddings"].media_type
    assert item.geometry["type"] == "Polygon"


def test_nothing_finished_and_rows_without_place_or_time_are_still_valid(tmp_path):
    write_stac(tmp_path, HEADER, [])
    core_is_valid(pystac.Collection.from_file(str(tmp_path / "collection.json")))
    one = row(0).embedding
    untimed = one.meta.model_copy(update={"inputs": (one.meta.inputs[0].model_copy(update={"scene_times": ()}),)})
    bare = Row(0, "array", None, None, replace(one, meta=untimed, geobox=None))
    write_table(tmp_path / "u000000.parquet", [bare], HEADER)
    write_stac(tmp_path, HEADER, list(items_of(tmp_path / "u000000.parquet", tmp_path)))
    item = pystac.Item.from_file(str(tmp_path / "items" / "u000000.json"))
    core_is_valid(item)
    assert item.geometry is None and item.properties["rs_embed:datetime_is_of_the_run"]


def test_equal_items_give_equal_bytes(pooled):
    before = {path: path.read_bytes() for path in pooled.rglob("*.json")}
    header = replace(HEADER, dtype="int8", chip_size_px=(64, 64))
    write_stac(pooled, header, [i for p in sorted((pooled / "units").iterdir()) for i in items_of(p, pooled)])
    assert before == {path: path.read_bytes() for path in pooled.rglob("*.json")}
