"""Maps of regions on the command line."""

import json

import pytest
import rasterio
from command_line import invoke, misused, refused

from rs_embed import open_region

BOX = ("--bbox", "12.935", "47.765", "12.945", "47.772")
OPTIONS = ("--backend", "sample", "--set", "img=64", "--block-cells", "7", "--debias", "none")


@pytest.mark.slow
def test_a_region_becomes_a_map_that_is_drawn_and_continued(tmp_path):
    out = str(tmp_path / "map")
    made = invoke("region", "mosaiks", *BOX, out, *OPTIONS, "--json")
    assert made.exit_code == 0, made.output
    (facts,) = json.loads(made.stdout)["maps"].values()
    assert facts["failed"] == 0 < facts["ok"]
    pictures = [str(tmp_path / f"{name}.tif") for name in ("pca", "similar", "tokens")]
    drawn = invoke(
        "map", out, "--pca", pictures[0], "--similar", "12.94", "47.768", pictures[1], "--geotiff", pictures[2]
    )
    assert drawn.exit_code == 0, drawn.output
    assert "100 %" in drawn.stdout
    counts = []
    for picture in pictures:
        with rasterio.open(picture) as dataset:
            assert dataset.crs.to_epsg() == 32633
            counts.append(dataset.count)
    assert counts == [4, 1, 1024]
    listed = invoke("map", out, "--index", "--most-similar", "12.94", "47.768", "--top", "3")
    assert listed.exit_code == 0, listed.output
    best = open_region(out).most_similar(12.94, 47.768, top=3)
    assert "vectors" in listed.stdout and "ten nearest" in listed.stdout
    assert [f"{one:.4f}" in listed.stdout for one in best["similarity"]] == [True] * 3
    nowhere = invoke("map", out, "--most-similar", "12.94", "47.768", "--within", "1,1,2,2")
    refused(nowhere, "OutsideCoverage", "overlaps the map")
    before = open_region(out).at(12.94, 47.768).data
    assert invoke("region", "mosaiks", *BOX, out, *OPTIONS).exit_code == 0
    assert (open_region(out).at(12.94, 47.768).data == before).all()


def test_what_does_not_go_together_is_refused(tmp_path):
    out = str(tmp_path / "map")
    misused(invoke("region", "mosaiks", out), "REGION and OUT")
    misused(invoke("region", "mosaiks", *BOX, out, "--monthly"), "--monthly")
    misused(invoke("region", "mosaiks", *BOX, out, "--dry-run", "--rate", "junk"), "--rate takes a number or measure")
    misused(invoke("region", "mosaiks", *BOX, out, "--set", "img"), "--set takes KNOB=VALUE")
    refused(invoke("region", "mosaiks", *BOX, out, "--crs", "EPSG:4326"), "SpecError", "metres")
    refused(invoke("map", out), "StorageError")
