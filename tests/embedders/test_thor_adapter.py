"""THOR through the public call: the model page's contract, and the authors' preprocessing."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from rs_embed import OutputSpec, PointBuffer, SensorSpec, TemporalSpec, get_embedding
from rs_embed.embedders.cards.thor import MODALITIES, S2, S2_BANDS_10
from rs_embed.encoders.thor.bands import resolve_bands
from rs_embed.encoders.thor.encoder import ThorEncoder
from rs_embed.encoders.thor.patchify import plan_geometry
from rs_embed.errors import BandMismatch, ChoiceWarning, InputError, KnobError, ScaleWarning, SpecError, WeightsError
from rs_embed.testing import FieldProvider

PUBLIC_NAMES = "BLUE GREEN RED RED_EDGE_1 RED_EDGE_2 RED_EDGE_3 NIR_BROAD NIR_NARROW SWIR_1 SWIR_2".split()  # noqa: SIM905
MEAN = [0.176620, 0.195923, 0.213948, 0.263378, 0.300818, 0.313144, 0.308133, 0.320993, 0.221550, 0.175772]
STD = [0.264520, 0.252949, 0.259180, 0.272771, 0.248175, 0.235432, 0.226434, 0.223274, 0.171606, 0.156223]
"""MODELS.md 1.6, typed again here on purpose, in the order of PUBLIC_NAMES."""
PLACE = PointBuffer(lon=121.5, lat=31.2, buffer_m=1440)


@pytest.fixture
def dn() -> np.ndarray:
    """Sentinel-2 DN `[10, 288, 288]` with dark, bright (over 10,000) and smooth parts."""
    rng = np.random.default_rng(3)
    smooth = 1500 + 800 * np.sin(np.arange(288) / 20)[:, None] * np.cos(np.arange(288) / 30)
    return (smooth + rng.uniform(0, 300, (10, 288, 288)) + 11_000 * (rng.random((288, 288)) > 0.999)).astype(np.float32)


def thor(checkpoint: Path, **options):
    return get_embedding("thor_1_0_tiny", ckpt=checkpoint, **options)


def by_hand(checkpoint: Path, images: torch.Tensor, names=PUBLIC_NAMES, cover_m=2880, patch=16) -> torch.Tensor:
    """The authors' way, written again from MODELS.md: their band names, their layout, the bare encoder."""
    encoder = ThorEncoder(dim=192, depth=12, heads=3, band_dim=32).eval()
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    encoder.load_state_dict({k.removeprefix("encoder."): v for k, v in state.items() if k.startswith("encoder.")})
    bands, gsd_m = resolve_bands(names)
    with torch.inference_mode():
        return encoder(images[None], plan_geometry(bands, cover_m, [patch], gsd_m=gsd_m)).values[0]


def standardised(dn: np.ndarray) -> torch.Tensor:
    mean, std = (torch.tensor(v)[:, None, None] for v in (MEAN, STD))
    return ((torch.from_numpy(dn).clamp(0, 10_000) / 10_000 - mean) / std).clamp(-5, 5)


def test_the_default_path_is_the_page_step_by_step(thor_tiny_checkpoint, dn):
    expected = by_hand(thor_tiny_checkpoint, standardised(dn)).mean(dim=0)
    embedding = thor(thor_tiny_checkpoint, input_chw=dn)
    np.testing.assert_allclose(embedding.data, expected, atol=1e-5)
    meta = embedding.meta
    assert meta["model_key"] == "thor_v1_tiny"
    assert meta["normalization"] == "thor_stats"
    assert meta["group_merge"] == "mean"
    assert (meta["patch_size"], meta["image_size"]) == (16, 288)
    assert meta["ground_cover_m"] == 2880
    assert meta["pooling"] == "patch_mean"
    assert meta["cls_removed"] is False
    assert meta["gsd_m"] == 10
    assert meta["tokens"] == {"group0": [18, 18], "group1": [9, 9]}


def test_a_region_of_another_size_is_normalised_first_and_then_resized(thor_tiny_checkpoint):
    provider = FieldProvider()
    place = PointBuffer(lon=121.5, lat=31.2, buffer_m=2048)
    with pytest.warns(ScaleWarning, match=r"expects pixels of 10 m, but after resizing they are 14\.2 m"):
        embedding = thor(thor_tiny_checkpoint, spatial=place, backend=provider)
    pixels = provider.fetch(provider.queries[0]).values[0]
    resized = interpolate(standardised(pixels)[None], (288, 288), mode="bilinear", align_corners=False)[0]
    np.testing.assert_allclose(embedding.data, by_hand(thor_tiny_checkpoint, resized).mean(dim=0), atol=1e-5)
    assert embedding.meta["ground_cover_m"] == 2880, "the page's rule stays"
    assert embedding.meta["gsd_m"] == pytest.approx(4100 / 288), "and the truth is told"


