"""AnySat through the public call: dates, statistics, fine images, windows, dense grids."""

import json
from datetime import date

import numpy as np
import pytest
import torch
from tiny import TINY_ANYSAT

from rs_embed import (
    BBox,
    LocalRasters,
    OutputSpec,
    PointBuffer,
    Region,
    SensorSpec,
    TemporalSpec,
    describe_model,
    get_embedding,
    inspect_chip,
    plan_embedding,
    save_statistics,
)
from rs_embed.encoders.anysat.encoder import AnySatEncoder
from rs_embed.errors import (
    BandMismatch,
    InputError,
    KnobError,
    SpecError,
    StorageError,
    WeightsUnreachable,
)
from rs_embed.testing import FieldProvider, hills

MEAN = [1180.22785, 1387.76883, 1436.67628, 1773.66437, 2735.86417, 3080.12531, 3223.60016, 3338.35640, 2418.01390,
        1630.11251]  # fmt: skip
STD = [1976.91493, 1917.02121, 1996.45123, 1903.34296, 1785.08356, 1796.44778, 1811.90019, 1793.47036, 1474.46980,
       1309.88417]  # fmt: skip
"""PASTIS, MODELS.md 3.5, typed again here on purpose."""
S2, S1 = "COPERNICUS/S2_SR_HARMONIZED", "COPERNICUS/S1_GRD"
PLACE = PointBuffer(lon=12.94, lat=47.77, buffer_m=160)
WINDOW = TemporalSpec.range("2022-01-01", "2022-03-02")
DAYS = [0, 30]
"""Where two halves of that window start, counted from 1 January."""
DATES = ["2022-01-01", "2022-01-31"]


@pytest.fixture(scope="module")
def network() -> AnySatEncoder:
    encoder = AnySatEncoder(dim=64, depth=1, heads=1)
    encoder.init_random(5)
    return encoder.eval()


@pytest.fixture(scope="module")
def ckpt(network, tmp_path_factory):
    """A seeded network in the layout of the published file."""
    path = tmp_path_factory.mktemp("weights") / "AnySat.pth"
    torch.save({"state_dict": network.state_dict()}, path)
    return path


@pytest.fixture
def embed(ckpt):
    def call(**options):
        asked = {"spatial": PLACE, "temporal": WINDOW, "backend": FieldProvider(), "ckpt": ckpt, "frames": 2} | options
        if "input_chw" in options:
            asked = {name: value for name, value in asked.items() if name not in ("backend", "temporal", "spatial")}
        return get_embedding(TINY_ANYSAT, **asked)

    return call


def standardised(frames: int = 2, place=PLACE) -> torch.Tensor:
    """What the network should get: `[1, T, 10, H, W]`."""
    chip = inspect_chip(TINY_ANYSAT, place, WINDOW, FieldProvider()).chips["s2"].values[:1]
    values = (chip - np.array(MEAN)[:, None, None]) / np.array(STD)[:, None, None]
    return torch.from_numpy(np.repeat(values, frames, axis=0)[None].astype(np.float32))


def run(network, inputs, dates, patch_m=40):
    with torch.inference_mode():
        return network.forward(inputs, dates=dates, patch_m=patch_m).values[0].numpy()


@pytest.mark.parametrize("patch_m", [20, 40, 80])
def test_vector_and_grid_are_what_the_network_makes_of_standardised_pixels_and_days_of_the_year(
    network, embed, patch_m
):
    wanted = run(network, {"s2": standardised()}, {"s2": torch.tensor([DAYS])}, patch_m)
    vector = embed(patch_size_m=patch_m)
    np.testing.assert_allclose(vector.data, wanted[0], atol=2e-5)
    grid = embed(patch_size_m=patch_m, output=OutputSpec.grid())
    side = 320 // patch_m
    np.testing.assert_allclose(grid.data.reshape(64, -1).T, wanted[1:], atol=2e-5)
    assert grid.data.shape == (64, side, side)
    assert grid.geobox.resolution.x == patch_m
    pooled = embed(patch_size_m=patch_m, pooled="patch")
    np.testing.assert_allclose(pooled.data, wanted[1:].mean(axis=0), atol=2e-5)
    assert (vector.meta.pooling, pooled.meta.pooling) == ("tile_token", "patch_mean")
    assert vector.meta.weights.startswith("ckpt:AnySat.pth#sha256:")


