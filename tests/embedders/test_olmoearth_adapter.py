"""OlmoEarth runs as in its authors' package: bands, dates, missing data, and weights from a file."""

import importlib
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from rs_embed import (
    OutputSpec,
    PointBuffer,
    SensorSpec,
    TemporalSpec,
    get_embedding,
    get_embeddings,
    plan_embedding,
)
from rs_embed.embedders.cards.olmoearth import BAND_SETS, CARDS, FEEDS, MODALITIES, WAVELENGTHS_NM
from rs_embed.embedders.catalog import get_card
from rs_embed.embedders.onthefly_olmoearth import make_module, with_nearest_bands
from rs_embed.errors import InputError, LicenceNotAccepted, SpecError, WeightsMismatch
from rs_embed.testing import FieldProvider, hills

pytestmark = pytest.mark.slow  # the package takes seconds to import

PLACE = PointBuffer(lon=12.94, lat=47.77, buffer_m=160)
SUMMER = TemporalSpec.range("2022-06-01", "2022-09-01")
NANO = {"v1": "olmoearth_1_0_nano", "v1.1": "olmoearth_1_1_nano", "v1.2": "olmoearth_1_2_nano"}
RANDOM = {"pretrained": False}
ACCEPT = {"accept_licence": "olmoearth-artifact"}
DATES = ["2022-06-14", "2022-07-09", "2022-08-23"]
WHEN = [[14, 5, 2022], [9, 6, 2022], [23, 7, 2022]]
SIDE = 32
GRID = OutputSpec.grid()


def package(name: str):
    return importlib.import_module(f"olmoearth_pretrain_minimal.olmoearth_pretrain_v1.{name}")


def pixels(modality: str, frames: int = 3, seed: int = 0) -> np.ndarray:
    """Plausible values of every band, `[T, C, H, W]`."""
    stats = list(next(one for one in MODALITIES if one.name == modality).stats.values())
    noise = np.random.default_rng(seed).uniform(-1, 1, (frames, len(stats), SIDE, SIDE))
    mean, std = (np.array([getattr(one, name) for one in stats])[:, None, None] for name in ("mean", "std"))
    values = mean + 0.5 * std * noise
    return (values if modality == "s1" else np.rint(values.clip(1))).astype(np.float32)


def tokens_of_package(card, given: dict[str, np.ndarray], patch: int, missing: dict[str, np.ndarray] | None = None):
    """The authors' own preparation and encoder: mean over dates and sets, `[D, h, w]`, and over all tokens."""
    constants, datatypes = package("utils.constants"), package("utils.datatypes")
    normalizer = package("data.normalize").Normalizer(model_type=card.version)
    sample, masks = {"timestamps": torch.tensor([WHEN[: len(next(iter(given.values())))]])}, {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for name, values in given.items():
            spec = constants.Modality.get(name)
            scaled = normalizer.normalize(spec, np.moveaxis(values, (0, 1), (2, 3))[None].astype(np.float64))
            sample[name] = torch.from_numpy(scaled).float()
            sets = len(BAND_SETS[card.version][name])
            mask = torch.zeros(*scaled.shape[:4], sets, dtype=torch.long)
            if missing is not None and name in missing:
                mask[torch.from_numpy(missing[name])[None]] = datatypes.MaskValue.MISSING.value
            sample[f"{name}_mask"] = masks[name] = mask
    encoder = make_module(card)
    complete = all(not bool(mask.any()) for mask in masks.values())
    with torch.inference_mode():
        found = encoder(datatypes.MaskedOlmoEarthSample(**sample), patch_size=patch, input_res=10, fast_pass=complete)[
            "tokens_and_masks"
        ]
    sums = counts = 0
    for name, mask in masks.items():
        seen = (mask[:, ::patch, ::patch] == 0).float()[..., None]
        sums = sums + (getattr(found, name) * seen).sum(dim=(3, 4))
        counts = counts + seen.sum(dim=(3, 4))
    grid, vector = sums / counts.clamp(min=1), sums.sum(dim=(1, 2)) / counts.sum(dim=(1, 2))
    return grid[0].movedim(-1, 0).numpy(), vector[0].numpy()


def close(ours: np.ndarray, theirs: np.ndarray) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-5 + 5e-6 * np.abs(theirs).max())


