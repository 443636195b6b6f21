"""`Embedder` is a transformer of scikit-learn whose input is places."""

import pickle
from importlib.resources import files

import geopandas
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError, SkipTestWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_checks

from rs_embed import Embedder, LocalRasters, TemporalSpec, get_embeddings
from rs_embed.errors import BatchError, KnobError, SpecError
from rs_embed.testing import FieldProvider

YEAR, GROUND = TemporalSpec.year(2021), FieldProvider()
CALL = {"temporal": YEAR, "backend": GROUND, "buffer_m": 40, "progress": False}
TABLE = pd.DataFrame(
    {
        "lon": 12.5 + 0.004 * np.arange(24),
        "lat": 47.0,
        "crop": ["rye", "oat", "rye", "rye"] * 6,
        "farm": np.arange(24) // 4,
    },
    index=[f"p{row}" for row in range(24)],
)
VECTORS = get_embeddings("mosaiks_rcf", TABLE, YEAR, backend=GROUND, buffer_m=40).stack()

APPLICABLE = (
    *("check_estimator_cloneable", "check_estimator_tags_renamed", "check_valid_tag_types", "check_estimator_repr"),
    *("check_no_attributes_set_in_init", "check_parameters_default_constructible", "check_get_params_invariance"),
    *("check_set_params", "check_do_not_raise_errors_in_init_or_set_params", "check_mixin_order"),
)
"""The checks of `check_estimator` without data. The others fit matrices of random numbers, which are no places."""


@pytest.mark.parametrize("name", APPLICABLE)
def test_the_checks_of_scikit_learn_that_need_no_matrix_pass(name):
    getattr(estimator_checks, name)("Embedder", Embedder())


def test_check_estimator_itself_knows_that_the_input_is_no_matrix():
    with pytest.warns(SkipTestWarning, match="requires input"):
        done = estimator_checks.check_estimator(Embedder(), on_skip=None)
    assert [one["check_name"] for one in done] == ["check_estimator_cloneable"]


@pytest.mark.slow
def test_its_vectors_are_those_of_get_embeddings_in_any_order_and_for_any_form_of_places():
    embedder = Embedder(**CALL)
    np.testing.assert_array_equal(embedder.fit_transform(TABLE), VECTORS)
    order = [5, 0, 11]
    np.testing.assert_array_equal(embedder.transform(TABLE.iloc[order]), VECTORS[order])
    pairs = TABLE[["lon", "lat"]].to_numpy()[order]
    np.testing.assert_array_equal(embedder.transform(pairs), VECTORS[order])
    frame = geopandas.GeoDataFrame(TABLE[["crop"]], geometry=geopandas.points_from_xy(TABLE.lon, TABLE.lat), crs=4326)
    np.testing.assert_array_equal(embedder.transform(frame.iloc[order]), VECTORS[order])


def test_it_names_its_columns_and_keeps_the_index():
    embedder = Embedder(**CALL).set_output(transform="pandas")
    frame = embedder.fit_transform(TABLE[:3])
    assert list(frame.index) == ["p0", "p1", "p2"]
    assert list(frame.columns[:2]) == ["mosaiks_rcf_0", "mosaiks_rcf_1"] and frame.shape == (3, 1024)
    assert list(embedder.get_feature_names_out()) == list(frame.columns)


@pytest.mark.slow
def test_it_searches_its_own_settings_within_a_pipeline():
    pipeline = make_pipeline(Embedder(**CALL), StandardScaler(), LogisticRegression(max_iter=10, tol=0.1))
    grid = {"embedder__pooling": ["mean", "max"]}
    search = GridSearchCV(pipeline, grid, cv=GroupKFold(2), error_score="raise")
    search.fit(TABLE[:6], TABLE["crop"][:6], groups=TABLE["farm"][:6])
    assert set(search.predict(TABLE[8:])) <= {"rye", "oat"}
    assert search.cv_results_["params"] == [{"embedder__pooling": "mean"}, {"embedder__pooling": "max"}]


def test_a_clone_and_a_pickle_embed_alike():
    embedder = Embedder(knobs={"patch_size": 4}, **CALL).fit(None)
    copy = clone(embedder)
    with pytest.raises(NotFittedError):
        copy.transform(TABLE)
    wanted = get_embeddings("mosaiks_rcf", TABLE[:2], YEAR, backend=GROUND, buffer_m=40, patch_size=4).stack()
    for one in (copy.fit(TABLE), pickle.loads(pickle.dumps(embedder))):
        np.testing.assert_array_equal(one.transform(TABLE[:2]), wanted)
    raster = LocalRasters(str(files("rs_embed") / "data/sample/s2_l2a_12band_10m.tif"), unit="dn")
    assert clone(Embedder(backend=raster)).backend.identity() == raster.identity()


def test_places_that_fail_raise_or_are_rows_of_nan():
    places = [(12.94, 47.77), (0.0, 0.0)]
    call = {"backend": "sample", "buffer_m": 80, "progress": False}
    with pytest.raises(BatchError):
        Embedder(**call).fit_transform(places)
    embedder = Embedder(on_error="nan", **call).fit(places)
    assert np.isfinite(embedder.transform(places)).all(axis=1).tolist() == [True, False]
    assert np.isnan(embedder.transform(places[1:])).all() and embedder.transform(places[1:]).shape == (1, 1024)


def test_invalid_settings_are_found_by_fit_before_anything_is_fetched():
    for wrong, error in (({"knobs": {"patchsize": 4}}, KnobError), ({"on_error": "skip"}, SpecError)):
        with pytest.raises(error):
            Embedder(**CALL | wrong).fit(TABLE)
