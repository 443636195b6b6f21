"""TerraMind through the public call: the authors' statistics, several modalities, windows, bands and layers."""

from pathlib import Path

import numpy as np
import pytest
import torch

from rs_embed import Embedding, OutputSpec, PointBuffer, SensorSpec, get_embedding, plan_embedding
from rs_embed.embedders.base import ModelInput
from rs_embed.embedders.prepare.framing import frame_chip
from rs_embed.encoders.terramind.encoder import TerraMindEncoder
from rs_embed.errors import (
    BandMismatch,
    KnobError,
    PixelWarning,
    ReadoutError,
    ScaleWarning,
    SensorNotOffered,
    SpecError,
    UnitMismatch,
    WeightsMismatch,
    WeightsNotFound,
)
from rs_embed.testing import FieldProvider, hills

S2 = "COPERNICUS/S2_SR_HARMONIZED"
L2A = "B1 B2 B3 B4 B5 B6 B7 B8 B8A B9 B11 B12".split()  # noqa: SIM905
STATS = {
    "S2L2A": (
        [1390.458, 1503.317, 1718.197, 1853.91, 2199.1, 2779.975, 2987.011, 3083.234, 3132.22, 3162.988, 2424.884,
         1857.648],
        [2106.761, 2141.107, 2038.973, 2134.138, 2085.321, 1889.926, 1820.257, 1871.918, 1753.829, 1797.379, 1434.261,
         1334.311],
    ),
    "S2L1C": (
        [2357.089, 2137.385, 2018.788, 2082.986, 2295.651, 2854.537, 3122.849, 3040.56, 3306.481, 1473.847, 506.07,
         2472.825, 1838.929],
        [1624.683, 1675.806, 1557.708, 1833.702, 1823.738, 1733.977, 1732.131, 1679.732, 1727.26, 1024.687, 442.165,
         1331.411, 1160.419],
    ),
    "RGB": ([87.271, 80.931, 66.667], [58.767, 47.663, 42.631]),
    "S1GRD": ([-12.599, -20.293], [5.195, 5.890]),
    "S1RTC": ([-10.93, -17.329], [4.391, 4.459]),
    "DEM": ([670.665], [951.272]),
}  # fmt: skip
"""MODELS.md 2.6, v1, typed again here on purpose; mean and std in the order of the bands."""
V01 = (
    [794.311, 925.161, 1183.128, 1338.041, 1667.254, 2233.633, 2460.96, 2555.569, 2619.542, 2703.298, 2406.497,
     1841.645],
    [1164.883, 1205.586, 1223.713, 1399.638, 1403.298, 1378.513, 1434.924, 1491.141, 1454.089, 1660.395, 1473.248,
     1365.080],
)  # fmt: skip
UNITS = {"S2L2A": "dn", "S2L1C": "dn", "RGB": "dn", "S1GRD": "db", "S1RTC": "db", "DEM": "metre"}
SIZE = {"dim": 192, "depth": 12, "heads": 3, "family": "B"}
PLACE = PointBuffer(lon=12.94, lat=47.77, buffer_m=800)


def published(seed: int = 7) -> dict[str, torch.Tensor]:
    """A seeded TerraMind tiny in the flat layout of the published files, decoder and token modality beside it."""
    encoder = TerraMindEncoder(**SIZE, modalities=tuple(STATS))
    encoder.init_random(seed)
    state = dict(encoder.state_dict())
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in state.items():
        if "norm" in name and name.endswith(".weight"):
            state[name] = tensor + 0.2 * torch.randn(tensor.shape, generator=generator)
    beside = ("decoder.0.norm1.weight", "decoder_embeddings.tok_dem@224.mod_emb", "decoder_norm.weight", "mask_token")
    state |= dict.fromkeys((*beside, "decoder_proj_context.weight"), torch.ones(4))
    state["encoder_embeddings.tok_lulc@224.token_emb.weight"] = torch.ones(9, 192)
    return state


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "TerraMind_v1_tiny.pt"
    torch.save(published(), path)
    return path


@pytest.fixture(scope="module")
def encoder() -> TerraMindEncoder:
    """The same weights in the bare encoder."""
    bare = TerraMindEncoder(**SIZE, modalities=tuple(STATS)).eval()
    state = published()
    bare.load_state_dict({name: state[name] for name in bare.state_dict()})
    return bare


