"""What every model of the catalog promises, whatever it is. A card is tested because it is listed."""

import json
import os
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import card_of
from torch import Tensor

from rs_embed import (
    OutputSpec,
    PointBuffer,
    SensorSpec,
    TemporalSpec,
    describe_model,
    geobox_for,
    get_embedding,
    get_embeddings,
    plan_embedding,
    release_models,
)
from rs_embed.core.settings import SeriesKnobs, WeightsKnobs
from rs_embed.embedders.card import ModelCard
from rs_embed.embedders.cards.terramind import MAP_NAMES
from rs_embed.embedders.catalog import CARDS, get_card
from rs_embed.embedding.embedding import Embedding
from rs_embed.encoders.anysat.encoder import AnySatEncoder
from rs_embed.encoders.clay import ClayEncoder
from rs_embed.encoders.copernicusfm import CopernicusEncoder
from rs_embed.encoders.croma import CromaEncoder
from rs_embed.encoders.dinov3 import DinoV3Encoder
from rs_embed.encoders.dofa import DofaEncoder
from rs_embed.encoders.galileo.encoder import GalileoEncoder
from rs_embed.encoders.panopticon import PanopticonEncoder
from rs_embed.encoders.presto import PrestoEncoder
from rs_embed.encoders.prithvi import PrithviEncoder
from rs_embed.encoders.terrafm import TerraFMEncoder
from rs_embed.encoders.terramind.encoder import TerraMindEncoder
from rs_embed.encoders.thor.encoder import ThorEncoder
from rs_embed.encoders.vit import ViTEncoder
from rs_embed.errors import (
    BandMismatch,
    ChoiceWarning,
    DeviceError,
    KnobError,
    NoValidPixels,
    PixelWarning,
    ScaleWarning,
    SpecError,
    UnitMismatch,
)
from rs_embed.testing import FieldProvider, directions, hills, pixel_centres


def features(lon, lat, band):
    """Values of either sign, as those of TESSERA."""
    return 3 * directions(lon, lat, f"A{int(band[1:]) % 64:02d}")


PLACE = PointBuffer(lon=12.94, lat=47.77, buffer_m=1440)
NEAR = PointBuffer(lon=12.94, lat=47.77, buffer_m=480)
TINY = PointBuffer(lon=12.94, lat=47.77, buffer_m=60)
"""For families whose work grows with the ground, by patches and by pixels; the others resize or pad it."""
YEAR = TemporalSpec.year(2022)
IDS = [card.id for card in CARDS if card.extra in (None, "export") and card.modalities]
"""What needs another extra is tested where that is installed, by a contract of its own; so is what sees no imagery
(test_location_models.py). Networks are shrunken (`card_of`);
that those of the cards are the published ones is a test of its own."""
DISTINCT = [
    *{(str(card_of(one).adapter), str(card_of(one).arch), str(get_card(one).modalities)): one for one in IDS}.values()
]
"""One of several cards that are the same to us once shrunken: they differ in their weights only."""
SMALL = ["thor_1_0_tiny", "terramind_1_0_tiny", "anysat_tiny", "galileo_1_0_nano", "mosaiks_rcf"]
"""One of each family for what costs several forward passes. Not AlphaEarth, which has no network and fills nothing:
what holds for it stands in test_alphaearth_adapter.py."""
QUICK = {"thor_1_0_tiny", "mosaiks_rcf"}
"""What `make quick` asks; `make test` asks all of them."""
FIELDS = {"alphaearth_v1": directions, "tessera_v1_1": features, "dinov3_sat493m_large": lambda *at: hills(*at) / 15}
"""What the ground is where a model takes no reflectances."""
LOCAL = {"anysat_tiny": OutputSpec.grid("dense")}
"""The grid whose tokens know their own ground even with random weights. AnySat's patches do not: its last block is
without a residual, so each sees all of the window."""
TURNED = {
    "thor_1_0_tiny": {"patch_size": 4},
    "terramind_1_0_tiny": {"layers": 1},
    "anysat_tiny": {"patch_size_m": 80},
    "galileo_1_0_nano": {"patch_size": 4},
    "mosaiks_rcf": {"patch_size": 4},
}
"""A knob of each that changes its numbers."""
PUBLISHED_PREFIX = {
    "thor_1_0_tiny": "encoder.",
    "terramind_1_0_tiny": "",
    "anysat_tiny": "",
    "galileo_1_0_nano": "",
    "clay_1_5_large": "model.encoder.",
    "dofa_1_0_base": "",
    "copernicus_fm_base": "",
}
"""What the authors' files put before the names of the encoder's tensors."""
pytestmark = pytest.mark.filterwarnings("ignore::rs_embed.errors.ScaleWarning")