def test_meta_lists_the_dates_and_how_they_are_counted(embed):
    meta = embed().meta
    assert [time[:10] for time in meta.inputs[0].frame_times] == DATES
    assert meta.inputs[0].scenes_per_frame == (1, 1)
    assert meta["date_code"] == "day of the year, 1 January = 0"
    assert meta["patch_size_m"] == 40
    assert (meta.gsd_m, meta.input_prep, meta.normalization) == (10, "tile", "pastis")


def test_a_series_of_arrays_with_its_dates_gives_the_same_in_any_order_of_time(embed):
    chip = inspect_chip(TINY_ANYSAT, PLACE, WINDOW, FieldProvider()).chips["s2"].values[:1]
    frames = np.concatenate([chip, 4000 - chip])
    dense = OutputSpec.grid("dense")
    there = embed(input_chw=frames, dates=DATES, output=dense).data
    back = embed(input_chw=frames[::-1], dates=DATES[::-1], output=dense).data
    np.testing.assert_allclose(back, there, atol=1e-3)
    swapped = embed(input_chw=frames, dates=DATES[::-1], output=dense).data
    assert np.abs(swapped - there).max() > 0.05, "dates belong to frames"
    with pytest.raises(InputError, match="date of each frame"):
        embed(input_chw=frames)
    with pytest.raises(InputError, match="date of each frame of s2"):
        get_embedding("anysat", input_chw=frames)  # the weights are not asked for first
    with pytest.raises(SpecError, match="list of dates, got '2022-01-01'"):
        embed(input_chw=frames[:1], dates="2022-01-01")
    with pytest.raises(SpecError, match="dates only with input_chw"):
        embed(dates=DATES)


def test_one_day_later_is_another_embedding(embed):
    chip = inspect_chip(TINY_ANYSAT, PLACE, WINDOW, FieldProvider()).chips["s2"].values[0]
    one, other = (embed(input_chw=chip, dates=[day]).data for day in ("2022-06-01", "2022-06-02"))
    assert np.abs(one - other).max() > 1e-4


def test_a_place_and_the_same_place_darker_are_told_apart(embed):
    darker = embed(backend=FieldProvider(lambda lon, lat, b: 0.4 * hills(lon, lat, b) + 150)).data
    assert np.abs(darker - embed().data).max() > 1e-3


def test_statistics_of_one_s_own_chips_are_means_over_chips(embed, network, tmp_path):
    places = [PointBuffer(lon=12.9 + i / 20, lat=47.7, buffer_m=200) for i in range(3)]
    chips = [inspect_chip(TINY_ANYSAT, place, WINDOW, FieldProvider(), modality="s2").chips for place in places]
    path = save_statistics(tmp_path / "mine.json", iter(chips))
    found = json.loads(path.read_text())
    assert found["chips"] == 3
    stack = np.stack([one["s2"].values.astype(np.float64) for one in chips])
    mean, std = stack.mean(axis=(1, 3, 4)).mean(axis=0), stack.std(axis=(1, 3, 4)).mean(axis=0)
    assert found["modalities"]["s2"]["B2"] == pytest.approx({"unit": "dn", "mean": mean[0], "std": std[0]})
    back = standardised() * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]
    mine = (back - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    wanted = run(network, {"s2": mine.float()}, {"s2": torch.tensor([DAYS])})
    embedding = embed(normalize=str(path))
    np.testing.assert_allclose(embedding.data, wanted[0], atol=5e-5)
    assert embedding.meta.normalization.startswith("mine.json#sha256:")
    path.write_text(path.read_text().replace('"chips": 3', '"chips": 4'))
    assert embed(normalize=str(path)).meta.fingerprint != embedding.meta.fingerprint, "content, not path, counts"


def test_the_other_published_table_and_none_at_all_are_other_numbers(embed, network):
    vectors = [embed(normalize=name).data for name in ("pastis", "treesat", "none")]
    assert all(np.abs(a - b).max() > 1e-4 for i, a in enumerate(vectors) for b in vectors[:i])
    raw = standardised() * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]
    wanted = run(network, {"s2": raw.float()}, {"s2": torch.tensor([DAYS])})
    np.testing.assert_allclose(vectors[2], wanted[0], rtol=1e-3, atol=1e-3)