def pixels(name: str, height: int = 224, width: int = 224) -> np.ndarray:
    """Plausible values `[C, H, W]` in the unit of the collection; DN reach from a dark 400 to beyond 10,000."""
    rng = np.random.default_rng(len(name))
    waves = np.sin(np.linspace(0, 7, height))[:, None] * np.cos(np.linspace(0, 5, width))
    noise = rng.normal(size=(len(STATS[name][0]), height, width))
    level, spread = {"dn": (1600, 1000), "db": (-15, 4), "metre": (700, 300)}[UNITS[name]]
    values = level + spread * (waves + 0.1 * noise)
    if UNITS[name] == "dn":
        values += 11_000 * (rng.random((height, width)) > 0.999)
    return values.astype(np.float32)


def standardised(name: str, values: np.ndarray, stats=None) -> torch.Tensor:
    """What the authors' code would be given."""
    images = torch.from_numpy(values)
    if name == "RGB":
        images = (images.clamp(470, 2560) - 470) / (2560 - 470) * 255
    mean, std = (torch.tensor(v)[:, None, None] for v in stats or STATS[name])
    return (images - mean) / std


def by_hand(encoder: TerraMindEncoder, images: dict[str, torch.Tensor], layers=None, bands=None) -> torch.Tensor:
    """Tokens `[N, D]` of the bare encoder."""
    with torch.inference_mode():
        return encoder({name: one[None] for name, one in images.items()}, layers=layers, bands=bands).values[0]


def tiny(checkpoint: Path, **options):
    return get_embedding("terramind_1_0_tiny", ckpt=checkpoint, **options)


def test_the_default_path_is_standardised_pixels_through_the_bare_encoder(checkpoint, encoder):
    dn = pixels("S2L2A")
    tokens = by_hand(encoder, {"S2L2A": standardised("S2L2A", dn)})
    embedding = tiny(checkpoint, input_chw=dn)
    np.testing.assert_allclose(embedding.data, tokens.mean(dim=0), atol=1e-5)
    grid = tiny(checkpoint, input_chw=dn, output=OutputSpec.grid())
    np.testing.assert_allclose(grid.data, tokens.T.reshape(192, 14, 14), atol=1e-5)
    largest = tiny(checkpoint, input_chw=dn, output=OutputSpec.pooled("max"))
    np.testing.assert_allclose(largest.data, tokens.amax(dim=0), atol=1e-5)
    meta = embedding.meta
    assert (meta["model_key"], meta["normalization"]) == ("terramind_v1_tiny", "terramind_stats")
    assert (meta["merge_method"], meta["layers"]) == ("mean", [11])
    assert meta["channels"] == [{"layer": 11, "modality": "S2L2A", "start": 0, "stop": 192}]
    assert (meta["input_prep"], meta["windows"], meta["patch_size"], meta["image_size"]) == ("tile", 1, 16, 224)
    assert (meta["gsd_m"], meta["ground_cover_m"]) == (10, 2240)
    assert (meta["pooling"], meta["cls_removed"], grid.meta["grid_kind"]) == ("patch_mean", False, "patch_tokens")
    assert meta["tokens"] == {"S2L2A": [14, 14]}


def test_a_file_without_position_tables_and_zero_biases_gives_the_same(checkpoint, tmp_path):
    biases = ("norm1.bias", "norm2.bias", "encoder_norm.bias")
    short = {name: tensor for name, tensor in published().items() if not name.endswith(("pos_emb", *biases))}
    torch.save(short, tmp_path / "short.pt")
    whole, cut = (tiny(path, input_chw=pixels("S2L2A")) for path in (checkpoint, tmp_path / "short.pt"))
    np.testing.assert_array_equal(whole.data, cut.data)
    assert whole.meta.weights != cut.meta.weights


@pytest.mark.parametrize("name", STATS)
def test_every_modality_is_standardised_with_its_own_table_in_its_own_unit(checkpoint, encoder, name):
    values = pixels(name)
    expected = by_hand(encoder, {name: standardised(name, values)}).mean(dim=0)
    embedding = tiny(checkpoint, input_chw=values, modality=name)
    np.testing.assert_allclose(embedding.data, expected, atol=2e-5)
    assert set(embedding.meta.inputs[0].units) == {UNITS[name]}
    assert embedding.meta["tokens"] == {name: [14, 14]}