def each(ids):
    """Parameters of a test for each model; those that are not in `QUICK` are slow."""
    return [one if one in QUICK else pytest.param(one, marks=pytest.mark.slow) for one in ids]


def knobs(model_id: str, output: OutputSpec = OutputSpec.pooled()) -> dict[str, bool | int | str]:
    """Random weights where a checkpoint would be needed; few dates; patches where their maximum is asked for."""
    family = card_of(model_id).knobs
    found: dict[str, bool | int | str] = {"pretrained": False} if issubclass(family, WeightsKnobs) else {}
    if issubclass(family, SeriesKnobs):
        found |= {"frames": 2, "temporal_sampling": "composite"}
    if model_id.startswith("presto"):
        found |= {"modality": "s2"}
    if "pooled" in family.model_fields and output == OutputSpec.pooled("max"):
        found |= {"pooled": "patch"}
    return found


def embed(model_id: str, **options) -> Embedding:
    ground = FieldProvider(FIELDS.get(model_id, hills))
    place = (
        NEAR
        if model_id.startswith(("anysat", "galileo", "mosaiks"))
        else TINY
        if model_id.startswith(("presto", "dinov3"))
        else PLACE
    )
    call = {"spatial": place, "temporal": YEAR, "backend": ground} | options
    if "input_chw" in options:
        call.pop("backend")
        if is_series(model_id):
            call["dates"] = [half.start for half in YEAR.split(2)]
    return get_embedding(card_of(model_id), **(knobs(model_id, options.get("output", OutputSpec.pooled())) | call))


def is_series(model_id: str) -> bool:
    return card_of(model_id).modalities[0].is_series


@pytest.mark.parametrize("model_id", each(DISTINCT))
def test_pooled_and_grid_have_the_size_that_the_card_says(model_id):
    card = card_of(model_id)
    vector, grid = embed(model_id), embed(model_id, output=OutputSpec.grid())
    assert vector.data.shape == (card.dim,)
    assert grid.data.shape[0] == card.dim
    assert grid.data.dtype == vector.data.dtype == np.float32
    assert np.isfinite(vector.data).all()
    assert np.isfinite(grid.data).all()
    assert grid.geobox.shape == grid.data.shape[1:]
    if card.pooled_is_grid_mean:
        np.testing.assert_allclose(vector.data, grid.data.mean(axis=(1, 2)), rtol=1e-6, atol=2e-5)


UNUSED = dict.fromkeys(("ssl4eo_s12_vits16_dino", "ssl4eo_s12_vits16_moco"), {"norm.weight", "norm.bias"})
"""Tensors of the published files that a card leaves out on purpose."""
MANIFESTS = Path(__file__).parent / "data/golden/manifests"
ENCODERS = {
    "thor": lambda card: ThorEncoder(**card.arch),
    "terramind": lambda card: TerraMindEncoder(
        **{name: size for name, size in card.arch.items() if name != "gated"},
        family="A" if card.arch["gated"] else "B",
        modalities=[name for name in card.modality_names if name not in MAP_NAMES],
    ),
    "anysat": lambda card: AnySatEncoder(**card.arch),
    "galileo": lambda card: GalileoEncoder(**card.arch),
    "presto": lambda card: PrestoEncoder(**card.arch),
    "prithvi": lambda card: PrithviEncoder(**card.arch),
    "panopticon": lambda card: PanopticonEncoder(**card.arch),
    "terrafm": lambda card: TerraFMEncoder(**card.arch),
    "croma": lambda card: CromaEncoder(**card.arch),
    "clay": lambda card: ClayEncoder(**card.arch),
    "dofa": lambda card: DofaEncoder(**card.arch),
    "copernicus": lambda card: CopernicusEncoder(**card.arch),
    **dict.fromkeys(("ssl4eo", "softcon"), lambda card: ViTEncoder(**card.arch)),
    "dinov3": lambda card: DinoV3Encoder(**card.arch),
}


