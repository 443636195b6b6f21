"""The table of all models tells the truth about each of them."""

import importlib

import pytest
from pages import ROOT

from rs_embed import list_models


@pytest.fixture
def docs_tables(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    return importlib.import_module("docs_tables")


@pytest.fixture
def rows(docs_tables) -> dict[str, list[str]]:
    """Id -> the other cells."""
    lines = docs_tables.zoo_table().splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]
    return {first.strip("`"): others for first, *others in cells}


def test_every_model_is_in_the_table(rows):
    assert sorted(rows) == sorted(list_models())


@pytest.mark.parametrize(
    ("model_id", "cells"),
    [
        ("prithvi_eo_2_0_600", "Sentinel-2, Landsat | 631 M | 1280 | 420 | single | Apache-2.0 | encoder | no"),
        ("presto_1_0", "Sentinel-2, Sentinel-1, elevation, weather, land cover | 404 k | 128 | 10 | series | MIT"),
        ("alphaearth_v1", "embeddings | none | 64 | 10 | year | CC-BY-4.0 | precomputed | no"),
        ("geoclip_location", "none | 9.45 M | 512 | 250 | none | MIT | location | yes"),
        ("terramind_0_1_base", "Sentinel-2 | 87.3 M | 768 | 160 | single | gated | encoder | no"),
    ],
)
def test_a_row_says_what_the_card_says(rows, model_id, cells):
    assert " | ".join(rows[model_id]).partition(" | ")[2].startswith(cells)


def test_weights_count_as_run_only_if_outputs_of_the_authors_code_are_kept(docs_tables):
    kept = [path.name for path in (ROOT / "tests/data/golden_trained").glob("*.npz")]
    compared = {"galileo_1_0_nano": "galileo_nano", "presto_1_0": "presto", "geoclip_location": "geoclip_location"}
    assert set(docs_tables.RAN_TRAINED) == {*compared, "mosaiks_rcf"}
    assert all(any(name.startswith(start) for name in kept) for start in compared.values())
