"""Presto through the whole pipeline, with its trained weights: months aligned, pixels alone, what lacks is masked."""

from datetime import UTC, datetime

import numpy as np
import pytest
import torch
from hub_server import HubServer
from shared_data import trained

from rs_embed import OutputSpec, PointBuffer, TemporalSpec, describe_model, geobox_for, get_embedding, get_embeddings
from rs_embed.core.bands import bands_of
from rs_embed.core.chip import Chip, Source
from rs_embed.embedders.catalog import get_card
from rs_embed.embedders.prepare.derived import SLOPE
from rs_embed.embedders.weights.load import locate
from rs_embed.encoders.presto import PixelSeries, PrestoEncoder
from rs_embed.errors import InputError, NoImagery, NoValidPixels, SensorNotOffered, SpecError, WeightsCorrupt
from rs_embed.providers import Query
from rs_embed.testing import FieldProvider, pixel_centres

PLACE = PointBuffer(lon=12.94, lat=47.77, buffer_m=40)
SEASON = TemporalSpec.range("2021-11-01", "2022-03-01")
GRID = OutputSpec.grid()
RANGES = {"S2": (200, 6000), "S1": (-25, -5), "SRTM": (100, 900), "ERA5": (0.01, 0.2), "DYNAMICWORLD": (0, 1)}


@pytest.fixture(autouse=True)
def trained_weights(monkeypatch):
    monkeypatch.setenv("RS_EMBED_PRESTO_CKPT", str(trained("presto/default_model.pt")))


class Archive(FieldProvider):
    """Seeded pixels of each collection, frame and band; some frames, pixels and collections may lack.

    Args:
        without: Words of collections that it does not offer.
        empty: (word of the collection, month) without an acquisition.
        clouds: (word of the collection, month, row, column) that are nodata.
    """

    def __init__(self, without=(), empty=(), clouds=(), **other) -> None:
        super().__init__(**other)
        self.without, self.empty, self.clouds = without, empty, clouds

    def require(self, modality, sensor):
        if any(word in sensor.collection for word in self.without):
            raise SensorNotOffered(f"Expected {sensor.collection}, got none.", fix="ask for another")

    def fetch(self, query: Query) -> Chip:
        self.require(query.modality, query.sensor)
        self.queries.append(query)
        collection = query.sensor.collection
        word = next(word for word in RANGES if word in collection)
        windows = query.series.windows(query.window) if query.series else (query.window,)
        frames, times = [], []
        for window in windows:
            if (word, window.start.month) in self.empty:
                continue
            frames.append(self.pixels(word, query, window.start.month if query.series else 0))
            times.append(window.middle)
        if not frames:
            raise NoImagery("Expected imagery, got none.", fix="ask for other days")
        source = Source(self.name, collection, ("made",), (datetime(2022, 1, 1, tzinfo=UTC),), (1,) * len(times))
        return Chip(np.stack(frames), bands_of(collection, query.sensor.bands), query.geobox, tuple(times), source)

    def pixels(self, word: str, query: Query, month: int) -> np.ndarray:
        rng = np.random.default_rng([month, *map(ord, word)])
        shape = (len(query.sensor.bands), *query.geobox.shape)
        values = rng.uniform(*RANGES[word], shape).astype(np.float32)
        if word == "ERA5":
            values[0] = 250 + 40 * values[0] / 0.2
        for its, when, row, col in self.clouds:
            if (its, when) == (word, month):
                values[:, row, col] = np.nan
        return values


def embed(output=GRID, provider=None, **options):
    call = {"spatial": PLACE, "temporal": SEASON, "backend": provider or Archive()} | options
    return get_embedding("presto", output=output, **call)


def by_hand(s2: np.ndarray, months: list[int], beside=None, hide=None) -> np.ndarray:
    """Vectors `[128, pixel]` from raw Sentinel-2 `[T, C, H, W]` and other groups, without the pipeline.

    Args:
        beside: Other groups, normalised.
        hide: Beginning of the names of groups -> steps that they do not see.
    """
    state = torch.load(trained("presto/default_model.pt"), map_location="cpu", weights_only=True)
    encoder = PrestoEncoder(dim=128, depth=2, heads=8)
    encoder.load_state_dict(
        {name.removeprefix("encoder."): t for name, t in state.items() if name.startswith("encoder.")}
    )
    x = torch.from_numpy(s2.astype(np.float32)).permute(2, 3, 0, 1).flatten(0, 1) / 10_000
    bands = {"S2_RGB": [0, 1, 2], "S2_Red_Edge": [3, 4, 5], "S2_NIR_10m": [6], "S2_NIR_20m": [7], "S2_SWIR": [8, 9]}
    values = {name: x[..., own] for name, own in bands.items()} | (beside or {})
    values["NDVI"] = ((x[..., 6] - x[..., 2]) / (x[..., 6] + x[..., 2]))[..., None]
    seen = {name: torch.ones(one.shape[:2], dtype=torch.bool) for name, one in values.items()}
    for name, mask in seen.items():
        for word, steps in (hide or {}).items():
            if name.startswith(word):
                mask[:, list(steps)] = False
    lon, lat = (np.radians(one).ravel() for one in pixel_centres(geobox_for(PLACE)))
    xyz = torch.from_numpy(np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], -1)).float()
    with torch.inference_mode():
        return encoder(PixelSeries(values, seen, torch.tensor([months]), xyz)).numpy().T