def test_the_ratio_of_sentinel_1_is_that_of_the_stored_values(embed, network, tmp_path):
    backend = FieldProvider(lambda lon, lat, band: -12 - hills(lon, lat, band) / 500)
    chips = inspect_chip(TINY_ANYSAT, PLACE, WINDOW, backend, modality="s1").chips
    path = save_statistics(tmp_path / "s1.json", [chips])
    table = json.loads(path.read_text())["modalities"]["s1"]
    vv, vh = chips["s1"].values[:1, 0], chips["s1"].values[:1, 1]
    bands = zip((vv, vh, vv / vh), ("VV", "VH", "VV/VH"), strict=True)
    image = np.stack([(value - table[name]["mean"]) / table[name]["std"] for value, name in bands], axis=1)
    series = torch.from_numpy(np.repeat(image, 2, axis=0)[None].astype(np.float32))
    wanted = run(network, {"s1": series}, {"s1": torch.tensor([DAYS])})
    np.testing.assert_allclose(embed(backend=backend, modality="s1", normalize=str(path)).data, wanted[0], atol=5e-5)


@pytest.mark.parametrize(
    ("modality", "normalize", "lacks"),
    [
        ("s1", "pastis", "VV, VH, VV/VH of s1"),
        ("s2+naip", "pastis", "R, G, B, N of naip"),
        ("s1-asc", "treesat", "VV, VH of s1-asc"),
        ("s2", "imagenet", "file of band statistics, got 'imagenet'"),
        ("s2", "/no/such/file.json", "No such file"),
    ],
)
def test_statistics_that_nobody_published_are_not_invented(embed, modality, normalize, lacks):
    provider = FieldProvider()
    with pytest.raises(KnobError) as caught:
        embed(backend=provider, modality=modality, normalize=normalize)
    assert lacks in str(caught.value)
    assert "save_statistics" in caught.value.fix
    assert provider.queries == []


def test_no_statistics_come_of_no_chips_and_none_go_where_nothing_can_be_written(tmp_path):
    with pytest.raises(InputError, match="got none"):
        save_statistics(tmp_path / "a.json", [])
    chips = inspect_chip(TINY_ANYSAT, PLACE, WINDOW, FieldProvider(), modality="s2").chips
    with pytest.raises(StorageError, match="Expected to write"):
        save_statistics(tmp_path / "no" / "a.json", [chips])


def bright(lon, lat, band):
    """Photographs are 0 to 255, reflectances in DN."""
    return hills(lon, lat, band) / (20 if band in "RGBN" else 1)


@pytest.mark.slow
@pytest.mark.parametrize(("modality", "px", "metres"), [("naip", 8, 1.25), ("spot", 10, 1.0), ("aerial", 50, 0.2)])
def test_fine_images_are_fetched_at_their_own_pixels_on_the_same_ground(embed, network, modality, px, metres):
    backend = FieldProvider(bright)
    embedding = embed(
        backend=backend, modality=["s2", modality], normalize="none", output=OutputSpec.grid(), patch_size_m=80
    )
    series, image = backend.queries[-2:]
    assert image.geobox.shape == (32 * px, 32 * px)
    assert image.geobox.resolution.x == pytest.approx(metres)
    assert image.geobox.boundingbox == series.geobox.boundingbox
    assert (series.series.frames, image.series) == (2, None)
    inputs = {"s2": backend.fetch(series).values, modality: backend.fetch(image).values[0]}
    tensors = {name: torch.from_numpy(values)[None] for name, values in inputs.items()}
    wanted = run(network, tensors, {"s2": torch.tensor([DAYS])}, 80)
    np.testing.assert_allclose(embedding.data.reshape(64, -1).T, wanted[1:], rtol=1e-3, atol=1e-3)
    assert embedding.meta.gsd_m == 10
    assert [one.frames for one in embedding.meta.inputs] == [2, 1]


def test_arrays_that_are_not_on_one_ground_are_refused(embed):
    rng = np.random.default_rng(1)
    image, series = rng.uniform(20, 200, (4, 250, 256)), rng.uniform(300, 3000, (10, 32, 32))
    with pytest.raises(InputError, match="same ground") as caught:
        embed(
            input_chw={"s2": series, "naip": image}, dates={"s2": DATES[:1]}, normalize="none",
            modality=["s2", "naip"],
        )  # fmt: skip
    assert "250 x 256" in str(caught.value)


