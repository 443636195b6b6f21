"""Products of embeddings of any dimension, of free features or of unit vectors, and the backend that has them."""

from dataclasses import replace

import numpy as np
import pytest
from echo import CARD as ECHO
from plugins import TINY_PATCHES, install

from rs_embed import ModelCard, OutputSpec, PointBuffer, TemporalSpec, geobox_for, get_embedding
from rs_embed.embedders.card import auto_backend
from rs_embed.embedders.cards.alphaearth import COLLECTION
from rs_embed.embedders.cards.precomputed import ADAPTER, PrecomputedKnobs, vectors
from rs_embed.embedders.catalog import get_card
from rs_embed.errors import SpecError
from rs_embed.testing import FieldProvider, pixel_centres

PLACE, YEAR = PointBuffer(lon=12.94, lat=47.77, buffer_m=200), TemporalSpec.year(2022)
FEATURES = ("B2", "B3", "B4", "B5", "B6")


class MyKnobs(PrecomputedKnobs):
    prefix = "RS_EMBED_MY_FEATURES_"


def product(collection: str, bands: tuple[str, ...], **changes) -> ModelCard:
    facts = {"id": "mine", "kind": "precomputed", "adapter": ADAPTER, "knobs": MyKnobs, "dim": len(bands)}
    return replace(ECHO, **facts, modalities=(vectors(collection, bands),), input_prep="tile", **changes)


FREE = product("LANDSAT/LC08/C02/T1_TOA", FEATURES)
"""Five numbers of any size, as the product of a model would be."""


def large(lon, lat, band):
    return 40 * np.sin(700 * lon + 900 * lat + len(band) + int(band[1:]))


def embed(card: ModelCard, output=OutputSpec.pooled(), field=large, **options):
    return get_embedding(card, PLACE, YEAR, output, FieldProvider(field), **options)


def truth() -> np.ndarray:
    lon, lat = pixel_centres(geobox_for(PLACE))
    return np.stack([large(lon, lat, band) for band in FEATURES]).astype(np.float32)


def test_free_features_stay_as_they_are_and_have_a_plain_mean_and_a_maximum():
    grid, mean, most = embed(FREE, OutputSpec.grid()), embed(FREE), embed(FREE, OutputSpec.pooled("max"))
    np.testing.assert_array_equal(grid.data, truth())
    np.testing.assert_allclose(mean.data, truth().mean(axis=(1, 2)), rtol=1e-5)
    np.testing.assert_array_equal(most.data, truth().max(axis=(1, 2)))
    assert (mean.meta.pooling, mean.meta.weights) == ("patch_mean", "precomputed:LANDSAT/LC08/C02/T1_TOA")


def test_a_pixel_that_lacks_one_feature_is_nodata():
    def holes(lon, lat, band):
        values = large(lon, lat, band)
        values[:4] = np.nan if band == "B4" else values[:4]
        return values

    grid = embed(FREE, OutputSpec.grid(), holes)
    assert np.isnan(grid.data[:, :4]).all()
    np.testing.assert_array_equal(grid.data[:, 4:], truth()[:, 4:])
    np.testing.assert_allclose(embed(FREE, field=holes).data, truth()[:, 4:].mean(axis=(1, 2)), rtol=1e-5)


def test_vectors_of_length_one_have_any_dimension_and_a_mean_direction():
    def circle(lon, lat, band):
        angle = 700 * lon + 900 * lat
        return np.sin(angle) if band == "A01" else np.cos(angle)

    card = product(COLLECTION, ("A00", "A01"))
    mean = embed(card, field=circle)
    assert mean.data.shape == (2,)
    assert np.linalg.norm(mean.data) == pytest.approx(1, abs=1e-6)
    assert mean.meta.pooling == "unit_patch_mean"
    with pytest.raises(SpecError, match="mean direction"):
        embed(card, OutputSpec.pooled("max"), circle)


def test_pixels_of_a_product_are_never_resampled():
    with pytest.raises(SpecError, match="pixels at their native size"):
        embed(FREE, input_prep="resize")


def test_auto_means_the_backend_that_the_card_names(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(install(TINY_PATCHES, tmp_path / "site"))
    card = replace(get_card("mosaiks_rcf"), id="mine", aliases=(), backend="stripes")
    assert get_embedding(card, PLACE, YEAR).meta.inputs[0].provider == "stripes"
    chw = np.full((12, 40, 40), 300, np.float32) + np.arange(40, dtype=np.float32)
    assert get_embedding(card, input_chw=chw).meta.inputs[0].provider == "array"


def test_models_of_several_backends_do_not_share_one():
    assert auto_backend([get_card("thor"), get_card("mosaiks")]) == "auto"
    assert auto_backend([get_card("gse")]) == "gee-or-published"
    with pytest.raises(SpecError, match="models of one backend") as caught:
        auto_backend([get_card("gse"), get_card("thor_1_0_tiny")])
    assert caught.value.facts == {"alphaearth_v1": "gee-or-published", "thor_1_0_tiny": "auto"}