def test_nodata_becomes_the_mean_of_the_training(checkpoint, encoder):
    db = pixels("S1GRD")
    images = standardised("S1GRD", db)
    db[0, 30:60, 40:90] = np.nan
    images[0, 30:60, 40:90] = 0
    tokens = by_hand(encoder, {"S1GRD": images})
    seen = torch.ones(images.shape[-2] // 16, images.shape[-1] // 16, dtype=torch.bool)
    seen[2, 3:5] = False  # wholly on nodata in one band
    expected = tokens[seen.flatten()].mean(dim=0)
    np.testing.assert_allclose(tiny(checkpoint, input_chw=db, modality="S1GRD").data, expected, atol=1e-5)


def test_version_0_1_has_its_own_statistics_and_only_sentinel_2():
    plan = plan_embedding("terramind_0_1_base", PLACE, backend=FieldProvider())
    embedder, (item,) = plan.job.embedder, plan.items
    chip = FieldProvider().fetch(item.queries[0])
    (prepared,) = embedder.prepare({"S2L2A": chip}, frame_chip(chip.shape_px, "tile", embedder.geometry()))
    expected = standardised("S2L2A", chip.values[0], V01)
    torch.testing.assert_close(prepared.tensors["S2L2A"], expected, rtol=0, atol=1e-5)
    with pytest.raises(SpecError, match="has no modality 'S1GRD'"):
        plan_embedding("terramind_0_1_base", PLACE, backend=FieldProvider(), modality="S1GRD")


MERGES = {
    "mean": lambda maps: torch.stack(maps).mean(dim=0),
    "max": lambda maps: torch.stack(maps).amax(dim=0),
    "concat": torch.cat,
}


@pytest.mark.parametrize("merge", MERGES)
@pytest.mark.parametrize("order", [("S2L2A", "S1GRD", "DEM"), ("DEM", "S2L2A", "S1GRD")])
def test_modalities_stand_in_one_sequence_and_are_merged_in_the_order_asked_for(checkpoint, encoder, merge, order):
    held = {name: pixels(name, 64, 96) for name in STATS}
    tokens = by_hand(encoder, {name: standardised(name, held[name]) for name in order})
    maps = list(tokens.T.reshape(192, 3, 4, 6).transpose(0, 1))
    expected = MERGES[merge](maps)
    call = {"input_chw": {name: held[name] for name in ("S2L2A", "S1GRD", "DEM")}, "merge_method": merge}
    grid = tiny(checkpoint, **call, modality="+".join(order), output=OutputSpec.grid())
    np.testing.assert_allclose(grid.data, expected, atol=1e-5)
    assert grid.meta["modality"] == order
    assert grid.meta["tokens"] == dict.fromkeys(order, [4, 6])
    assert [one.modality for one in grid.meta.inputs] == list(order)
    vector = tiny(checkpoint, **call, modality=list(order))
    np.testing.assert_allclose(vector.data, expected.mean(dim=(1, 2)), atol=1e-5)
    largest = tiny(checkpoint, **call, modality=order, output=OutputSpec.pooled("max"))
    np.testing.assert_allclose(largest.data, expected.amax(dim=(1, 2)), atol=1e-5)


def test_what_one_modality_shows_changes_the_tokens_of_another(checkpoint):
    held = {"S2L2A": pixels("S2L2A", 64, 64), "DEM": pixels("DEM", 64, 64)}
    call = {"merge_method": "concat", "output": OutputSpec.grid()}
    first = tiny(checkpoint, input_chw=held, **call).data[:192]
    other = tiny(checkpoint, input_chw=held | {"DEM": held["DEM"] + 2000}, **call).data[:192]
    assert np.abs(first - other).max() > 1e-3, "they attend to each other"


def test_a_subset_of_bands_picks_the_kernels_of_those_bands(checkpoint, encoder):
    dn = pixels("S2L2A", 64, 64)
    sensor = SensorSpec(S2, ("B12", "B2", "B3", "B4", "B8A", "B11"))
    order = [L2A.index(band) for band in sensor.bands]
    embedding = tiny(checkpoint, input_chw=dn[order], sensor=sensor)
    alone = torch.zeros(12, 64, 64)  # a channel of zeros adds nothing to a linear map
    alone[order] = standardised("S2L2A", dn)[order]
    np.testing.assert_allclose(embedding.data, by_hand(encoder, {"S2L2A": alone}).mean(dim=0), atol=1e-5)
    assert embedding.meta.inputs[0].bands == sensor.bands
    radar = {"S1GRD": pixels("S1GRD", 64, 64)[1:], "S2L2A": dn[order]}
    sensors = {"S1GRD": SensorSpec("COPERNICUS/S1_GRD", ("VH",)), "S2L2A": sensor}
    several = tiny(checkpoint, input_chw=radar, sensor=sensors)
    half = torch.zeros(2, 64, 64)
    half[1] = standardised("S1GRD", pixels("S1GRD", 64, 64))[1]
    expected = by_hand(encoder, {"S1GRD": half, "S2L2A": alone}).mean(dim=0)
    np.testing.assert_allclose(several.data, expected, atol=1e-5)


def test_a_chip_smaller_than_a_window_runs_as_a_rectangle_of_whole_patches(checkpoint, encoder):
    dn = pixels("S2L2A", 100, 160)
    image = standardised("S2L2A", dn)
    padded = image.mean(dim=(1, 2), keepdim=True).repeat(1, 112, 160)
    padded[:, :100] = image
    tokens = by_hand(encoder, {"S2L2A": padded})
    grid = tiny(checkpoint, input_chw=dn, output=OutputSpec.grid())
    np.testing.assert_allclose(grid.data, tokens.T.reshape(192, 7, 10), atol=1e-5)
    assert grid.meta["tokens"] == {"S2L2A": [7, 10]}
    assert grid.meta["gsd_m"] == 10, "not stretched"
    np.testing.assert_allclose(tiny(checkpoint, input_chw=dn).data, tokens.mean(dim=0), atol=1e-5)


def test_crop_and_resize_take_one_window(checkpoint, encoder):
    dn = pixels("S2L2A", 256, 448)
    image = standardised("S2L2A", dn)
    centre = by_hand(encoder, {"S2L2A": image[:, 16:240, 112:336]})
    cropped = tiny(checkpoint, input_chw=dn, input_prep="crop")
    np.testing.assert_allclose(cropped.data, centre.mean(dim=0), atol=1e-5)
    square = standardised("S2L2A", pixels("S2L2A", 112, 112))
    enlarged = torch.nn.functional.interpolate(square[None], (224, 224), mode="bilinear", align_corners=False)[0]
    with pytest.warns(ScaleWarning, match=r"expects pixels of 10 m, but after resizing they are 5 m"):
        resized = tiny(checkpoint, input_chw=pixels("S2L2A", 112, 112), input_prep="resize")
    np.testing.assert_allclose(resized.data, by_hand(encoder, {"S2L2A": enlarged}).mean(dim=0), atol=1e-5)
    assert resized.meta["gsd_m"] == 5


@pytest.mark.slow
def test_four_kilometres_become_one_seamless_grid_of_overlapping_windows(checkpoint, encoder):
    provider = FieldProvider()
    call = {"spatial": PointBuffer(lon=12.94, lat=47.77, buffer_m=2048), "backend": provider}
    grid = tiny(checkpoint, **call, output=OutputSpec.grid())
    chip = provider.fetch(provider.queries[0])
    assert chip.shape_px == (410, 410)
    image = standardised("S2L2A", chip.values[0])
    padded = image.mean(dim=(1, 2), keepdim=True).repeat(1, 416, 416)
    padded[:, :410, :410] = image
    ramp = torch.arange(14.0)
    tent = torch.minimum(ramp + 0.5, 13.5 - ramp)
    total, weights = torch.zeros(192, 26, 26), torch.zeros(26, 26)
    for row in (0, 12):  # tokens; the last window is shifted inward, and ends with the chip
        for col in (0, 12):
            window = padded[:, row * 16 : row * 16 + 224, col * 16 : col * 16 + 224]
            there = (..., slice(row, row + 14), slice(col, col + 14))
            total[there] += by_hand(encoder, {"S2L2A": window}).T.reshape(192, 14, 14) * (tent[:, None] * tent)
            weights[there] += tent[:, None] * tent
    np.testing.assert_allclose(grid.data, total / weights, atol=2e-5)
    np.testing.assert_allclose(tiny(checkpoint, **call).data, grid.data.mean(axis=(1, 2)), atol=1e-5)
    assert (grid.meta["windows"], grid.meta["gsd_m"]) == (4, 10)
    assert (grid.geobox.affine.c, grid.geobox.affine.f) == (chip.geobox.affine.c, chip.geobox.affine.f)
    assert grid.geobox.resolution.x == 160


def test_a_hill_in_the_south_changes_the_token_in_the_south_most(checkpoint):
    def height(lon, lat, band):
        values = np.full_like(lon, 400.0)
        values[-16:, 32:48] = 2400.0
        return values

    flat = FieldProvider(lambda lon, lat, band: np.full_like(lon, 400.0))
    call = {"spatial": PLACE, "modality": "DEM", "output": OutputSpec.grid()}
    grid = tiny(checkpoint, **call, backend=FieldProvider(height))
    change = np.abs(grid.data - tiny(checkpoint, **call, backend=flat).data).mean(axis=0)
    assert change.shape == (10, 10)
    assert np.unravel_index(change.argmax(), change.shape) == (9, 2)
    assert grid.geobox.affine.e == -160, "row 0 is the north"


@pytest.mark.parametrize("layer", [0, 5, 11])
def test_a_layer_is_raw_and_only_the_last_one_normed(checkpoint, encoder, layer):
    image = standardised("S2L2A", pixels("S2L2A", 64, 64))
    with torch.inference_mode():
        x = encoder.embed({"S2L2A": image[None]}).values
        for block in encoder.encoder[: layer + 1]:
            x = block(x)
        expected = (encoder.encoder_norm(x) if layer == 11 else x)[0].mean(dim=0)
    embedding = tiny(checkpoint, input_chw=pixels("S2L2A", 64, 64), layer=layer)
    np.testing.assert_allclose(embedding.data, expected, atol=2e-5)
    assert embedding.meta["layers"] == [layer]
    if layer == 11:
        assert tiny(checkpoint, input_chw=pixels("S2L2A", 64, 64), layer=-1).meta["layers"] == [11]
        np.testing.assert_array_equal(embedding.data, tiny(checkpoint, input_chw=pixels("S2L2A", 64, 64)).data)


@pytest.mark.parametrize("merge", MERGES)
def test_several_layers_stand_side_by_side_each_merged_for_itself(checkpoint, encoder, merge):
    names = ("S2L2A", "DEM")
    held = {name: pixels(name, 64, 96) for name in names}
    images = {name: standardised(name, held[name]) for name in names}
    maps = {
        layer: list(by_hand(encoder, images, layers=(layer,)).T.reshape(192, 2, 4, 6).transpose(0, 1))
        for layer in (11, 3, 7)
    }
    expected = torch.cat([MERGES[merge](one) for one in maps.values()])
    call = {"input_chw": held, "merge_method": merge}
    grid = tiny(checkpoint, **call, layers=[11, 3, 7], output=OutputSpec.grid())
    np.testing.assert_allclose(grid.data, expected, atol=2e-5)
    vector = tiny(checkpoint, **call, layers="11,3,7")
    np.testing.assert_allclose(vector.data, expected.mean(dim=(1, 2)), atol=2e-5)
    assert vector.meta.knobs["layers"] == [11, 3, 7]
    whose = [(11, "S2L2A"), (11, "DEM"), (3, "S2L2A"), (3, "DEM"), (7, "S2L2A"), (7, "DEM")]
    whose = whose if merge == "concat" else [(layer, "S2L2A+DEM") for layer in (11, 3, 7)]
    assert vector.meta["channels"] == grid.meta["channels"]
    assert grid.meta["channels"] == [
        {"layer": layer, "modality": name, "start": 192 * i, "stop": 192 * (i + 1)}
        for i, (layer, name) in enumerate(whose)
    ]
    one = tiny(checkpoint, **call, layers=3)
    np.testing.assert_allclose(vector.data[len(one.data) : 2 * len(one.data)], one.data, atol=2e-5)


@pytest.mark.parametrize("layers", [(11,), (3, 11)])
def test_dict_keeps_modalities_apart_by_name_and_a_file_keeps_that(checkpoint, encoder, layers, tmp_path):
    names = ("DEM", "S2L2A", "S1GRD")
    held = {name: pixels(name, 64, 96) for name in names}
    images = {name: standardised(name, held[name]) for name in names}
    tokens = by_hand(encoder, images, layers=layers).T.reshape(len(layers) * 192, 3, 4, 6)
    call = {"input_chw": held, "layers": layers, "merge_method": "dict"}
    grid = tiny(checkpoint, **call, output=OutputSpec.grid())
    vector = tiny(checkpoint, **call)
    assert vector.data.shape == (len(layers) * 3 * 192,)
    for one in (
        grid,
        vector,
        Embedding.load(grid.save(tmp_path / "g.npz")),
        Embedding.load(vector.save(tmp_path / "v.nc")),
    ):
        apart = one.by_modality()
        assert tuple(apart) == names
        for place, name in enumerate(names):
            expected = tokens[:, place] if one.is_grid else tokens[:, place].mean(dim=(1, 2))
            np.testing.assert_allclose(apart[name], expected, atol=2e-5)
    if len(layers) == 1:
        assert all(np.shares_memory(part, grid.data) for part in grid.by_modality().values())


def test_what_was_merged_cannot_be_read_apart(checkpoint):
    held = {name: pixels(name, 32, 32) for name in ("S2L2A", "DEM")}
    for merge in ("mean", "max", "none"):
        with pytest.raises(ReadoutError, match='merge_method="dict"'):
            tiny(checkpoint, input_chw=held, merge_method=merge).by_modality()
    with pytest.raises(ReadoutError, match="thor_1_0_tiny"):
        get_embedding("thor_1_0_tiny", backend="sample", pretrained=False, input_prep="crop").by_modality()
    alone = tiny(checkpoint, input_chw=held["DEM"], modality="DEM")
    np.testing.assert_array_equal(alone.by_modality()["DEM"], alone.data)


def test_unmerged_a_vector_is_the_mean_of_all_tokens_and_a_grid_wants_one_modality(checkpoint, encoder):
    held = {name: pixels(name, 90, 96) for name in ("S2L2A", "DEM")}  # the last row of tokens is partly padding
    padded = {}
    for name, values in held.items():
        image = standardised(name, values)
        padded[name] = image.mean(dim=(1, 2), keepdim=True).repeat(1, 96, 96)
        padded[name][:, :90] = image
    tokens = by_hand(encoder, padded)
    assert tokens.shape[0] == 2 * 36
    for how, expected in (("mean", tokens.mean(dim=0)), ("max", tokens.amax(dim=0))):
        vector = tiny(checkpoint, input_chw=held, merge_method="none", output=OutputSpec.pooled(how))
        np.testing.assert_allclose(vector.data, expected, atol=1e-5)
        assert vector.meta["pooling"] == f"token_{how}"
    grids = [
        tiny(checkpoint, input_chw=held["DEM"], modality="DEM", merge_method=merge, output=OutputSpec.grid()).data
        for merge in ("none", "mean")
    ]
    np.testing.assert_array_equal(*grids)
    provider = FieldProvider()
    with pytest.raises(SpecError, match="'none' leaves S2L2A, DEM unmerged") as caught:
        plan_embedding("terramind", PLACE, None, OutputSpec.grid(), provider, modality="S2L2A+DEM", merge_method="none")
    assert "merge_method='dict'" in caught.value.fix


def test_layer_is_another_name_of_layers_as_keyword_and_as_variable(checkpoint, monkeypatch):
    call = {"input_chw": pixels("S2L2A", 32, 32)}
    expected = tiny(checkpoint, **call, layers=[5, 2]).data
    for words in ({"layer": (5, 2)}, {"layer": "5,2"}, {"layers": "5, 2"}):
        np.testing.assert_array_equal(tiny(checkpoint, **call, **words).data, expected)
    for variable in ("LAYER", "LAYERS"):
        with monkeypatch.context() as environment:
            environment.setenv(f"RS_EMBED_TERRAMIND_{variable}", "5,2")
            np.testing.assert_array_equal(tiny(checkpoint, **call).data, expected)
            assert tiny(checkpoint, **call, layers=1).meta["layers"] == [1], "a keyword goes before both"
            assert tiny(checkpoint, **call, layer=1).meta["layers"] == [1]
    with pytest.raises(KnobError, match="layers and layer, which mean the same, got both"):
        tiny(checkpoint, **call, layer=1, layers=1)
    monkeypatch.setenv("RS_EMBED_TERRAMIND_LAYER", "1")
    monkeypatch.setenv("RS_EMBED_TERRAMIND_LAYERS", "1")
    with pytest.raises(KnobError, match="RS_EMBED_TERRAMIND_LAYER, which mean the same"):
        tiny(checkpoint, **call)


def test_normalize_none_feeds_the_collection_s_own_values(checkpoint, encoder):
    for name, images in (
        ("S2L2A", torch.from_numpy(pixels("S2L2A", 64, 64))),
        ("RGB", torch.from_numpy(pixels("RGB", 64, 64)).clamp(470, 2560)),
    ):
        embedding = tiny(checkpoint, input_chw=pixels(name, 64, 64), modality=name, normalize="none")
        np.testing.assert_allclose(embedding.data, by_hand(encoder, {name: images}).mean(dim=0), atol=1e-4)
        assert embedding.meta["normalization"] == "none"


@pytest.mark.slow
@pytest.mark.parametrize("modality", ["S2L2A", "S2L2A+S1GRD"])
def test_the_sample_scene_gives_a_placed_grid_and_bf16_keeps_it(checkpoint, modality):
    call = {"backend": "sample", "modality": modality, "output": OutputSpec.grid()}
    exact, fast = (tiny(checkpoint, **call, precision=precision) for precision in ("fp32", "bf16"))
    assert exact.data.shape == (192, 23, 15), "3.6 x 2.4 km; the last row stands half on the scene"
    assert (exact.geobox.affine.c, exact.geobox.affine.f) == (344400, 5294400)
    days = {one.modality: one.scene_times[0][:10] for one in exact.meta.inputs}
    assert days == {name: {"S2L2A": "2017-06-13", "S1GRD": "2017-06-12"}[name] for name in modality.split("+")}
    cosine = (exact.data * fast.data).sum(axis=0)
    cosine /= np.linalg.norm(exact.data, axis=0) * np.linalg.norm(fast.data, axis=0)
    assert 0.999 < cosine.min() < 1.0


def test_variables_are_knobs_and_keywords_win(checkpoint, monkeypatch):
    held = {"S2L2A": pixels("S2L2A", 96, 96), "S1GRD": pixels("S1GRD", 96, 96)}
    given = {"CKPT": checkpoint, "MODALITY": "S1GRD+S2L2A", "MERGE_METHOD": "concat", "IMG": 64, "LAYER": 2,
             "NORMALIZE": "none"}  # fmt: skip
    for name, value in given.items():
        monkeypatch.setenv(f"RS_EMBED_TERRAMIND_{name}", str(value))

    def field(lon, lat, band):
        return hills(lon, lat, band) if band.startswith("B") else hills(lon, lat, band) / 1000 - 17

    call = {"spatial": PointBuffer(12.94, 47.77, 480), "backend": FieldProvider(field), "output": OutputSpec.grid()}
    by_variable = get_embedding("terramind_1_0_tiny", **call)
    assert by_variable.meta["modality"] == ("S1GRD", "S2L2A")
    assert by_variable.data.shape == (384, 6, 6)
    meta = by_variable.meta
    assert (meta["image_size"], meta["layers"], meta["normalization"]) == (64, [2], "none")
    words = {"merge_method": "max", "img": 96, "normalize": "terramind_stats", "layers": [11]}
    by_keyword = get_embedding("terramind_1_0_tiny", **call, modality="S2L2A", **words)
    assert by_keyword.meta["modality"] == ("S2L2A",)
    assert by_keyword.data.shape == (192, 6, 6)
    assert {name: by_keyword.meta.knobs[name] for name in words} == words
    by_sensor = get_embedding("terramind_1_0_tiny", **call, sensor=SensorSpec(S2, ("B4", "B3")), **words)
    assert by_sensor.meta["modality"] == ("S2L2A",)
    by_array = get_embedding("terramind_1_0_tiny", input_chw=held, **words)
    assert by_array.meta["modality"] == ("S2L2A", "S1GRD")


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"img": 100}, SpecError, "img as a multiple of 16 px, got 100"),
        ({"img": 8}, KnobError, "img"),
        ({"layer": 12}, SpecError, "layers from 0 to 11"),
        ({"layers": [3, 12]}, SpecError, "layers from 0 to 11"),
        ({"layer": -13}, SpecError, "from -1 to -12, each once, got [-13]"),
        ({"layers": [11, -1]}, SpecError, "each once, got [11, -1]"),
        ({"layers": "3,x"}, KnobError, "Expected layers to be a valid integer"),
        ({"layers": [3, 3]}, KnobError, "one or more different blocks, got"),
        ({"layers": []}, KnobError, "one or more different blocks"),
        ({"merge_method": "sum"}, KnobError, "'mean', 'max', 'concat', 'dict' or 'none', got 'sum'"),
        ({"normalize": "zscore"}, KnobError, "'terramind_stats' or 'none', got 'zscore'"),
        ({"model_key": "terramind_v2"}, KnobError, "model_key"),
        ({"modality": "s2l2a"}, SpecError, "did you mean 'S2L2A'"),
        ({"modality": "S2L2A+caption"}, SpecError, "no modality 'caption'"),
        ({"modality": "S2L2A+S2L2A"}, SpecError, "each modality once"),
        ({"modality": "RGB", "sensor": SensorSpec(S2, ("B8",))}, BandMismatch, "does not know B8"),
        ({"sensor": {"S1GRD": SensorSpec("COPERNICUS/S1_GRD", ("HH",))}}, BandMismatch, "does not know HH"),
        ({"ckpt": "/does/not/exist.pt"}, WeightsNotFound, "/does/not/exist.pt"),
    ],
)
def test_what_terramind_cannot_do_is_said_before_fetching_or_loading(options, error, says):
    provider = FieldProvider()
    with pytest.raises(error) as caught:
        get_embedding("terramind", PLACE, backend=provider, **({"ckpt": "/does/not/exist.pt"} | options))
    assert says in str(caught.value)
    assert caught.value.fix
    assert provider.queries == []