def manifest_of(card: ModelCard) -> dict[str, list[int]]:
    """Names and shapes of the tensors that the published file has of the encoder."""
    name = card.model_key.replace("v01", "v1")  # TerraMind 0.1 is laid out as its successor
    plain = re.fullmatch(r"(?:ssl4eo_s12|softcon)_(vit[^_]+).*", card.id)
    if plain:
        name = f"{plain[1]}_{card.arch['bands']}"
    return json.loads(min(MANIFESTS.glob(f"{name}*.json")).read_text())["tensors"]


@pytest.mark.parametrize("model_id", each([model_id for model_id in IDS if get_card(model_id).weights]))
def test_the_network_of_a_card_at_full_size_has_the_tensors_of_the_published_file(model_id):
    card = get_card(model_id)
    with torch.device("meta"):
        encoder = ENCODERS[model_id.split("_")[0]](card)
    shapes = {name: list(tensor.shape) for name, tensor in encoder.state_dict().items()}
    published = manifest_of(card)
    assert shapes.items() <= published.items()
    left = {name for name in published if name not in shapes}
    # TerraMind's file holds more modalities, and that of Copernicus-FM a second patch embedding.
    assert left == UNUSED.get(model_id, set()) or model_id.startswith(("terramind", "copernicus"))
    told = sum(map(Tensor.numel, encoder.parameters())) / 1e6
    assert told == pytest.approx(card.parameters_m, rel=0.01)


@pytest.mark.parametrize(
    ("model_id", "options"),
    [
        ("thor_1_0_tiny", {"group_merge": "concat", "output": OutputSpec.grid()}),
        ("thor_1_0_tiny", {"group_merge": "concat"}),
        ("terramind_1_0_tiny", {"layers": [1, 3], "output": OutputSpec.grid()}),
        ("terramind_1_0_tiny", {"layers": [1, 3]}),
        ("terramind_1_0_tiny", {"modality": "S2L2A+DEM", "merge_method": "concat"}),
        ("terramind_1_0_tiny", {"modality": "S2L2A+DEM", "merge_method": "dict", "output": OutputSpec.grid()}),
        ("terramind_1_0_tiny", {"modality": "S2L2A+DEM", "merge_method": "none", "layers": [1, 3]}),
        ("anysat_tiny", {"output": OutputSpec.grid("dense")}),
        ("anysat_tiny", {}),
        ("mosaiks_rcf", {}),
    ],
)
def test_a_model_knows_how_wide_its_answer_will_be(model_id, options):
    place = PointBuffer(lon=12.94, lat=47.77, buffer_m=320)
    call = {"spatial": place, "temporal": YEAR, "backend": FieldProvider()} | knobs(model_id) | options
    plan = plan_embedding(card_of(model_id), **call)
    wide = plan.job.embedder.readout.width(plan.job.output)
    assert get_embedding(card_of(model_id), **call).data.shape[0] == wide


@pytest.mark.parametrize("model_id", each(SMALL))
@pytest.mark.parametrize("output", [OutputSpec.pooled(), OutputSpec.pooled("max"), OutputSpec.grid()])
def test_single_and_batch_give_the_same_numbers_in_order(model_id, output):
    places = [PointBuffer(lon=12.94 + i / 50, lat=47.77, buffer_m=350 + 75 * (i % 2)) for i in range(4)]
    batch = get_embeddings(card_of(model_id), places, YEAR, output, FieldProvider(), **knobs(model_id, output))
    for place, one in zip(places, batch, strict=True):
        single = embed(model_id, spatial=place, output=output)
        np.testing.assert_allclose(one.data, single.data, atol=2e-5)
        assert one.meta.fingerprint == single.meta.fingerprint
        assert one.meta.spatial == repr(place)


