"""What to label next: the head is unsure of it, and it is unlike what is known."""

from xml.etree import ElementTree

import geopandas
import numpy as np
import pandas as pd
import pytest
from made_heads import CELL_M, truth
from made_heads import region as made_region

from rs_embed.errors import ChoiceWarning, SpecError, StorageError
from rs_embed.learning.footprints import on_sphere
from rs_embed.learning.labels import read_labels
from rs_embed.learning.suggest import suggest_labels


def cells(frame, region):
    """Row and column of suggestions."""
    projected = frame.to_crs(32633)
    left, _, _, top = region.bounds
    xs, ys = projected.geometry.x.to_numpy(), projected.geometry.y.to_numpy()
    return (top - ys) / CELL_M - 0.5, (xs - left) / CELL_M - 0.5


def test_suggestions_are_middles_of_tokens_of_which_the_head_is_unsure(head, region):
    found = suggest_labels(region, head, count=12)
    assert list(found) == ["id", "cover", "predicted", "uncertainty", "cell_m", "geometry"]
    assert len(found) == 12 and found.cover.isna().all() and found.crs.to_epsg() == 4326
    rows, cols = cells(found, region)
    np.testing.assert_allclose(rows, rows.round(), atol=1e-3)
    border = np.abs((rows + cols + 1)[:, None] - np.array([32, 64])).min(axis=1)
    every = np.indices(region.shape).reshape(2, -1).sum(axis=0) + 1
    assert np.median(border) < np.median(np.abs(every[:, None] - np.array([32, 64])).min(axis=1)) / 2
    np.testing.assert_array_equal(suggest_labels(region, head, count=12), found)


def test_suggestions_are_unlike_each_other_and_unlike_what_is_known(region):
    def closest(frame):
        rows, cols = cells(frame, region)
        tokens = np.stack([rows + 1, cols + 1], axis=1)
        gaps = np.linalg.norm(tokens[:, None] - tokens, axis=2)
        return gaps[np.triu_indices(len(frame), 1)].min()

    found = suggest_labels(region, count=8, classes=["a", "b"], column="kind")
    assert list(found) == ["id", "kind", "cell_m", "geometry"] and closest(found) > 5
    known = read_labels(found.assign(kind=["a", "b"] * 4), "kind", buffer_m=1)
    more = suggest_labels(region, count=8, known=known)
    assert closest(pd.concat([found, more])) > 0
    apart = suggest_labels(region, count=10, apart_m=600)
    where = on_sphere(apart.geometry.x.to_numpy(), apart.geometry.y.to_numpy())
    gaps = np.linalg.norm(where[:, None] - where, axis=2)[np.triu_indices(len(apart), 1)]
    assert gaps.min() >= 600


def test_suggestions_go_to_qgis_and_come_back_as_labels(head, region, tmp_path):
    path = tmp_path / "todo.gpkg"
    suggest_labels(region, head, count=6, out=path)
    form = ElementTree.parse(tmp_path / "todo.qml")
    assert form.find(".//field").get("name") == "cover" and form.find(".//editWidget").get("type") == "ValueMap"
    offered = [one.get("value") for one in form.findall(".//editWidget//Option[@type='QString']")]
    assert offered == list(head.classes)
    table = geopandas.read_file(path)
    rows, cols = cells(table, region)
    table.loc[:3, "cover"] = truth(rows[:4].round().astype(int), cols[:4].round().astype(int))
    table.to_file(path, layer="todo")  # as QGIS saves it
    with pytest.warns(ChoiceWarning, match="2 of 6 rows have no label"):
        read = read_labels(path, "cover", buffer_m=1)
    assert len(read) == 4 and set(read.classes) <= set(head.classes)
    with pytest.raises(StorageError, match="which may hold labels"):
        suggest_labels(region, head, out=path)


def test_what_cannot_be_suggested_is_refused(head, tmp_path):
    with pytest.raises(SpecError, match="whole number from 1"):
        suggest_labels(made_region(tmp_path), head, count=0)
    with pytest.raises(StorageError, match=r"\.gpkg"):
        suggest_labels(made_region(tmp_path / "a"), head, out=tmp_path / "todo.csv")