@pytest.mark.parametrize("version", NANO)
@pytest.mark.parametrize(("modality", "patch"), [("s2", 4), ("s2+s1+l8", 8), ("l9", 2)])
def test_tokens_are_those_of_the_authors(version, modality, patch):
    card, given = get_card(NANO[version]), {name: pixels(name) for name in modality.split("+")}
    call = {"modality": modality, "input_chw": given, "dates": dict.fromkeys(given, DATES), "patch_size": patch}
    grid = get_embedding(card.id, output=GRID, **call, **RANDOM)
    vector = get_embedding(card.id, **call, **RANDOM)
    theirs, mean = tokens_of_package(card, {FEEDS[name]: values for name, values in given.items()}, patch)
    close(grid.data, theirs)
    close(vector.data, mean)
    assert grid.meta.patch_size == patch


@pytest.mark.parametrize("version", NANO)
def test_a_missing_band_a_missing_set_and_missing_pixels_are_treated_as_by_the_authors(version):
    card, values = get_card(NANO[version]), pixels("s2")
    names = list(MODALITIES[0].stats)
    own = [name for name in names if name not in ("B1", "B9", "B6")]  # a whole set of version 1.0, and a band
    some = values[:, [names.index(name) for name in own]]
    some[1, :, :8, :8] = np.nan  # nothing there on one date
    some[0, 2, 20:, 20:] = np.nan  # one band
    bands = SensorSpec("COPERNICUS/S2_SR_HARMONIZED", tuple(own), fill_value="nan")
    whole = np.full_like(values, np.nan)
    whole[:, [names.index(name) for name in own]] = some
    sets = BAND_SETS[version]["sentinel2_l2a"]
    seen = np.stack([np.isfinite(whole[:, [names.index(n) for n in one]]).any(axis=1) for one in sets], axis=-1)
    missing = ~np.moveaxis(seen, 0, 2)  # [H, W, T, S]
    grid = get_embedding(card.id, output=GRID, sensor=bands, input_chw=some, dates=DATES, **RANDOM)
    vector = get_embedding(card.id, sensor=bands, input_chw=some, dates=DATES, **RANDOM)
    theirs, mean = tokens_of_package(card, {"sentinel2_l2a": whole}, 4, {"sentinel2_l2a": missing})
    close(grid.data, theirs)
    close(vector.data, mean)