@pytest.mark.parametrize("merge", ["mean", "sum", "concat"])
def test_the_grid_is_the_merged_group_grid_of_the_reference(thor_tiny_checkpoint, dn, merge):
    tokens = by_hand(thor_tiny_checkpoint, standardised(dn))
    fine = tokens[: 18 * 18].T.reshape(192, 18, 18)
    coarse = interpolate(tokens[18 * 18 :].T.reshape(1, 192, 9, 9), (18, 18), mode="bilinear")[0]
    expected = {"mean": (fine + coarse) / 2, "sum": fine + coarse, "concat": torch.cat([fine, coarse])}[merge]
    embedding = thor(thor_tiny_checkpoint, input_chw=dn, output=OutputSpec.grid(), group_merge=merge)
    np.testing.assert_allclose(embedding.data, expected, atol=1e-5)
    assert embedding.meta["grid_kind"] == "thor_group_grid"


@pytest.mark.slow
def test_normalize_none_feeds_clipped_dn_and_unit_scale_feeds_reflectance(thor_tiny_checkpoint, dn):
    clipped = torch.from_numpy(dn).clamp(0, 10_000)
    for normalize, images in (("none", clipped), ("raw", clipped), ("unit_scale", clipped / 10_000)):
        embedding = thor(thor_tiny_checkpoint, input_chw=dn, normalize=normalize)
        np.testing.assert_allclose(embedding.data, by_hand(thor_tiny_checkpoint, images).mean(dim=0), atol=1e-4)
        assert embedding.meta["normalization"] == {"raw": "none"}.get(normalize, normalize)


def test_max_pooling_and_the_final_norm_are_what_they_say(thor_tiny_checkpoint, dn):
    tokens = by_hand(thor_tiny_checkpoint, standardised(dn))
    largest = thor(thor_tiny_checkpoint, input_chw=dn, output=OutputSpec.pooled("max"))
    np.testing.assert_allclose(largest.data, tokens.amax(dim=0), atol=1e-5)
    normed = thor(thor_tiny_checkpoint, input_chw=dn, final_norm=True).data
    expected = torch.nn.functional.layer_norm(tokens, (192,), eps=1e-6).mean(dim=0)  # the seeded norm is 1 and 0
    np.testing.assert_allclose(normed, expected, atol=1e-5)


def test_sentinel_1_is_standardised_in_db_with_the_authors_table(thor_tiny_checkpoint):
    db = np.random.default_rng(0).normal([[[-12]], [[-20]]], 4, (2, 288, 288)).astype(np.float32)
    mean, std = torch.tensor([-12.9850, -20.6958]), torch.tensor([5.0062, 5.8688])
    images = ((torch.from_numpy(db) - mean[:, None, None]) / std[:, None, None]).clamp(-5, 5)
    expected = by_hand(thor_tiny_checkpoint, images, ["VV", "VH"]).mean(dim=0)
    np.testing.assert_allclose(thor(thor_tiny_checkpoint, input_chw=db, modality="s1").data, expected, atol=1e-5)


def test_sentinel_1_at_60_m_uses_its_own_table_and_pixel_size(thor_tiny_checkpoint):
    db = np.random.default_rng(0).normal([[[-12]], [[-20]]], 4, (2, 96, 96)).astype(np.float32)
    mean, std = torch.tensor([-13.0095, -20.6672]), torch.tensor([5.2439, 5.9634])
    images = ((torch.from_numpy(db) - mean[:, None, None]) / std[:, None, None]).clamp(-5, 5)
    expected = by_hand(thor_tiny_checkpoint, images, ["VV_60", "VH_60"], cover_m=5760).mean(dim=0)
    embedding = thor(thor_tiny_checkpoint, input_chw=db, modality="s1_60")
    np.testing.assert_allclose(embedding.data, expected, atol=1e-5)
    assert embedding.meta["ground_cover_m"] == 5760


def test_sentinel_1_and_2_stand_in_one_sequence(thor_tiny_checkpoint, dn):
    db = np.random.default_rng(0).normal([[[-12]], [[-20]]], 4, (2, 288, 288)).astype(np.float32)
    mean, std = torch.tensor([-12.9850, -20.6958]), torch.tensor([5.0062, 5.8688])
    radar = ((torch.from_numpy(db) - mean[:, None, None]) / std[:, None, None]).clamp(-5, 5)
    images = torch.cat([standardised(dn), radar])
    expected = by_hand(thor_tiny_checkpoint, images, [*PUBLIC_NAMES, "VV", "VH"]).mean(dim=0)
    for modality in ("s2+s1", ["s2", "s1"], None):
        embedding = thor(thor_tiny_checkpoint, input_chw={"s2": dn, "s1": db}, modality=modality)
        np.testing.assert_allclose(embedding.data, expected, atol=1e-5)
        assert embedding.meta["modality"] == ("s2", "s1")


