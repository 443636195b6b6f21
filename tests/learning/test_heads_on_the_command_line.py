"""From labels to a map on the command line."""

import json

import geopandas
import made_heads
import pandas as pd
import pytest
import rasterio
from command_line import invoke, misused, refused
from made_heads import labels, points

from rs_embed.learning.head import load_head

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A region's folder, labels in two files, and a head made of them by the command."""
    folder = tmp_path_factory.mktemp("command-line")
    made_heads.region(folder / "map")
    labels().to_file(folder / "labels.gpkg", layer="labels")
    done = invoke(
        *("fit", folder / "labels.gpkg", "--label", "cover", "--region", folder / "map", "--head", "logistic"),
        *("--out", folder / "head.safetensors", "--json"),
    )
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["places"] == 150 and told["scores"]["balanced accuracy"][0] > 0.85 and told["head"] == "logistic"
    return folder


def test_fit_prints_the_head_with_its_score_and_why_the_folds_are_as_they_are(folder, tmp_path):
    done = invoke(
        *("fit", folder / "labels.gpkg", "--label", "cover", "--region", folder / "map", "--head", "knn"),
        *("--blocks", "400", "--out", tmp_path / "head.safetensors"),
    )
    assert done.exit_code == 0 and "wrote" in done.stderr
    assert "balanced accuracy" in done.stdout and "  - Blocks are 400 m wide, as requested." in done.stdout
    assert load_head(tmp_path / "head.safetensors").facts.head == "knn"


def test_predict_maps_a_region_with_polygons_and_areas(folder, tmp_path):
    done = invoke(
        *("predict", folder / "head.safetensors", folder / "map", tmp_path / "cover.tif", "--areas"),
        *("--polygons", tmp_path / "fields.gpkg", "--probabilities", tmp_path / "p.tif", "--sample", "random"),
    )
    assert done.exit_code == 0, done.stderr
    assert "estimated_ha" in done.stdout and "meadow" in done.stdout
    with rasterio.open(tmp_path / "p.tif") as file:
        assert file.count == 3
    assert len(geopandas.read_file(tmp_path / "fields.gpkg")) >= 3
    labels(60, seed=4).to_file(tmp_path / "others.gpkg", layer="others")
    done = invoke(
        *("predict", folder / "head.safetensors", folder / "map", tmp_path / "cover.tif", "--json"),
        *("--reference", tmp_path / "others.gpkg"),
    )
    told = json.loads(done.stdout)
    assert told["classes"]["1"] == "forest & co" and len(told["areas"]) == 3
    assert told["notes"][0] == "The error matrix compares the map with 60 reference labels."


def test_predict_keeps_the_rows_of_a_table(folder, tmp_path):
    frame = pd.concat([labels(5, seed=9), points([500], [5], ["water"])], ignore_index=True)
    frame.to_file(tmp_path / "plots.gpkg", layer="plots")
    given = ("predict", folder / "head.safetensors", tmp_path / "plots.gpkg")
    done = invoke(*given, tmp_path / "out.csv", "--region", folder / "map")
    assert done.exit_code == 0 and done.stdout == "6 rows, 1 failed\n"
    table = pd.read_csv(tmp_path / "out.csv")
    assert (
        len(table) == 6 and table.status.tolist() == ["ok"] * 5 + ["failed"] and table.geometry[0].startswith("POINT")
    )
    done = invoke(*given, tmp_path / "out.gpkg", "--region", folder / "map", "--json")
    assert json.loads(done.stdout)["failed"] == 1
    assert geopandas.read_file(tmp_path / "out.gpkg").predicted.notna().sum() == 5
    refused(invoke(*given, tmp_path / "out.xlsx", "--region", folder / "map"), "StorageError", ".parquet")


def test_suggest_writes_points_to_label(folder, tmp_path):
    done = invoke(
        *("suggest", folder / "map", tmp_path / "todo.gpkg", "--head", folder / "head.safetensors", "--count", "7"),
        *("--known", folder / "labels.gpkg", "--apart", "200"),
    )
    assert done.exit_code == 0 and "uncertainty" in done.stdout and "7 points" in done.stderr
    assert len(geopandas.read_file(tmp_path / "todo.gpkg")) == 7 and (tmp_path / "todo.qml").is_file()
    done = invoke("suggest", folder / "map", tmp_path / "start.gpkg", "--classes", "a,b", "--column", "kind", "--json")
    assert json.loads(done.stdout)["points"] == 20
    assert "kind" in geopandas.read_file(tmp_path / "start.gpkg")


def test_mistakes_are_told_with_their_fix(folder, tmp_path):
    table = folder / "labels.gpkg"
    refused(invoke("fit", table, "--label", "cover"), "SpecError", "Expected a source of vectors")
    refused(invoke("fit", table, "--label", "crop", "--region", folder / "map"), "SpecError", "columns", "cover")
    misused(invoke("fit", table, "--label", "cover", "--region", folder / "map", "--blocks", "wide"), "--blocks takes")
    refused(invoke("predict", table, folder / "map", tmp_path / "a.tif"), "StorageError", "Expected a head")