def test_the_nearest_band_stands_in_as_in_the_package():
    fill = package("data.missing_bands").copy_nearest_bands
    for modality in ("s2", "l8"):
        one = next(card for card in MODALITIES if card.name == modality)
        values = pixels(modality, seed=3)
        values[np.random.default_rng(4).random(values.shape) < 0.4] = np.nan
        ours = with_nearest_bands(values, one.sensor.bands, WAVELENGTHS_NM[FEEDS[modality]])
        last = np.moveaxis(values, 1, -1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            theirs, still = fill(FEEDS[modality], last, np.isnan(last))
        np.testing.assert_array_equal(ours, np.moveaxis(np.where(still, np.nan, theirs), -1, 1))


def test_cards_say_what_the_package_says():
    constants, normalize = package("utils.constants"), package("data.normalize")
    numbers = normalize.load_computed_config()
    for modality in MODALITIES:
        spec = constants.Modality.get(FEEDS[modality.name])
        theirs = [name.upper().replace("B0", "B") for name in spec.band_order]
        assert list(modality.sensor.bands) == theirs
        for name, band in zip(spec.band_order, modality.stats.values(), strict=True):
            wanted = numbers[spec.name][name]
            assert (band.mean, band.std) == pytest.approx((wanted["mean"], wanted["std"]), abs=1e-6)
    for card in CARDS:
        with torch.device("meta"):
            module = make_module(card)
        assert sum(one.numel() for one in module.parameters()) / 1e6 == pytest.approx(card.parameters_m, rel=0.01)
        order = {
            name: [[bands[i] for i in one] for one in module.tokenization_config.get_bandset_indices(name)]
            for name in ("sentinel2_l2a", "sentinel1", "landsat")
            for bands in [constants.Modality.get(name).band_order]
        }
        ours = {name: [list(one) for one in sets] for name, sets in BAND_SETS[card.version].items()}
        assert {
            name: [[b.upper().replace("B0", "B") for b in one] for one in sets] for name, sets in order.items()
        } == ours


class Cloudy(FieldProvider):
    """Ground that some squares hide, others at each place."""

    def fetch(self, query):
        chip = super().fetch(query)
        values, number = chip.values.copy(), int(query.geobox.affine.c) // 10
        values[0, :, 4 * (number % 5) :, :12] = np.nan
        return replace(chip, values=values)


@pytest.mark.parametrize("ground", [FieldProvider(hills), Cloudy(hills)], ids=["clear", "cloudy"])
def test_a_batch_is_as_single_calls_also_where_tokens_are_missing(ground):
    places = [PointBuffer(lon=12.94 + i / 50, lat=47.77, buffer_m=160) for i in range(3)]
    call = {"temporal": SUMMER, "backend": ground, **RANDOM}
    many = get_embeddings(NANO["v1.2"], places, progress=False, **call)
    for place, one in zip(places, many, strict=True):
        np.testing.assert_allclose(one.data, get_embedding(NANO["v1.2"], place, **call).data, atol=1e-5)


def test_a_checkpoint_is_loaded_strictly_and_decoders_are_named_as_left_out(tmp_path):
    card = get_card(NANO["v1.1"])
    state = make_module(card).state_dict()
    trained = {name: torch.randn(one.shape, generator=torch.Generator().manual_seed(1)) for name, one in state.items()}
    file = {f"encoder.{name}": one for name, one in trained.items()}
    file |= {f"target_encoder.{name}": one for name, one in state.items()}
    file |= {"decoder.norm.weight": torch.ones(3), "encoder.composite_encodings.pos_embed": torch.ones(1, 12, 32)}
    torch.save(file, tmp_path / "weights.pth")
    call = {"input_chw": pixels("s2"), "dates": DATES, "ckpt": tmp_path / "weights.pth"}
    with pytest.raises(LicenceNotAccepted, match="olmoearth-artifact"):
        get_embedding(card.id, **call)
    found = get_embedding(card.id, **call, **ACCEPT)
    assert "decoder (1)" in found.meta.weights_note
    assert found.meta.accepted_licence == "olmoearth-artifact"
    assert "derivatives pass on both bans" in found.meta.licence
    assert not np.allclose(found.data, get_embedding(card.id, input_chw=pixels("s2"), dates=DATES, **RANDOM).data)
    del file["encoder.norm.weight"]
    torch.save(file, tmp_path / "weights.pth")
    with pytest.raises(WeightsMismatch):
        get_embedding(card.id, **call, **ACCEPT)


def test_a_large_chip_is_cut_into_windows_and_keeps_its_place():
    wide = PointBuffer(lon=12.94, lat=47.77, buffer_m=480)
    found = get_embedding(NANO["v1"], wide, SUMMER, output=GRID, backend=FieldProvider(hills), **RANDOM)
    assert found.meta.windows > 1
    assert found.data.shape == (128, *found.geobox.shape)
    assert abs(found.geobox.resolution.x) == 40


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"modality": "l8+l9"}, SpecError, "Expected one Landsat modality"),
        ({"modality": "s2+s1", "temporal_sampling": "scenes"}, SpecError, "aligned dates"),
        ({"patch_size": 8, "window_patches": 17}, SpecError, "at most 128 px"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_fetched(given, error, said):
    with pytest.raises(error, match=said):
        plan_embedding(NANO["v1"], PLACE, SUMMER, backend=FieldProvider(), **given, **RANDOM)


def test_dates_are_required():
    with pytest.raises(InputError, match="date of each frame"):
        get_embedding(NANO["v1"], input_chw=pixels("s2"), **RANDOM)