def test_modalities_of_different_sizes_are_refused(thor_tiny_checkpoint, dn):
    with pytest.raises(InputError, match="cover the same ground"):
        thor(thor_tiny_checkpoint, input_chw={"s2": dn, "s1": dn[:2, :100, :100] / -300})


@pytest.mark.filterwarnings("ignore:More than 5% of the values")  # the hills are no brightness temperatures
@pytest.mark.parametrize("modality", [m.name for m in MODALITIES])
def test_every_modality_of_the_card_runs_and_is_in_place(modality):
    def plausible(lon, lat, band):
        waves = np.sin(900 * lon) + np.cos(1100 * lat)
        if band in ("VV", "VH"):
            return -15 + 3 * waves
        return 280 + 5 * waves if "BT" in band else (0.2 + 0.05 * waves) * (1 if "reflectance" in band else 10_000)

    sensor = next(m.sensor for m in MODALITIES if m.name == modality)
    side_px = {10: 288, 60: 96, 240: 96}[sensor.scale_m]
    place = PointBuffer(lon=12.9, lat=47.7, buffer_m=side_px * sensor.scale_m / 2)
    grid = get_embedding(
        "thor_1_0_tiny", place, output=OutputSpec.grid(), backend=FieldProvider(plausible), modality=modality,
        pretrained=False,
    )  # fmt: skip
    assert np.isfinite(grid.data).all()
    assert grid.meta["gsd_m"] == sensor.scale_m
    assert grid.meta["ground_cover_m"] == side_px * sensor.scale_m
    assert grid.geobox.extent.area == pytest.approx((side_px * sensor.scale_m) ** 2)
    assert grid.meta["grid_kind"] == ("patch_tokens" if modality.startswith("s1") else "thor_group_grid")


def test_a_subset_of_bands_picks_the_kernels_of_those_bands(thor_tiny_checkpoint, dn):
    sensor = SensorSpec(S2, ("B8A", "B4", "B2", "B11"))
    order = [S2_BANDS_10.index(band) for band in sensor.bands]
    expected = by_hand(thor_tiny_checkpoint, standardised(dn)[order], ["NIR_NARROW", "RED", "BLUE", "SWIR_1"])
    embedding = thor(thor_tiny_checkpoint, input_chw=dn[order], sensor=sensor)
    np.testing.assert_allclose(embedding.data, expected.mean(dim=0), atol=1e-5)
    assert embedding.meta.inputs[0].bands == sensor.bands


@pytest.mark.slow
@pytest.mark.parametrize("patch_size", [8, 12, 24])
def test_patch_size_turns_the_token_count_with_the_same_weights(thor_tiny_checkpoint, dn, patch_size):
    expected = by_hand(thor_tiny_checkpoint, standardised(dn), patch=patch_size).mean(dim=0)
    embedding = thor(thor_tiny_checkpoint, input_chw=dn, patch_size=patch_size)
    np.testing.assert_allclose(embedding.data, expected, atol=1e-5)
    assert embedding.meta["tokens"]["group0"] == [288 // patch_size] * 2


def test_bf16_keeps_the_embedding(thor_tiny_checkpoint, dn):
    exact, fast = (thor(thor_tiny_checkpoint, input_chw=dn, precision=p).data for p in ("fp32", "bf16"))
    cosine = exact @ fast / np.linalg.norm(exact) / np.linalg.norm(fast)
    assert 0.999 < cosine < 1.0


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"patch_size": 17}, SpecError, "a patch of 17 px and an image of 288 px"),
        ({"img": "abc"}, KnobError, "img"),
        ({"group_merge": "foo"}, KnobError, "'mean', 'sum' or 'concat', got 'foo'"),
        ({"normalize": "zscore"}, KnobError, "normalize"),
        ({"model_key": "thor_v2"}, KnobError, "model_key"),
        ({"modality": "s2+s2_12"}, SpecError, "each band of THOR once"),
        ({"modality": "s2+s2"}, SpecError, "each modality once"),
        ({"sensor": SensorSpec("COPERNICUS/S1_GRD_FLOAT", ("VV",))}, SpecError, "takes no COPERNICUS/S1_GRD_FLOAT"),
        ({"modality": "s2+s1", "sensor": SensorSpec(S2, ("B2",))}, SpecError, "one sensor per modality"),
        ({"sensor": {"s9": SensorSpec(S2, ("B2",))}}, SpecError, "no modality 's9'"),
        ({"modality": "s2", "sensor": {"s1": SensorSpec(S2, ("B2",))}}, SpecError, "got one for s1"),
    ],
)
@pytest.mark.parametrize("output", [OutputSpec.pooled(), OutputSpec.grid()])
def test_what_thor_cannot_do_is_said_before_fetching_or_loading(options, error, says, output):
    provider = FieldProvider()
    with pytest.raises(error) as caught:
        get_embedding("thor", PLACE, output=output, backend=provider, ckpt="/does/not/exist.pt", **options)
    assert says in str(caught.value)
    assert provider.queries == []