WIDE = BBox(400_000, 5_000_000, 402_400, 5_001_480, crs="EPSG:32633")


@pytest.mark.slow
def test_a_region_beyond_a_window_is_one_grid_and_its_vector_the_mean_of_the_windows(embed, network):
    grid = embed(spatial=WIDE, output=OutputSpec.grid(), frames=1)
    assert grid.data.shape == (64, 37, 60)
    assert grid.geobox.boundingbox.bbox == (400_000, 5_000_000, 402_400, 5_001_480)
    patches = standardised(1, WIDE)
    with torch.inference_mode():
        seen = network.patches({"s2": patches}, dates={"s2": torch.tensor([[0]])}, patch_m=40)
        tiles = [
            network.mix({"s2": seen.values["s2"][:, row : row + 32, col : col + 32]}, 40).values[0]
            for row in (0, 5)
            for col in (0, 28)
        ]
    np.testing.assert_allclose(embed(spatial=WIDE, frames=1).data, torch.stack(tiles)[:, 0].mean(0), atol=2e-5)
    np.testing.assert_allclose(grid.data[:, 0, 0], tiles[0][1], atol=2e-5)
    np.testing.assert_allclose(grid.data[:, -1, -1], tiles[3][-1], atol=2e-5)


@pytest.mark.slow
def test_a_window_that_was_hardly_seen_hardly_counts(embed):
    chip = inspect_chip(TINY_ANYSAT, WIDE, WINDOW, FieldProvider()).chips["s2"].values[:1].copy()
    chip[..., 700 // 10 :] = np.nan
    with pytest.warns(match="Fewer than half of the pixels"):
        half = embed(input_chw=chip, dates=DATES[:1])
    whole = embed(input_chw=chip[..., :128], dates=DATES[:1], input_prep="tile")
    assert half.meta.valid_fraction < 0.5
    assert np.isfinite(half.data).all()
    cosine = half.data @ whole.data / np.linalg.norm(half.data) / np.linalg.norm(whole.data)
    assert cosine > 0.99


def test_a_patch_that_does_not_divide_the_chip_is_padded_and_kept(embed):
    grid = embed(spatial=PointBuffer(lon=12.94, lat=47.77, buffer_m=150), output=OutputSpec.grid(), patch_size_m=80)
    assert grid.data.shape == (64, 4, 4)
    assert np.isfinite(grid.data).all()


def test_cropping_takes_the_middle_window(embed):
    grid = embed(spatial=WIDE, output=OutputSpec.grid(), input_prep="crop", frames=1)
    assert grid.data.shape == (64, 32, 32)
    centre = (grid.geobox.boundingbox.left + grid.geobox.boundingbox.right) / 2
    assert centre == pytest.approx(401_200, abs=20)


def test_a_dense_grid_has_a_token_per_pixel_of_ten_metres(embed, network):
    dense = embed(output=OutputSpec.grid("dense"))
    with torch.inference_mode():
        wanted = network.dense({"s2": standardised()}, dates={"s2": torch.tensor([DAYS])}, patch_m=40)[0]
    assert dense.data.shape == (128, 32, 32)
    assert dense.geobox.resolution.x == 10
    assert dense.meta.grid_kind == "dense_tokens"
    np.testing.assert_allclose(dense.data, wanted, atol=1e-3)  # sub-tokens amplify the rounding of the z-score


@pytest.mark.slow
@pytest.mark.parametrize("order", ["raster", "reference"])
def test_dense_aerial_tokens_lie_where_they_are_or_as_the_authors_lay_them(embed, network, order):
    backend = FieldProvider(bright)
    options = {"backend": backend, "modality": "aerial", "normalize": "none", "patch_size_m": 20}
    dense = embed(output=OutputSpec.grid("dense"), dense_order=order, **options)
    image = torch.from_numpy(backend.fetch(backend.queries[-1]).values)
    with torch.inference_mode():
        wanted = network.dense({"aerial": image}, dates={}, patch_m=20, raster=order == "raster")[0]
    assert dense.data.shape == (128, 160, 160)
    assert dense.geobox.resolution.x == pytest.approx(2)
    np.testing.assert_allclose(dense.data, wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"input_prep": "resize"}, SpecError, "native size only"),
        ({"output": OutputSpec.pooled("max")}, SpecError, 'pooled="patch"'),
        (
            {"spatial": Region([(12.94, 47.77), (12.95, 47.77), (12.95, 47.78)])},
            SpecError,
            "a point or a box for tile_token",
        ),
        ({"sensor": SensorSpec(S2, ("B2", "B3", "B4"))}, BandMismatch, "in the model's order"),
        ({"sensor": SensorSpec(S2, tuple(TINY_ANYSAT.modalities[0].stats), scale_m=20)}, SpecError, "10 m per pixel"),
        ({"patch_size_m": 45}, KnobError, "multiple of 10"),
        ({"patch_size_m": 170}, KnobError, "160"),
        ({"temporal_sampling": "all"}, KnobError, "composite"),
        ({"modality": "modis"}, SpecError, "no modality 'modis'"),
    ],
)
def test_what_the_network_cannot_take_is_refused_before_anything_is_fetched(embed, options, error, says):
    provider = FieldProvider()
    with pytest.raises(error) as caught:
        embed(backend=provider, **options)
    assert says in str(caught.value)
    assert provider.queries == []


