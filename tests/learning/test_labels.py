"""Labels are read from any table of places; what a column means is never guessed."""

import json

import geopandas
import numpy as np
import pandas as pd
import pytest
from shapely.geometry import Point, box

from rs_embed import PointBuffer, read_places
from rs_embed.errors import ChoiceWarning, SpecError
from rs_embed.learning.labels import read_labels


def table(**columns):
    rows = len(next(iter(columns.values())))
    return pd.DataFrame({"lon": 12.5 + 0.01 * np.arange(rows), "lat": 47.0, "buffer_m": 160.0, **columns})


def test_text_is_classes_in_the_order_of_their_names():
    labels = read_labels(table(crop=["wheat", "maize", " wheat", "rye"]), "crop")

    assert (labels.kind, labels.classes, labels.column) == ("classes", ("maize", "rye", "wheat"), "crop")
    np.testing.assert_array_equal(labels.targets, [2, 0, 2, 1])
    assert labels.targets.dtype == np.int64 and labels.support() == {"maize": 1, "rye": 1, "wheat": 2}
    assert labels.places[3].spatial == PointBuffer(12.53, 47.0, 160)
    assert repr(labels) == "Labels(4 places, 'crop': classes: maize 1, rye 1, wheat 2)"


def test_rows_without_a_label_are_left_out_and_counted_and_the_others_keep_their_numbers():
    with pytest.warns(ChoiceWarning, match="2 of 5 rows have no label in 'crop': 1, 3"):
        labels = read_labels(table(crop=["b", None, "a", " ", "b"]), "crop")

    assert labels.places.rows.tolist() == [0, 2, 4] and labels.targets.tolist() == [1, 0, 1]


def test_numbers_with_a_fraction_are_numbers_and_whole_ones_need_a_word():
    assert read_labels(table(t=[0.5, 2.0, 3.0]), "t").targets.tolist() == [0.5, 2.0, 3.0]
    with pytest.raises(SpecError, match="whole numbers in 'code'") as caught:
        read_labels(table(code=[1, 2, 10]), "code")
    assert 'kind="classes"' in caught.value.fix

    with pytest.warns(ChoiceWarning, match="1 of 4"):  # the missing one makes floats of them
        codes = read_labels(table(code=[2, 10, None, 1]), "code", kind="classes")
    assert codes.classes == ("1", "2", "10") and codes.targets.tolist() == [1, 2, 0]
    assert read_labels(table(code=[1, 2, 10]), "code", kind="number").kind == "number"
    with pytest.raises(SpecError, match="numbers in the column 'crop'") as caught:
        read_labels(table(crop=["1", "two"]), "crop", kind="number")
    assert "row 1: 'two'" in caught.value.facts["rows"]


@pytest.mark.parametrize(
    "cells", [["water; forest", "forest", "urban"], [["forest", "water"], ["forest"], np.array(["urban"])]]
)
def test_lists_and_texts_with_semicolons_hold_several_labels(cells):
    labels = read_labels(table(cover=cells), "cover")

    assert (labels.kind, labels.classes) == ("multilabel", ("forest", "urban", "water"))
    np.testing.assert_array_equal(labels.targets, [[1, 0, 1], [1, 0, 0], [0, 1, 0]])
    assert labels.take([2, 0]).targets[0].tolist() == [False, True, False]


def test_several_columns_are_the_classes_of_a_multi_label_table():
    labels = read_labels(table(water=[True, False, True], urban=[0, 1, 1]), ["water", "urban"])

    assert labels.column == "water, urban" and labels.support() == {"water": 2, "urban": 2}
    with pytest.raises(SpecError, match="0 or 1 in the column 'urban'"):
        read_labels(table(water=[1, 0], urban=[0, 2]), ["water", "urban"])


def test_an_empty_list_is_a_label_of_none_of_the_classes():
    assert read_labels(table(cover=[["a"], []]), "cover").targets.tolist() == [[True], [False]]


def test_files_features_and_places_are_tables_like_any_other(tmp_path):
    frame = geopandas.GeoDataFrame({"crop": ["a", "b"], "n": [1, 2]}, geometry=[box(7, 50, 7.01, 50.01)] * 2, crs=4326)
    frame.to_file(tmp_path / "fields.gpkg")
    table(crop=["a", "b"]).to_csv(tmp_path / "points.csv", index=False)
    features = json.loads(frame.to_json())

    for given in (tmp_path / "fields.gpkg", tmp_path / "points.csv", features, frame):
        assert read_labels(given, "crop").targets.tolist() == [0, 1]
    assert read_labels(read_places(frame), "crop").targets.tolist() == [0, 1]


def test_the_labels_that_a_page_saves_are_read_by_name(tmp_path):
    """The page writes points in degrees, with the name of the class in `label`."""
    saved = geopandas.GeoDataFrame(
        {"label": ["water", "field"], "class": [1, 2]}, geometry=[Point(7, 50), Point(8, 50)]
    )
    saved.set_crs(4326).to_file(tmp_path / "labels.geojson")

    labels = read_labels(tmp_path / "labels.geojson", "label", buffer_m=320)
    assert labels.classes == ("field", "water") and labels.places[0].spatial == PointBuffer(7, 50, 320)


@pytest.mark.parametrize(
    ("given", "label", "options", "wanted"),
    [
        (table(crop=["a", "b"]), "corp", {}, "a column 'corp'"),
        (table(crop=["a", "a"]), "crop", {}, "at least two different labels in 'crop', got 'a' in all 2"),
        (table(crop=["", None]), "crop", {}, "labels in 'crop', got none"),
        (table(crop=["a", "b"]), "crop", {"kind": "klasses"}, "kind"),
        (table(a=[0, 1], b=[1, 0]), ["a", "b"], {"kind": "number"}, "one column for kind='number'"),
        ([PointBuffer(7, 50, 100)], "crop", {}, "a table with a column of labels"),
    ],
)
def test_what_cannot_be_labels_is_refused(given, label, options, wanted):
    with pytest.raises(SpecError, match=wanted):
        read_labels(given, label, **options)