def sentinel_2(months: list[int]) -> np.ndarray:
    """What the archive has, `[T, C, H, W]`."""
    sensor = get_card("presto").modality("s2").sensor
    query = Query("s2", sensor, geobox_for(PLACE), SEASON)
    return np.stack([Archive().pixels("S2", query, month + 1) for month in months])


def test_a_grid_has_the_vector_of_each_pixel_s_own_months_and_place():
    grid = embed(modality="s2")
    assert grid.data.shape == (128, 8, 8)
    assert grid.geobox == geobox_for(PLACE)
    wanted = by_hand(sentinel_2([10, 11, 0, 1]), [10, 11, 0, 1])
    np.testing.assert_allclose(grid.data.reshape(128, -1), wanted, atol=2e-5, rtol=5e-6)
    assert grid.meta["months"] == [10, 11, 0, 1]
    assert (grid.meta.grid_kind, grid.meta.patch_size, grid.meta.normalization) == ("pixels", 1, "presto")
    assert grid.meta.weights.startswith("ckpt:default_model.pt#sha256:559c9d76")
    assert grid.meta.weights_note == "beside the encoder, not used: decoder (52)"


def test_a_vector_is_the_mean_of_the_pixels():
    vector, grid = embed(OutputSpec.pooled(), modality="s2"), embed(modality="s2")
    np.testing.assert_allclose(vector.data, grid.data.mean(axis=(1, 2)), atol=2e-6)


def test_a_pixel_s_neighbours_do_not_matter_and_its_clouds_hide_its_own_months_only():
    plain = embed(modality="s2").data
    clouded = embed(modality="s2", provider=Archive(clouds=[("S2", 12, 3, 5)])).data
    others = np.ones((8, 8), bool)
    others[3, 5] = False
    np.testing.assert_allclose(clouded[:, others], plain[:, others], atol=1e-5)
    wanted = by_hand(sentinel_2([10, 11, 0, 1]), [10, 11, 0, 1], hide={"S2": (1,), "NDVI": (1,)}).reshape(128, 8, 8)
    np.testing.assert_allclose(clouded[:, 3, 5], wanted[:, 3, 5], atol=2e-5, rtol=5e-6)


def test_a_month_without_an_acquisition_is_hidden_and_the_others_keep_their_place_in_time():
    lacking = embed(modality="s2", provider=Archive(empty=[("S2", 12)]))
    wanted = by_hand(sentinel_2([10, 11, 0, 1]), [10, 11, 0, 1], hide={"S2": (1,), "NDVI": (1,)})
    np.testing.assert_allclose(lacking.data.reshape(128, -1), wanted, atol=2e-5, rtol=5e-6)
    assert lacking.meta["months"] == [10, 11, 0, 1]
    assert lacking.valid.max() == pytest.approx(0.75)


def test_modalities_are_aligned_by_month_and_normalised_as_the_authors_do():
    query = Archive(empty=[("S2", 11), ("S1", 1)])
    grid = embed(provider=query, modality="s2+s1+srtm+era5+dynamic_world")
    by_name = {one.modality: one for one in query.queries}
    months = [10, 11, 0, 1]

    def pixels(word: str, name: str, when: list[int]) -> torch.Tensor:
        values = np.stack([query.pixels(word, by_name[name], month + 1 if name != "srtm" else 0) for month in when])
        return torch.from_numpy(values).permute(2, 3, 0, 1).flatten(0, 1)

    height = query.pixels("SRTM", by_name["srtm"], 0)
    slope = torch.from_numpy(SLOPE.compute({"elevation": height}, 10.0)).flatten()
    beside = {
        "S1": (pixels("S1", "s1", months) + 25) / 25,
        "ERA5": (pixels("ERA5", "era5", months) - torch.tensor([272.15, 0])) / torch.tensor([35, 0.03]),
        "SRTM": torch.stack([torch.from_numpy(height).flatten() / 2000, slope / 50], dim=-1)[:, None],
        "dynamic_world": pixels("DYNAMICWORLD", "dynamic_world", months).argmax(dim=-1),
    }
    found = by_hand(sentinel_2(months), months, beside, hide={"S2": (0,), "NDVI": (0,), "S1": (2,)})
    np.testing.assert_allclose(grid.data.reshape(128, -1), found, atol=5e-5, rtol=5e-6)