def test_a_wrong_variable_is_refused_by_name(monkeypatch):
    monkeypatch.setenv("RS_EMBED_TERRAMIND_MODALITY", "S2L2A+S3")
    with pytest.raises(SpecError, match="has no modality 'S3'"):
        get_embedding("terramind", PLACE, backend=FieldProvider())
    monkeypatch.setenv("RS_EMBED_TERRAMIND_MERGE_METHOD", "sum")
    with pytest.raises(KnobError, match="'mean', 'max', 'concat', 'dict' or 'none', got 'sum'"):
        get_embedding("terramind", PLACE, backend=FieldProvider())


def test_a_modality_that_the_backend_lacks_is_an_error_and_never_left_out(checkpoint):
    for merge in (*MERGES, "dict", "none"):
        with pytest.raises(SensorNotOffered, match="COPERNICUS/DEM/GLO30"):
            tiny(checkpoint, backend="sample", modality="S2L2A+S1GRD+DEM", merge_method=merge)
        with pytest.raises(SensorNotOffered, match="array for DEM"):
            tiny(checkpoint, input_chw={"S2L2A": pixels("S2L2A", 32, 32)}, modality="S2L2A+DEM", merge_method=merge)
    with pytest.raises(SensorNotOffered):  # the grid is asked of the first modality, before weights are loaded
        tiny(Path("/does/not/exist.pt"), backend="sample", modality="DEM")