@pytest.mark.slow
@pytest.mark.parametrize("model_id", each(SMALL))
def test_equal_requests_have_equal_fingerprints_and_other_requests_others(model_id):
    here = PointBuffer(12.94, 47.77, 160)

    def fingerprint(**options):
        return embed(model_id, **({"spatial": here} | options)).meta.fingerprint

    same = fingerprint()
    assert fingerprint() == same
    others = [
        fingerprint(spatial=PointBuffer(12.94, 47.77, 170)),
        fingerprint(temporal=TemporalSpec.year(2021)),
        fingerprint(output=OutputSpec.grid()),
        fingerprint(output=OutputSpec.pooled("max")),
        fingerprint(precision="bf16"),
        fingerprint(input_prep="crop"),
        fingerprint(backend=FieldProvider(name="other")),
        fingerprint(**TURNED[model_id]),
    ]
    assert len({same, *others}) == len(others) + 1


@pytest.mark.slow
@pytest.mark.parametrize("model_id", each(SMALL))
@pytest.mark.parametrize("prep", ["crop", "tile"])
def test_a_bright_square_moved_by_whole_tokens_moves_the_strongest_change_as_far(model_id, prep):
    patch_m = 320  # two patches of THOR and of TerraMind, four MOSAIKS cells
    place = PointBuffer(12.94, 47.77, 4 * patch_m)

    def with_square(steps: int):
        def field(lon, lat, band):
            rows, cols = np.mgrid[: lon.shape[0], : lon.shape[1]] // (patch_m // 10)
            return np.where((rows == 3 + steps) & (cols == 4), 6000.0, 1000.0)

        return embed(model_id, spatial=place, output=output, input_prep=prep, backend=FieldProvider(field))

    output = LOCAL.get(model_id, OutputSpec.grid())
    flat = embed(
        model_id,
        spatial=place,
        output=output,
        input_prep=prep,
        backend=FieldProvider(lambda lon, lat, band: np.full_like(lon, 1000.0)),
    )
    chip = geobox_for(place).boundingbox
    found = []
    for steps in (0, 1, 2):
        change = np.abs(with_square(steps).data - flat.data).mean(axis=0)
        row, col = np.unravel_index(change.argmax(), change.shape)
        east, north = flat.geobox.affine @ (col + 0.5, row + 0.5)
        found.append((int((chip.top - north) // patch_m), int((east - chip.left) // patch_m)))
    assert found == [(3, 4), (4, 4), (5, 4)]


@pytest.mark.slow
@pytest.mark.parametrize("model_id", each([model_id for model_id in SMALL if model_id not in LOCAL]))
def test_a_north_south_ramp_rises_from_north_to_south_only(model_id):
    def ramp(lon, lat, band):
        rows, _ = np.mgrid[: lon.shape[0], : lon.shape[1]]
        return 500.0 + 10.0 * rows

    def grid_of(field):
        call = {"spatial": PLACE, "output": OutputSpec.grid(), "input_prep": "crop"}
        return embed(model_id, backend=FieldProvider(field), **call).data

    dark, bright = (grid_of(lambda lon, lat, band, dn=dn: np.full_like(lon, dn)) for dn in (500.0, 3370.0))
    # Position codes alone change a grid both ways, so it is asked how far each token went from dark to bright.
    way = bright - dark
    brighter = way.mean(axis=(1, 2))
    share = np.tensordot(brighter, grid_of(ramp) - dark, 1) / np.tensordot(brighter, way, 1)
    along, across = (np.diff(share[1:-1, 1:-1].mean(axis=axis)) for axis in (1, 0))
    assert (along > 0).all()
    assert along.mean() > 3 * np.abs(across).mean()


@pytest.mark.slow
@pytest.mark.parametrize(("model_id", "output"), LOCAL.items())
def test_a_north_south_ramp_is_dark_in_the_north_and_bright_in_the_south(model_id, output):
    def grid_of(field):
        return embed(model_id, spatial=PLACE, output=output, backend=FieldProvider(field)).data

    dark, bright = (grid_of(lambda lon, lat, band, dn=dn: np.full_like(lon, dn)) for dn in (500.0, 3370.0))
    ramp = grid_of(lambda lon, lat, band: np.broadcast_to(np.linspace(500, 3370, len(lon))[:, None], lon.shape))
    to_dark, to_bright = (np.abs(ramp - flat).mean(axis=0) for flat in (dark, bright))
    assert (to_dark < to_bright)[:16].mean() > 0.9
    assert (to_bright < to_dark)[-16:].mean() > 0.9
    west, east = (to_dark < to_bright)[:, :16].mean(), (to_dark < to_bright)[:, -16:].mean()
    assert west == pytest.approx(east, abs=0.05)


@pytest.mark.parametrize("model_id", each(SMALL))
def test_a_brighter_place_has_another_embedding(model_id):
    brighter = embed(model_id, backend=FieldProvider(lambda lon, lat, b: 0.4 * hills(lon, lat, b) + 150)).data
    plain = embed(model_id).data
    assert np.abs(brighter - plain).max() > 1e-3


def pixels(model_id: str) -> np.ndarray:
    """What FieldProvider brings, as an array `[C, H, W]`, or `[T, C, H, W]` of a series."""
    provider = FieldProvider()
    embed(model_id, backend=provider)
    values = provider.fetch(provider.queries[0]).values
    return values if is_series(model_id) else values[0]


@pytest.mark.parametrize("model_id", each(SMALL))
def test_an_array_gives_what_the_same_pixels_from_a_provider_give(model_id):
    from_array = embed(model_id, input_chw=pixels(model_id))
    fed = embed(model_id, modality=card_of(model_id).modalities[0].name)
    np.testing.assert_allclose(from_array.data, fed.data, atol=1e-6)
    assert from_array.meta["inputs"][0].provider != "field"


@pytest.mark.parametrize("model_id", each(SMALL))
def test_pixels_in_another_order_unit_or_count_are_refused(model_id):
    chw = pixels(model_id)
    with pytest.raises(BandMismatch, match="wants|Expected"):
        embed(model_id, input_chw=chw[..., :-1, :, :])
    with pytest.raises(BandMismatch, match="moveaxis"):
        embed(model_id, input_chw=np.moveaxis(chw, -3, -1))
    with pytest.raises(UnitMismatch, match="reflectance"):
        embed(model_id, input_chw=chw / 10_000)
    with pytest.raises(UnitMismatch):
        embed(model_id, input_chw=(chw / 40).astype(np.uint8))
    with pytest.raises(NoValidPixels):
        embed(model_id, input_chw=np.full_like(chw, np.nan))
    with pytest.raises(NoValidPixels):
        embed(model_id, input_chw=np.zeros_like(chw))


@pytest.mark.parametrize("model_id", each(SMALL))
def test_a_band_without_a_value_is_named(model_id):
    chw = pixels(model_id)
    chw[..., 1, :, :] = np.nan
    with pytest.raises(NoValidPixels, match=r"bands: \w+ 100%, \w+ 0%, \w+ 100%"):
        embed(model_id, input_chw=chw)


@pytest.mark.parametrize("model_id", each(SMALL))
def test_nodata_is_counted_filled_and_never_reaches_the_vector(model_id):
    chw = pixels(model_id)
    height = chw.shape[-2]
    chw[..., : height // 4, :] = np.nan
    embedding = embed(model_id, input_chw=chw)
    assert embedding.meta.valid_fraction == pytest.approx(0.75, abs=0.01)
    assert np.isfinite(embedding.data).all()
    with pytest.raises(NoValidPixels, match="75"):
        embed(model_id, input_chw=chw, min_valid_fraction=0.9)
    chw[..., : height * 3 // 4, :] = np.nan
    with pytest.warns(PixelWarning, match="Fewer than half of the pixels"):
        embed(model_id, input_chw=chw)


@pytest.mark.parametrize("model_id", each(SMALL))
def test_the_fill_value_of_the_sensor_is_what_nodata_becomes(model_id):
    card = card_of(model_id)
    sensor = card.modalities[0].sensor
    chw = pixels(model_id)
    chw[..., 20:23, 20:23] = np.nan  # no token lies on it wholly
    filled = np.where(np.isnan(chw), np.float32(1234), chw)
    by_spec = embed(model_id, input_chw=chw, sensor=SensorSpec(sensor.collection, sensor.bands, fill_value=1234))
    # AnySat's windows weigh as much as was seen in them, so its vectors differ a little.
    np.testing.assert_allclose(by_spec.data, embed(model_id, input_chw=filled).data, atol=1e-5)
    assert by_spec.meta.inputs[0].fill_value == 1234


@pytest.mark.parametrize("model_id", each(["thor_1_0_tiny", "terramind_1_0_tiny", "anysat_tiny"]))
def test_bf16_keeps_every_token_of_a_real_chip(model_id):
    place = PointBuffer(lon=12.9394, lat=47.7682, buffer_m=640)
    call = knobs(model_id) | {"backend": "sample", "input_prep": "tile"}
    for output, lowest in ((OutputSpec.grid(), 0.9995), (OutputSpec.pooled(), 0.9999)):
        exact, fast = (
            get_embedding(card_of(model_id), place, output=output, precision=precision, **call)
            for precision in ("fp32", "bf16")
        )
        cosine = torch.cosine_similarity(torch.from_numpy(exact.data), torch.from_numpy(fast.data), dim=0)
        assert lowest < float(cosine.min()) < 1
        assert fast.meta.precision == "bf16"


def test_auto_takes_the_precision_that_the_processor_is_built_for(monkeypatch):
    for quick, expected in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda quick=quick: quick)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
        assert embed("thor_1_0_tiny", precision="auto", device="cpu").meta.precision == expected
    assert embed("thor_1_0_tiny").meta.precision == "fp32"


@pytest.mark.slow
def test_products_are_those_that_were_chosen_and_the_result_says_so(monkeypatch):
    found = {}
    for kernels in ("packed", "torch"):
        monkeypatch.setenv("RS_EMBED_KERNELS", kernels)
        release_models()  # read when a network is loaded
        found[kernels] = embed("thor_1_0_tiny", device="cpu")
        assert found[kernels].meta["kernels"] == kernels
    release_models()
    assert not np.array_equal(found["packed"].data, found["torch"].data)
    np.testing.assert_allclose(found["packed"].data, found["torch"].data, atol=1e-5)
    assert embed("mosaiks_rcf").meta["kernels"] == "torch"


@pytest.mark.slow
def test_no_setting_of_the_process_is_changed():
    def settings():
        return (
            *(torch.get_num_threads(), torch.get_float32_matmul_precision(), torch.get_default_dtype()),
            *(torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_rng_state().tolist()),
            *(torch.backends.mkldnn.flags, torch.are_deterministic_algorithms_enabled(), torch.get_default_device()),
            *(torch.backends.quantized.engine, dict(os.environ), list(warnings.filters)),
        )

    before = settings()
    for model_id in SMALL:
        embed(model_id)
        embed(model_id, precision="bf16")
    assert settings() == before


@pytest.mark.parametrize("model_id", each(IDS))
def test_meta_is_complete_and_survives_json(model_id):
    meta = embed(model_id).meta
    again = type(meta).model_validate(json.loads(meta.model_dump_json()))
    assert again == meta
    promised = (
        "model_key normalization patch_size image_size ground_cover_m pooling cls_removed grid_kind gsd_m "
        "valid_fraction device precision weights versions fingerprint"
    )
    for name in promised.split():
        assert name in meta
    one = meta.inputs[0]
    assert len(one.bands) == len(one.units) > 0
    assert one.scene_ids
    assert one.scene_times[0] == one.frame_times[0] == "2022-01-01T00:00:00+00:00"
    assert len(one.frame_times) == len(one.scenes_per_frame) == one.frames == (2 if is_series(model_id) else 1)
    assert meta["temporal"] == 'TemporalSpec.range("2022-01-01", "2023-01-01")'
    assert (meta["weights_note"] == "random weights: shapes only") == bool(knobs(model_id))


@pytest.mark.parametrize("model_id", each(IDS))
def test_describing_a_model_gives_plain_data_about_everything(model_id):
    facts = describe_model(model_id)
    assert json.loads(json.dumps(facts)) == facts
    assert facts["dim"] == get_card(model_id).dim
    assert facts["licence"]
    assert facts["citation"]
    assert all(knob["effect"] for knob in facts["knobs"])


@pytest.mark.parametrize("model_id", each(SMALL))
@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"grup_merge": "mean"}, KnobError, "known keyword, got 'grup_merge'"),
        ({"patch_size": "many"}, KnobError, "patch_size"),
        ({"input_prep": "squash"}, SpecError, "input_prep to be one of auto"),
        ({"precision": "fp8"}, SpecError, "precision to be one of fp32"),
        ({"modality": "s4"}, SpecError, "no modality 's4'"),
        ({"modality": 4}, SpecError, "name of a modality, got 4"),
        ({"sensor": "S2"}, SpecError, "Expected a SensorSpec"),
        ({"device": None}, DeviceError, "got None"),
        ({"sensor": SensorSpec("COPERNICUS/S1_GRD_FLOAT", ("VV",))}, SpecError, "takes no COPERNICUS/S1_GRD_FLOAT"),
        ({"temporal": "2022"}, SpecError, "Expected a TemporalSpec"),
        ({"output": "grid"}, SpecError, "Expected an OutputSpec"),
        ({"spatial": (1, 2)}, SpecError, "Expected a buffer"),
        ({"device": "cuda:7"}, Exception, "cuda:7"),
        ({"device": "tpu"}, Exception, "tpu"),
    ],
)
def test_a_bad_argument_is_refused_before_anything_is_fetched(model_id, options, error, says):
    provider = FieldProvider()
    with pytest.raises(error) as caught:
        embed(model_id, backend=provider, **options)
    assert says in str(caught.value)
    assert caught.value.fix
    assert provider.queries == []