def test_by_default_it_takes_what_the_backend_offers_and_tells_what_lacks():
    provider = Archive(without=("ERA5", "SRTM"))
    found = embed(provider=provider)
    assert found.meta.modality == ("s2", "s1")
    assert sorted(found.meta.absent) == ["era5", "srtm"]
    np.testing.assert_array_equal(found.data, embed(modality="s2+s1").data)
    with pytest.raises(SensorNotOffered):
        embed(provider=provider, modality="s2+era5")


def test_a_pixel_that_imagery_never_saw_is_nodata_though_its_height_is_known():
    clouds = [("S2", month, 0, 0) for month in (11, 12, 1, 2)]
    grid = embed(provider=Archive(clouds=clouds), modality="s2+srtm")
    assert np.isnan(grid.data[:, 0, 0]).all()
    assert np.isfinite(grid.data[:, 1:]).all()
    assert grid.meta.nodata_tokens == 1
    with_radar = embed(provider=Archive(clouds=clouds), modality="s2+s1")
    assert np.isfinite(with_radar.data).all()


def test_two_places_in_a_batch_have_the_vectors_that_each_has_alone():
    places = [PLACE, PointBuffer(lon=12.95, lat=47.78, buffer_m=40), PointBuffer(lon=-60, lat=-12, buffer_m=30)]
    batch = get_embeddings("presto", places, SEASON, GRID, Archive(), modality="s2+s1", progress=False)
    for one, place in zip(batch, places, strict=True):
        alone = embed(spatial=place, modality="s2+s1")
        np.testing.assert_allclose(one.data, alone.data, atol=2e-5)
        assert one.meta.fingerprint == alone.meta.fingerprint
    assert np.abs(batch[0].data - batch[1].data).max() > 1e-3, "the place is told"


def test_bf16_keeps_every_pixel():
    exact, fast = embed(modality="s2+s1"), embed(modality="s2+s1", precision="bf16")
    cosine = torch.cosine_similarity(torch.from_numpy(exact.data), torch.from_numpy(fast.data), dim=0)
    assert 0.999 < float(cosine.min()) < 1


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"modality": "s2+s2_l1c"}, SpecError, "one of s2 and s2_l1c"),
        ({"modality": "s2+srtm+dem"}, SpecError, "one of srtm and dem"),
        ({"modality": "srtm+era5"}, SpecError, "Expected imagery"),
        ({"temporal": TemporalSpec.range("2019-01-01", "2021-02-01")}, SpecError, "at most 24 calendar months"),
        ({"input_prep": "resize"}, SpecError, "native size only"),
    ],
)
def test_what_cannot_work_is_refused(options, error, says):
    with pytest.raises(error, match=says) as caught:
        embed(**options)
    assert caught.value.fix


def test_pixels_without_a_place_are_refused_and_with_one_they_are_taken():
    pixels, days = sentinel_2([10, 11, 0, 1]), ["2021-11-10", "2021-12-10", "2022-01-10", "2022-02-10"]
    call = {"temporal": SEASON, "input_chw": pixels, "dates": days}
    with pytest.raises(InputError, match="Expected a place for Presto"):
        get_embedding("presto", **call)
    undated = get_embedding("presto", PLACE, output=GRID, **(call | {"temporal": None}))
    found = get_embedding("presto", PLACE, output=GRID, **call)
    wanted = by_hand(pixels, [10, 11, 0, 1])
    np.testing.assert_allclose(found.data.reshape(128, -1), wanted, atol=2e-5, rtol=5e-6)
    np.testing.assert_array_equal(undated.data, found.data)


def test_ground_that_nobody_saw_has_no_vector():
    with pytest.raises((NoImagery, NoValidPixels)):
        embed(provider=Archive(empty=[("S2", month) for month in (11, 12, 1, 2)]), modality="s2")


def test_another_file_on_a_hub_is_not_taken_for_it(tmp_path):
    card = get_card("presto")
    assert describe_model("presto")["weights"] == "nasaharvest/presto / default_model.pt (MIT)"
    with (
        HubServer({card.weights.hub: {"main": {card.weights.file: b"another"}}}) as hub,
        pytest.raises(WeightsCorrupt),
    ):
        locate(card.weights, ckpt=None, offline=False, cache_dir=tmp_path, endpoint=hub.endpoint)
