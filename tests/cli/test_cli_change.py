"""Change on the command line."""

import json
from dataclasses import replace

import geopandas
import numpy as np
import pytest
from command_line import invoke, refused
from made_map import MadeMap
from made_rows import embedding

from rs_embed import PointBuffer, detect_change, open_region

GRID = embedding(PointBuffer(12.94, 47.77, 1600), grid=True, dim=8)


def test_two_grids_become_polygons(tmp_path):
    noise = np.random.default_rng(1).normal(0, 0.05, GRID.data.shape).astype(np.float32)
    noise[:, 10:13, 4:9] += 2 * np.roll(GRID.data, 3, axis=0)[:, 10:13, 4:9]
    later = replace(GRID, data=GRID.data + noise)
    paths = [one.save(tmp_path / name) for one, name in ((GRID, "a.tif"), (later, "b.tif"))]
    out, raster = tmp_path / "change.gpkg", tmp_path / "distance.tif"
    answer = invoke("change", *paths, "--out", out, "--raster", raster, "--min-tokens", 5, "--false-alarms", 0.001)
    assert answer.exit_code == 0, answer.output
    assert "1 polygons" in answer.stdout and "tokens lie above" in answer.stdout
    assert geopandas.read_file(out)["tokens"].tolist() == [15] and raster.exists()

    stable = tmp_path / "stable.geojson"
    south = GRID.geobox[20:].extent.geom
    geopandas.GeoDataFrame(geometry=[south], crs=32633).to_crs(4326).to_file(stable)
    answer = invoke("change", *paths, "--out", out, "--stable", stable, "--json")
    facts = json.loads(answer.stdout)
    assert facts["stable_tokens"] == 40 * 20 and facts["changed_tokens"] >= 15 and facts["out"] == str(out)
    refused(invoke("change", paths[0], "--out", out), "SpecError", "two grids")


@pytest.mark.slow
def test_two_times_of_a_region(tmp_path):
    MadeMap().write(tmp_path / "map")
    out = tmp_path / "change.gpkg"
    answer = invoke("change", tmp_path / "map", "--times", "2021", "2022", "--false-alarms", "0.05", "--out", out)
    assert answer.exit_code == 0, answer.output
    wanted = detect_change(open_region(tmp_path / "map"), times=(0, 1), false_alarms=0.05)
    assert geopandas.read_file(out)["tokens"].tolist() == wanted.polygons["tokens"].tolist()
    refused(invoke("change", tmp_path / "map", "--out", out), "SpecError", "two times")