def test_a_batch_that_lacks_a_modality_is_refused_and_nothing_stands_in_for_it():
    for merge in ("concat", "dict", "mean"):
        plan = plan_embedding(
            "terramind_1_0_tiny", PLACE, None, OutputSpec.grid(), FieldProvider(),
            modality="S2L2A+DEM", merge_method=merge, pretrained=False,
        )  # fmt: skip
        with pytest.raises(BandMismatch, match="bands only for the inputs, got some for DEM"):
            plan.job.embedder.run(ModelInput({"S2L2A": torch.zeros(1, 12, 32, 32)}))


def test_radar_in_linear_power_is_refused(checkpoint):
    with pytest.raises(UnitMismatch):
        tiny(checkpoint, input_chw=10 ** (pixels("S1GRD", 32, 32) / 10), modality="S1GRD")


@pytest.mark.parametrize("layer", ["encoder.3.norm2", "encoder_norm"])
def test_a_layer_norm_with_a_bias_is_refused(tmp_path, layer):
    state = published()
    state[f"{layer}.bias"] = state[f"{layer}.bias"] + 0.25
    torch.save(state, tmp_path / "other.pt")
    with pytest.raises(WeightsMismatch, match=r"a bias of zero in TerraMind's LayerNorms, got up to 0\.25") as caught:
        tiny(tmp_path / "other.pt", input_chw=pixels("S2L2A", 32, 32))
    assert layer in str(caught.value)