@pytest.mark.parametrize("model_id", each(PUBLISHED_PREFIX))
def test_random_weights_saved_in_the_published_layout_load_strictly_and_give_the_same(model_id, tmp_path: Path):
    random = embed(model_id)
    plan = plan_embedding(card_of(model_id), PLACE, backend=FieldProvider(), pretrained=False)
    state = plan.job.embedder.network.module.state_dict()
    path = tmp_path / "mine.pt"
    torch.save({f"{PUBLISHED_PREFIX[model_id]}{name}": tensor for name, tensor in state.items()}, path)
    loaded = embed(model_id, ckpt=path, pretrained=True)
    np.testing.assert_array_equal(loaded.data, random.data)
    assert loaded.meta.weights.startswith("ckpt:mine.pt#sha256:")
    assert loaded.meta.weights_note is None
    assert loaded.meta.fingerprint != random.meta.fingerprint


def test_a_checkpoint_that_random_weights_leave_unread_is_warned_of(tmp_path: Path):
    with pytest.warns(ChoiceWarning, match="never.pt' is ignored"):
        embed("thor_1_0_tiny", ckpt=tmp_path / "never.pt")


def test_pixel_centres_of_the_test_field_are_the_grid_s_own():
    lon, lat = pixel_centres(geobox_for(PLACE))
    assert lon.mean() == pytest.approx(12.94, abs=1e-3)
    assert lat[0, 0] > lat[-1, 0]


def test_a_warning_points_at_the_user_s_own_line():
    with pytest.warns(ScaleWarning) as caught:
        embed("thor_1_0_tiny", spatial=PointBuffer(lon=12.94, lat=47.77, buffer_m=2048))
    assert caught[0].filename == __file__
