"""`rs-embed evaluate`: a table, a column and models; out come a table, a report and JSON."""

import json

import numpy as np
import pandas as pd
import pytest
from command_line import invoke, misused, refused


@pytest.fixture
def plots(tmp_path):
    """Places on the sample scene."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"lon": 12.9275 + rng.random(40) * 0.02, "lat": 47.755 + rng.random(40) * 0.025})
    frame.assign(cover=rng.choice(["meadow", "forest"], 40), farm=np.arange(40) % 8).to_csv(
        tmp_path / "plots.csv", index=False
    )
    return tmp_path / "plots.csv"


@pytest.mark.slow
def test_models_are_compared_on_the_labels_of_a_table(plots, tmp_path):
    words = ("evaluate", plots, "--label", "cover", "--models", "mosaiks_rcf,mosaiks_rcf:patch_size=4")
    words += ("--buffer", "60", "--backend", "sample", "--head", "knn", "--out", tmp_path / "out")
    done = invoke(*words)

    assert done.exit_code == 0, done.stderr
    for text in ("mosaiks_rcf (patch_size=4)", "band statistics", "coordinates alone", "majority", "report.html"):
        assert text in done.stdout
    assert (tmp_path / "out" / "report.html").is_file()
    told = json.loads(invoke(*words, "--groups", "farm", "--json").stdout)
    assert told["folds"]["how"] == "groups" and told["folds"]["blocks"] <= 8 and len(told["rows"]) == 5


def test_what_is_wrong_is_said_before_anything_is_computed(plots, tmp_path):
    out = tmp_path / "out"
    words = ("evaluate", plots, "--buffer", "60", "--backend", "sample", "--out", out, "--models")
    refused(invoke(*words, "mosaiks_rcf", "--label", "crop"), "SpecError", "a column 'crop' of labels")
    refused(invoke(*words, "mosaik_rfc", "--label", "cover"), "UnknownModelError", "mosaiks_rcf")
    refused(invoke(*words, "mosaiks_rcf", "--label", "farm"), "SpecError", "whole numbers", "--kind classes")
    refused(invoke(*words, "mosaiks_rcf", "--label", "cover", "--head", "forest"), "SpecError", "logistic")
    refused(invoke(*words, "mosaiks_rcf", "--label", "cover", "--groups", "field"), "SpecError", "'field' of groups")
    misused(invoke(*words, "mosaiks_rcf", "--label", "cover", "--blocks", "wide"), "--blocks takes metres, auto or")
    assert not out.exists() or not list(out.rglob("*.parquet"))