def test_a_tensor_too_few_is_refused_by_name(tmp_path):
    state = published()
    del state["encoder_embeddings.untok_dem@224.proj.weight"]
    torch.save(state, tmp_path / "short.pt")
    with pytest.raises(WeightsMismatch, match="untok_dem@224"):
        tiny(tmp_path / "short.pt", input_chw=pixels("S2L2A", 32, 32))


@pytest.mark.slow
def test_modalities_with_bands_of_one_name_go_together():
    with pytest.warns(PixelWarning, match="values of RGB .* are clipped"):  # most of this valley is darker than 470 DN
        both = get_embedding("terramind_1_0_tiny", backend="sample", modality="S2L2A+RGB", pretrained=False)
    alone = get_embedding("terramind_1_0_tiny", backend="sample", modality="S2L2A", pretrained=False)
    assert both.meta["tokens"] == {"S2L2A": [14, 14], "RGB": [14, 14]}
    assert np.abs(both.data - alone.data).max() > 1e-3


def test_a_modality_that_the_backend_lacks_is_refused_before_weights_are_loaded():
    place = PointBuffer(lon=12.9394, lat=47.7682, buffer_m=500)
    with pytest.raises(SensorNotOffered):
        get_embedding("terramind_1_0_tiny", place, backend="sample", modality="S2L2A+DEM", ckpt="/does/not/exist.pt")


@pytest.mark.slow
def test_metadata_hold_the_modality_in_force(monkeypatch):
    monkeypatch.setenv("RS_EMBED_TERRAMIND_MODALITY", "S1GRD")
    by_keyword = get_embedding("terramind_1_0_tiny", backend="sample", modality="S2L2A", pretrained=False)
    assert by_keyword.meta.knobs["modality"] == "S2L2A"
    monkeypatch.delenv("RS_EMBED_TERRAMIND_MODALITY")
    by_default = get_embedding("terramind_1_0_tiny", backend="sample", pretrained=False)
    assert by_default.meta.fingerprint == by_keyword.meta.fingerprint