def test_a_polygon_has_a_vector_of_its_patches(embed):
    region = Region([(12.94, 47.77), (12.946, 47.77), (12.946, 47.774)])
    vector = embed(spatial=region, pooled="patch", frames=1)
    grid = embed(spatial=region, output=OutputSpec.grid(), frames=1).data.reshape(64, -1)
    np.testing.assert_allclose(vector.data, np.nanmean(grid, axis=1), atol=2e-5)
    assert np.isnan(grid).any()


def test_only_models_with_finer_tokens_give_a_dense_grid():
    with pytest.raises(SpecError, match="no tokens finer than a patch"):
        plan_embedding("thor_1_0_tiny", PLACE, output=OutputSpec.grid("dense"), backend=FieldProvider())


def test_dated_files_make_a_series(embed, tmp_path, network):
    from rasterio import open as open_raster

    frames = inspect_chip(TINY_ANYSAT, PLACE, WINDOW, FieldProvider())
    chip = frames.chips["s2"]
    paths = []
    for index, shift in enumerate((0, 400, 800)):
        paths.append(tmp_path / f"{index}.tif")
        profile = {"driver": "GTiff", "dtype": "uint16", "count": 10, "height": 32, "width": 32,
                   "crs": str(chip.geobox.crs), "transform": chip.geobox.affine}  # fmt: skip
        with open_raster(paths[-1], "w", **profile) as file:
            file.write(np.rint(chip.values[0] + shift).astype(np.uint16))
    backend = LocalRasters(paths, dates=["2022-01-05", "2022-01-25", "2022-02-24"], offset=0, bands=chip.band_names)
    two = embed(backend=backend, spatial=None, temporal=WINDOW)
    assert [time[:10] for time in two.meta.inputs[0].frame_times] == ["2022-01-15", "2022-02-24"]
    assert two.meta.inputs[0].scenes_per_frame == (2, 1)
    each = embed(backend=backend, spatial=None, temporal=WINDOW, frames=8, temporal_sampling="scenes")
    values = np.stack([np.rint(chip.values[0] + shift) for shift in (0, 400, 800)])
    series = torch.from_numpy(((values - np.array(MEAN)[:, None, None]) / np.array(STD)[:, None, None])[None]).float()
    wanted = run(network, {"s2": series}, {"s2": torch.tensor([[4, 24, 54]])})
    np.testing.assert_allclose(each.data, wanted[0], atol=2e-5)


def test_weights_that_cannot_be_had_are_said_to_be_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("RS_EMBED_OFFLINE", "1")
    monkeypatch.setenv("RS_EMBED_CACHE_DIR", str(tmp_path))
    with pytest.raises(WeightsUnreachable, match="g-astruc/AnySat"):
        get_embedding("anysat", backend="sample")


def test_the_catalog_offers_what_the_release_can_run():
    facts = describe_model("anysat")
    assert facts["id"] == "anysat_1_0_base"
    assert [one["name"] for one in facts["modalities"]] == [
        "s2",
        "s1",
        "s1-asc",
        "l8",
        "aerial",
        "aerial-flair",
        "spot",
        "naip",
    ]
    assert date.fromisoformat(DATES[1]).timetuple().tm_yday - 1 == DAYS[1]
    assert S1 in {one["collection"] for one in facts["modalities"]}
