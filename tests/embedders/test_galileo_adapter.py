"""Galileo through the public call, with its trained weights: what goes in, what is masked, what comes out."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from earth import earth_engine
from gee_server import PLACES, EarthEngineServer, default_world
from shared_data import trained
from stac_asking import stac
from stac_server.client import serving

from rs_embed import (
    BBox,
    OutputSpec,
    PointBuffer,
    Region,
    SensorSpec,
    TemporalSpec,
    get_embedding,
    get_embeddings,
    inspect_chip,
    plan_embedding,
    save_statistics,
)
from rs_embed.embedders.catalog import get_card
from rs_embed.embedders.prepare.derived import SLOPE
from rs_embed.encoders.galileo.encoder import GalileoEncoder
from rs_embed.errors import (
    BandMismatch,
    InputError,
    KnobError,
    NoImagery,
    NoValidPixels,
    SensorNotOffered,
    SpecError,
    WeightsMismatch,
)
from rs_embed.testing import FieldProvider, hills

GOLDEN = Path(__file__).parents[1] / "data" / "golden_trained"
NUMBERS = json.loads((GOLDEN / "galileo_nano.json").read_text())["normalisation"]["shift_div"]
S2, S1 = "COPERNICUS/S2_SR_HARMONIZED", "COPERNICUS/S1_GRD"
BANDS = ("B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B11", "B12")
GRID = OutputSpec.grid()
PLACE = PointBuffer(lon=12.94, lat=47.77, buffer_m=160)
JUNE_ALONE = torch.tensor([[5]])
YEAR, JUNE = TemporalSpec.year(2022), TemporalSpec.range("2022-06-10", "2022-06-20")


@pytest.fixture(scope="module")
def ckpt() -> Path:
    return trained("galileo_nano/encoder.pt")


@pytest.fixture(scope="module")
def encoder(ckpt) -> GalileoEncoder:
    encoder = GalileoEncoder(dim=128, depth=4, heads=8)
    encoder.load_state_dict(torch.load(ckpt, map_location="cpu", weights_only=True))
    return encoder.eval().requires_grad_(False)


@pytest.fixture
def embed(ckpt):
    def call(place=PLACE, when=YEAR, backend=None, **options):
        asked = {"spatial": place, "temporal": when, "backend": backend or FieldProvider(land), "ckpt": ckpt}
        if "input_chw" in options:
            asked = {"ckpt": ckpt, "spatial": options.pop("spatial", None)}
        return get_embedding("galileo_1_0_nano", **asked | options)

    return call


def land(lon, lat, band):
    """Something plausible in every unit."""
    waves = np.sin(900 * lon + sum(map(ord, band))) * np.cos(700 * lat)
    low, high = {"VV": (-15, -5), "VH": (-22, -12), "elevation": (400, 900), "temperature_2m": (270, 290)}.get(
        band, (0, 1) if band.islower() else (300, 3700)
    )
    return low + (high - low) * (waves + 1) / 2


def pixels(side_rows: int = 32, side_cols: int = 48, dates: int = 1) -> np.ndarray:
    """Sentinel-2 DN of the bundled scene, `[T, 10, H, W]`, a little darker on each further date."""
    whole = get_card("galileo_1_0_nano").modality("s2").sensor
    chip = inspect_chip("galileo_1_0_nano", backend="sample", modality="s2", sensor=whole).chips["s2"]
    part = chip.values[:, :, 120 : 120 + side_rows, 80 : 80 + side_cols]
    return np.concatenate([part * (1 - i / 20) for i in range(dates)])


def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"galileo_nano_{name}.npz") as file:
        return dict(file)


def normalised(values: np.ndarray, kind: str, channels) -> np.ndarray:
    shift, div = np.array([NUMBERS[kind][channel] for channel in channels]).T
    return ((values - shift[:, None, None]) / div[:, None, None]).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("s2_p8", {"patch_size": 8}),
        ("s2_s1_p8", {"patch_size": 8, "modality": "s2+s1"}),
        ("s1_p8", {"patch_size": 8, "modality": "s1"}),
        ("s2_p3", {"patch_size": 3}),
        ("s2_p1", {"patch_size": 1}),
        ("s2_series4_p4", {"patch_size": 4, "dates": ["2022-02-10", "2022-05-10", "2022-07-10", "2022-10-10"]}),
        ("s2_ndvi_p6_20m", {"patch_size": 6, "ndvi": True, "dates": ["2022-01-20"],
                            "sensor": {"s2": SensorSpec(S2, BANDS, scale_m=20, fill_value="mean")}}),
    ],
)  # fmt: skip
def test_raw_pixels_give_the_vector_and_the_grid_of_the_authors_code(embed, name, options):
    case = golden(name)
    raw = case["raw_space_time"][0].transpose(2, 3, 0, 1)  # [T, C, H, W]
    arrays = {"s1": raw[:, :2], "s2": raw[:, 2:12]}
    names = options.pop("modality", "s2").split("+")
    dates = options.pop("dates", ["2022-06-13"])
    call = {"input_chw": {one: arrays[one] for one in names}, "dates": dates, "modality": names, **options}
    found = embed(**call)
    assert_close(found.data, case["average_tokens"][0])
    assert found.meta.pooling == "token_mean"
    grid = embed(**call, output=GRID, window_patches=12)
    assert_close(grid.data, case["per_patch"][0].transpose(2, 0, 1))


def assert_close(actual: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-5 + 5e-6 * np.abs(expected).max())


def test_a_patch_of_a_grid_is_encoded_as_if_it_were_alone(embed):
    chip = pixels()
    grid = embed(input_chw=chip, dates=["2022-06-13"], output=GRID).data
    assert grid.shape == (128, 4, 6)
    for row, col in ((0, 0), (2, 5), (3, 1)):
        patch = chip[..., 8 * row : 8 * row + 8, 8 * col : 8 * col + 8]
        for output, data in ((GRID, grid[:, row, col, None, None]), (OutputSpec.pooled(), grid[:, row, col])):
            np.testing.assert_allclose(
                embed(input_chw=patch, dates=["2022-06-13"], output=output).data, data, atol=2e-5
            )


def test_a_chip_that_begins_one_patch_later_has_the_same_tokens_one_place_earlier(embed):
    chip = pixels()
    whole, later = (embed(input_chw=c, dates=["2022-06-13"], output=GRID).data for c in (chip, chip[..., 8:, 8:]))
    np.testing.assert_allclose(later, whole[:, 1:, 1:], atol=2e-5)
    windows = {"output": GRID, "dates": ["2022-06-13"], "window_patches": 3}
    told = [embed(input_chw=c, **windows).data for c in (chip, chip[..., 8:, 8:])]
    assert np.abs(told[1] - told[0][:, 1:, 1:]).max() > 0.1  # in a window, a token knows its place


def test_a_grid_is_alone_and_a_vector_in_windows_unless_a_number_says_so(embed):
    chip = {"input_chw": pixels(), "dates": ["2022-06-13"]}
    grids = {side: embed(**chip, output=GRID, window_patches=side) for side in (None, 1, 4)}
    np.testing.assert_array_equal(grids[None].data, grids[1].data)
    assert np.abs(grids[None].data - grids[4].data).max() > 0.1
    vectors = {side: embed(**chip, window_patches=side) for side in (None, 1, 12)}
    np.testing.assert_array_equal(vectors[None].data, vectors[12].data)
    np.testing.assert_allclose(vectors[1].data, grids[1].data.mean(axis=(1, 2)), atol=2e-5)
    assert [grids[None].meta.knobs["window_patches"], vectors[None].meta.knobs["window_patches"]] == [1, 12]


def test_windows_of_a_vector_overlap_and_count_alike_where_they_do(embed, encoder):
    chip = pixels(16, 32)
    windows = [
        encoder({name: one[..., 8 * k : 8 * k + 16] for name, one in tensors(chip).items()}, JUNE_ALONE, patch_px=8)
        .per_patch()[0]
        .numpy()
        for k in range(3)
    ]
    first, second, third = windows
    columns = [first[:, 0], (first[:, 1] + second[:, 0]) / 2, (second[:, 1] + third[:, 0]) / 2, third[:, 1]]
    found = embed(input_chw=chip, dates=["2022-06-13"], window_patches=2)
    assert_close(found.data, np.mean(columns, axis=(0, 1)))


def tensors(chip: np.ndarray, dates: slice = slice(None)) -> dict[str, torch.Tensor]:
    """What the network should get of Sentinel-2: `[1, T, C, H, W]`."""
    values = normalised(chip[dates], "space_time", BANDS)
    groups = {"S2_RGB": [0, 1, 2], "S2_Red_Edge": [3, 4, 5], "S2_NIR_10m": [6], "S2_NIR_20m": [7], "S2_SWIR": [8, 9]}
    return {name: torch.from_numpy(values[None, :, channels]) for name, channels in groups.items()}


def test_what_nobody_saw_is_hidden_and_a_hole_becomes_the_mean_of_the_chip(embed, encoder):
    chip = pixels(16, 16, dates=2)
    chip[0, :, :8, :8] = np.nan  # one patch on one date
    chip[1, :, 9, 9] = np.nan  # a pixel
    filled = np.where(np.isnan(chip), np.nanmean(chip, axis=(0, 2, 3), keepdims=True), chip)
    seen = torch.ones(1, 2, 2, 2, dtype=torch.bool)
    seen[0, 0, 0, 0] = False
    groups = tensors(filled)
    network = encoder(groups, torch.tensor([[5, 7]]), patch_px=8, visible=dict.fromkeys(groups, seen))
    call = {"input_chw": chip, "dates": ["2022-06-13", "2022-08-13"], "temporal_sampling": "scenes"}
    assert_close(embed(**call).data, network.average()[0].numpy())
    assert_close(embed(**call, output=GRID, window_patches=2).data, network.per_patch()[0].permute(2, 0, 1).numpy())


def test_a_patch_that_no_date_saw_is_nodata_in_a_grid_and_counts_in_no_vector(embed):
    chip = pixels(16, 32)
    chip[..., :8, :8] = np.nan
    grid = embed(input_chw=chip, dates=["2022-06-13"], output=GRID)
    assert np.isnan(grid.data[:, 0, 0]).all() and np.isfinite(grid.data[:, 0, 1:]).all()
    assert grid.valid[0, 0] == 0
    rest = embed(input_chw=chip, dates=["2022-06-13"], window_patches=1)
    np.testing.assert_allclose(rest.data, np.nanmean(grid.data, axis=(1, 2)), atol=2e-5)
    with pytest.raises(NoValidPixels):
        embed(input_chw=np.full_like(chip, np.nan), dates=["2022-06-13"])


@pytest.mark.filterwarnings("ignore:Fewer than half")
def test_a_series_is_aligned_by_month_over_modalities_and_empty_months_are_masked(embed, encoder):
    class Radar(FieldProvider):
        """Optical imagery in March and June, radar in June alone."""

        def fetch(self, query):
            return FieldProvider(land, acquired=days if query.modality == "s2" else days[1:]).fetch(query)

    days = [TemporalSpec.range(f"2022-0{m}-10", f"2022-0{m}-11").middle for m in (3, 6)]
    found = embed(backend=Radar(land), modality="s2+s1", window_patches=12)
    assert [len(one.frame_times) for one in found.meta.inputs] == [12, 12]
    chips = inspect_chip("galileo_1_0_nano", PLACE, JUNE, FieldProvider(land), modality="s2+s1").chips
    groups = {name: values.expand(-1, 12, -1, -1, -1) for name, values in tensors(chips["s2"].values).items()}
    radar = normalised(chips["s1"].values, "space_time", ("VV", "VH"))
    groups["S1"] = torch.from_numpy(radar)[None].expand(-1, 12, -1, -1, -1)
    groups = {name: values[..., :32, :32] for name, values in groups.items()}
    seen = {name: torch.zeros(1, 12, 1, 1, dtype=torch.bool) for name in groups}
    for name, one in seen.items():
        one[0, 5] = True
        one[0, 2] = name != "S1"
    network = encoder(groups, torch.arange(12)[None], patch_px=8, visible=seen)
    assert_close(found.data, network.average()[0].numpy())


def test_days_within_a_month_are_a_single_date_of_that_month(embed, encoder):
    found = embed(when=JUNE, modality="s2")
    chip = inspect_chip("galileo_1_0_nano", PLACE, JUNE, FieldProvider(land), modality="s2").chips["s2"].values
    network = encoder(tensors(chip), JUNE_ALONE, patch_px=8)
    assert_close(found.data, network.average()[0].numpy())
    (item,) = plan_embedding("galileo", PLACE, YEAR, backend=FieldProvider(), frames=24).items
    assert [query.series.windows(YEAR)[3].start.month for query in item.queries if query.series] == [4, 4]


def test_heights_come_with_their_slope_and_the_location_as_a_point_of_the_sphere(embed, encoder):
    found = embed(when=JUNE, modality="s2+srtm+location")
    chips = inspect_chip("galileo_1_0_nano", PLACE, JUNE, FieldProvider(land), modality="s2+srtm").chips
    heights = chips["srtm"].values[0]
    both = np.concatenate([heights, SLOPE.compute({"elevation": heights}, 10)])
    lon, lat = np.radians([12.94, 47.77])
    groups = tensors(chips["s2"].values)
    groups["SRTM"] = torch.from_numpy(normalised(both, "space", ("elevation", "slope")))[None]
    point = [math.cos(lat) * math.cos(lon), math.cos(lat) * math.sin(lon), math.sin(lat)]
    groups["location"] = torch.tensor([point])
    network = encoder(groups, JUNE_ALONE, patch_px=8)
    np.testing.assert_allclose(found.data, network.average()[0].numpy(), atol=1e-4)  # of the centre, to some metres
    assert found.meta.modality == ("s2", "srtm", "location")


def test_weather_is_one_value_a_date_for_the_whole_chip_and_land_cover_a_map_or_its_mean(embed, encoder):
    names = ["s2", "era5", "terraclimate", "viirs", "dynamic_world", "dynamic_world_mean", "worldcereal", "landscan"]
    provider = FieldProvider(land)
    found = embed(when=JUNE, modality=names, backend=provider)
    chips = inspect_chip("galileo_1_0_nano", PLACE, JUNE, FieldProvider(land), modality=names).chips
    groups = tensors(chips["s2"].values)
    for modality, group in (("era5", "ERA5"), ("terraclimate", "TC"), ("viirs", "VIIRS"), ("landscan", "LS")):
        values = chips[modality].values.mean(axis=(2, 3), keepdims=True)
        kind = "static" if group == "LS" else "time"
        numbers = torch.from_numpy(normalised(values, kind, chips[modality].band_names)[:, :, 0, 0])
        groups[group] = numbers if group == "LS" else numbers[None]
    cover = torch.from_numpy(chips["dynamic_world"].values)
    groups |= {"DW": cover, "DW_static": cover.mean(dim=(2, 3))}
    groups["WC"] = torch.from_numpy(chips["worldcereal"].values / 100)
    network = encoder(groups, JUNE_ALONE, patch_px=8)
    np.testing.assert_allclose(found.data, network.average()[0].numpy(), atol=5e-5)


@pytest.mark.slow
def test_the_default_is_what_the_backend_has_of_optical_radar_and_heights(embed):
    whole = embed(when=JUNE)
    assert (whole.meta.modality, whole.meta.absent) == (("s2", "s1", "srtm"), {})
    sample = embed(place=None, when=None, backend="sample")
    assert (sample.meta.modality, list(sample.meta.absent)) == (("s2", "s1"), ["srtm"])
    assert sample.meta.model["imagery"].startswith("Sentinel-2 L2A; trained with L1C")
    with pytest.raises(SensorNotOffered, match="SRTM"):
        embed(place=None, when=None, backend="sample", modality="s2+srtm")


def test_what_a_place_lacks_is_left_out_of_the_sequence(embed):
    class NoRadar(FieldProvider):
        def fetch(self, query):
            if query.modality == "s1":
                raise NoImagery("Expected radar, got none.", fix="none")
            return super().fetch(query)

    places = [PLACE, replace(PLACE, lon=12.96)]
    call = {"temporal": JUNE, "modality": "s2+s1", "pretrained": False, "progress": False}
    found = get_embeddings("galileo_1_0_nano", places, backend=NoRadar(land), **call)
    assert [list(one.meta.absent) for one in found] == [["s1"]] * 2
    optical = get_embeddings("galileo_1_0_nano", places, backend=FieldProvider(land), **call | {"modality": "s2"})
    for one, other in zip(found, optical, strict=True):
        np.testing.assert_allclose(one.data, other.data, atol=2e-5)


def test_the_vector_of_a_polygon_is_the_mean_of_the_patches_that_it_touches(embed):
    west, east = 12.9395, 12.9415
    field = Region([[(west, 47.769), (east, 47.769), (east, 47.7705), (west, 47.7705)]])
    box = BBox(west, 47.769, east, 47.7705)
    grid = embed(place=field, when=JUNE, output=GRID, modality="s2")
    vector = embed(place=field, when=JUNE, window_patches=1, modality="s2")
    np.testing.assert_allclose(vector.data, np.nanmean(grid.data, axis=(1, 2)), atol=2e-5)
    assert embed(place=box, when=JUNE).data.shape == (128,)
    maximum = embed(place=field, when=JUNE, output=OutputSpec.pooled("max"), window_patches=1, modality="s2")
    np.testing.assert_allclose(maximum.data, np.nanmax(grid.data, axis=(1, 2)), atol=2e-5)


def test_one_channel_of_a_group_wants_the_others_and_a_whole_group_may_be_left_out(embed, encoder):
    colours = embed(when=JUNE, modality="s2", bands=["B4", "B3", "B2"])
    chip = inspect_chip("galileo_1_0_nano", PLACE, JUNE, FieldProvider(land), modality="s2").chips["s2"].values
    network = encoder({"S2_RGB": tensors(chip)["S2_RGB"]}, JUNE_ALONE, patch_px=8)
    assert_close(colours.data, network.average()[0].numpy())
    with pytest.raises(BandMismatch, match="all channels of S2_RGB"):
        embed(when=JUNE, modality="s2", bands=["B4", "B3"])


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"modality": "s1+s1_rtc"}, SpecError, "one modality for S1"),
        ({"modality": "s2+s2_l1c"}, SpecError, "one modality for S2_RGB"),
        ({"modality": "era5"}, SpecError, "alone, which defines no grid"),
        ({"modality": "location"}, SpecError, "alone, which defines no grid"),
        ({"patch_size": 9}, KnobError, "patch_size"),
        ({"patch_size": 0}, KnobError, "patch_size"),
        ({"frames": 25}, KnobError, "frames"),
        ({"frames": 11}, SpecError, "at most 11 calendar months"),
        ({"input_prep": "resize"}, SpecError, "native size"),
        ({"output": OutputSpec.grid("dense")}, SpecError, "finer than a patch"),
        ({"normalize": "nowhere.json"}, KnobError, "nowhere.json"),
    ],
)
def test_what_it_cannot_do_is_refused(embed, options, error, says):
    with pytest.raises(error, match=says):
        embed(**options)


def test_dates_that_do_not_belong_together_are_refused(embed):
    s2, s1 = pixels(8, 8, dates=2), np.full((2, 2, 8, 8), -12, np.float32) + np.arange(64).reshape(8, 8) / 64
    arrays = {"input_chw": {"s2": s2, "s1": s1}}
    for dates in (["2022-03-01", "2022-09-01"], ["2022-06-13"]):
        given = {"s2": ["2022-06-13", "2022-08-13"], "s1": dates}
        cut = {"s2": s2, "s1": s1[: len(dates)]}
        with pytest.raises(InputError, match="the same dates for every modality"):
            embed(**arrays | {"input_chw": cut}, dates=given)


def test_statistics_of_ones_own_take_the_place_of_those_of_pre_training(embed, encoder, tmp_path):
    chips = inspect_chip("galileo_1_0_nano", PLACE, JUNE, FieldProvider(land), modality="s2+srtm").chips
    path = save_statistics(tmp_path / "mine.json", [chips])
    mine = embed(when=JUNE, modality="s2+srtm", normalize=str(path))
    assert mine.meta.normalization.startswith("mine.json#sha256:")
    assert np.abs(mine.data - embed(when=JUNE, modality="s2+srtm").data).max() > 1e-2
    s2 = chips["s2"].values
    mean, std = (how(s2, axis=(0, 2, 3), keepdims=True) for how in (np.mean, np.std))
    groups = tensors(s2)
    values = torch.from_numpy((s2 - mean) / (4 * std) + 0.5)
    start = 0
    for name, one in groups.items():
        groups[name] = values[None, :, start : start + one.shape[2]]
        start += one.shape[2]
    network = encoder(groups, JUNE_ALONE, patch_px=8)
    found = embed(when=JUNE, modality="s2", normalize=str(path))
    np.testing.assert_allclose(found.data, network.average()[0].numpy(), atol=5e-5)
    assert np.abs(embed(when=JUNE, modality="s2", normalize="none").data - found.data).max() > 1e-2


def test_the_published_file_is_loaded_strictly_and_an_extra_backbone_is_taken_off(embed, ckpt, tmp_path):
    state = torch.load(ckpt, map_location="cpu", weights_only=True)
    renamed = {name.replace("attn.", "attn.backbone.") if "blocks.1" in name else name: v for name, v in state.items()}
    torch.save(renamed, tmp_path / "backbone.pt")
    same = embed(when=JUNE, modality="s2", ckpt=tmp_path / "backbone.pt")
    np.testing.assert_array_equal(same.data, embed(when=JUNE, modality="s2").data)
    for name, broken in {
        "less": {name: v for name, v in state.items() if name != "time_embed.VIIRS.bias"},
        "more": {**state, "blocks.4.norm1.weight": torch.zeros(128)},
    }.items():
        torch.save(broken, tmp_path / f"{name}.pt")
        with pytest.raises(WeightsMismatch):
            embed(when=JUNE, modality="s2", ckpt=tmp_path / f"{name}.pt")


@pytest.mark.slow
def test_many_patches_are_encoded_a_part_at_a_time(embed):
    chip = pixels(120, 120)  # 14,400 patches of five tokens: more than are embedded at once
    call = {"dates": ["2022-06-13"], "output": GRID, "patch_size": 1}
    whole = embed(input_chw=chip, **call).data
    parts = [embed(input_chw=chip[..., rows, :], **call).data for rows in (slice(0, 60), slice(60, 120))]
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, atol=2e-6)


def test_half_precision_is_close(embed):
    vectors = [embed(when=JUNE, precision=precision).data for precision in ("fp32", "bf16")]
    assert np.corrcoef(*vectors)[0, 1] > 0.999


def test_a_field_of_hills_fits_every_modality_of_the_default(embed):
    assert np.isfinite(embed(backend=FieldProvider(hills), when=JUNE).data).all()


@pytest.mark.slow
def test_earth_engine_has_all_but_worldcereal_and_landscan():
    names = ["s2_l1c", "s1", "srtm", "era5", "terraclimate", "viirs", "dynamic_world", "dynamic_world_mean", "location"]
    place = PointBuffer(*PLACES["toulouse"], buffer_m=160)
    with EarthEngineServer(default_world()) as server:
        call = {"backend": earth_engine(server), "pretrained": False, "output": GRID}
        found = get_embedding(
            "galileo_1_0_nano", place, TemporalSpec.range("2022-04-15", "2022-07-01"), modality=names, **call
        )
    assert found.meta.absent == {}
    assert found.meta.modality == tuple(names)
    assert [len(one.frame_times) for one in found.meta.inputs] == [3, 3, 1, 3, 3, 3, 1, 1]
    assert found.data.shape == (128, 4, 4)


@pytest.mark.slow
def test_a_catalogue_without_radar_and_heights_of_srtm_serves_what_it_has():
    place = PointBuffer(*PLACES["toulouse"], buffer_m=80)
    days = TemporalSpec.range("2022-06-01", "2022-06-14")
    with serving() as server:
        call = {"backend": stac(server.site("earth-search", applied=True)), "pretrained": False}
        found = get_embedding("galileo_1_0_nano", place, days, **call)
        heights = get_embedding("galileo_1_0_nano", place, days, modality="s2+dem", **call)
    assert (found.meta.modality, list(found.meta.absent)) == (("s2",), ["s1", "srtm"])
    assert heights.meta.modality == ("s2", "dem")