def test_variables_are_knobs_and_keywords_win(thor_tiny_checkpoint, dn, monkeypatch):
    monkeypatch.setenv("RS_EMBED_THOR_CKPT", str(thor_tiny_checkpoint))
    monkeypatch.setenv("RS_EMBED_THOR_GROUP_MERGE", "concat")
    monkeypatch.setenv("RS_EMBED_THOR_PATCH_SIZE", "24")
    by_variable = get_embedding("thor_1_0_tiny", input_chw=dn, output=OutputSpec.grid())
    assert by_variable.data.shape == (384, 12, 12)
    by_keyword = get_embedding("thor_1_0_tiny", input_chw=dn, output=OutputSpec.grid(), group_merge="sum")
    assert by_keyword.data.shape == (192, 12, 12)
    assert by_keyword.meta.knobs["patch_size"] == 24


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("rs_embed_thor_img", "wide", "got 'wide'"),
        ("RS_EMBED_THOR_IMG", "abc", "RS_EMBED_THOR_IMG"),
        ("RS_EMBED_THOR_GROUP_MERGE", "foo", "'mean', 'sum' or 'concat', got 'foo'"),
        ("RS_EMBED_THOR_GROUP_MERG", "mean", "did you mean 'RS_EMBED_THOR_GROUP_MERGE'"),
        ("RS_EMBED_OFLINE", "1", "did you mean 'RS_EMBED_OFFLINE'"),
        ("RS_EMBED_THOR_PRETRAINED", "maybe", "RS_EMBED_THOR_PRETRAINED"),
        ("RS_EMBED_THOR_FETCH_WORKERS", "0", "RS_EMBED_THOR_FETCH_WORKERS"),
        ("RS_EMBED_OFFLINE", "maybe", "RS_EMBED_OFFLINE to be a valid boolean"),
    ],
)
def test_a_mistyped_variable_or_value_is_refused_by_name(monkeypatch, variable, value, says):
    monkeypatch.setenv(variable, value)
    provider = FieldProvider()
    with pytest.raises(KnobError) as caught:
        get_embedding("thor", PLACE, backend=provider)
    assert says in str(caught.value)
    assert provider.queries == []


def test_another_model_key_runs_that_size_and_says_so(thor_tiny_checkpoint, dn):
    with pytest.warns(ChoiceWarning, match="thor_1_0_base was asked for"):
        embedding = get_embedding("thor", input_chw=dn, model_key="thor_v1_tiny", ckpt=thor_tiny_checkpoint)
    assert embedding.data.shape == (192,)
    assert embedding.meta.model_id == "thor_1_0_tiny"


def test_ten_bands_are_wanted_and_twelve_refused_with_their_names(thor_tiny_checkpoint, dn):
    with pytest.raises(BandMismatch, match="10"):
        thor(thor_tiny_checkpoint, input_chw=np.concatenate([dn, dn[:2]]))


def test_missing_weights_are_an_error_before_any_fetch(tmp_path):
    provider = FieldProvider()
    with pytest.raises(WeightsError, match=r"nowhere\.pt"):
        get_embedding("thor_1_0_tiny", PLACE, backend=provider, ckpt=tmp_path / "nowhere.pt")
    assert provider.queries == []


def test_a_checkpoint_that_was_replaced_is_read_again(thor_tiny_checkpoint, dn, tmp_path):
    path = tmp_path / "mine.pt"
    path.write_bytes(thor_tiny_checkpoint.read_bytes())
    first = thor(path, input_chw=dn)
    state = torch.load(thor_tiny_checkpoint, weights_only=True)["state_dict"]
    torch.save({name: tensor * 1.5 for name, tensor in state.items()}, path)
    second = thor(path, input_chw=dn)
    assert first.meta.weights != second.meta.weights
    assert np.abs(first.data - second.data).max() > 1e-3


def test_the_example_of_the_model_page_runs_word_for_word_up_to_the_backend():
    from rs_embed.errors import NotConfigured

    with pytest.raises(NotConfigured, match="Earth Engine") as caught:
        get_embedding(
            "thor_1_0_base",
            spatial=PointBuffer(lon=121.5, lat=31.2, buffer_m=2048),
            temporal=TemporalSpec.range("2022-06-01", "2022-09-01"),
            output=OutputSpec.pooled(),
            backend="gee",
        )
    assert caught.value.fix
