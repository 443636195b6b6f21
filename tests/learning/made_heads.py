"""A map whose tokens tell where they lie, labels that follow from the place, and a head trained on both."""

from dataclasses import replace
from functools import cache

import geopandas
import numpy as np
from made_map import CELL_M, HEADER, LEFT, TOP, MadeMap

from rs_embed.exports.results.embedding_map import EmbeddingMap
from rs_embed.learning.fit import fit

KNOWN = replace(
    HEADER,
    model_id="plain",
    weights="hub:plain#sha256:1234",
    weights_note=None,
    gsd_m=10.0,
    source_data=("COPERNICUS/S2_SR_HARMONIZED",),
    extra={"knobs": {"image_size": 96, "fetch_workers": 8}, "bands": ["s2:B2", "s2:B3"], "debiased": True},
)
MADE = MadeMap(rows=40, columns=56, days=(("2021-01-01", "2022-01-01"),), header=KNOWN, nodata=((3, 5),), overviews=1)
NAMES = np.array(["meadow", "water", "forest & co"])


def truth(rows, cols):
    """Diagonal bands of three classes: a line in the space of the tokens."""
    return NAMES[np.clip((np.asarray(rows) + np.asarray(cols)) // 32, 0, 2)]


def points(rows, cols, values, name="cover"):
    """Middles of tokens as a table."""
    xs, ys = LEFT + CELL_M * (np.asarray(cols) + 0.5), TOP - CELL_M * (np.asarray(rows) + 0.5)
    frame = geopandas.GeoDataFrame({name: values}, geometry=geopandas.points_from_xy(xs, ys, crs=MADE.epsg))
    return frame.to_crs(4326)


def labels(count=150, seed=0):
    """Labelled points spread over the map, without the token of nodata."""
    draw = np.random.default_rng(seed)
    rows, cols = draw.integers(4, MADE.rows, count), draw.integers(0, MADE.columns, count)
    return points(rows, cols, truth(rows, cols))


def region(folder, made=MADE):
    return EmbeddingMap(made.write(folder))


@cache
def _head(folder):
    return fit(labels(), "cover", region=region(folder), colours={"water": "#0000FF"})


def head(tmp_path_factory):
    """One head for all tests: training it takes a second."""
    return _head(tmp_path_factory.getbasetemp())
