"""Prithvi-EO-2.0 in a call: what the network is told, one image or a series, Sentinel-2 or Landsat."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from impulse import assert_that_the_cell_on_it_answers, unmix
from seeded import values
from tiny import shrunken

from rs_embed import OutputSpec, PointBuffer, TemporalSpec, get_embedding, get_embeddings, plan_embedding
from rs_embed.embedders.catalog import get_card
from rs_embed.errors import SpecError, WeightsMismatch
from rs_embed.testing import FieldProvider, hills, pixel_centres

PLACE = PointBuffer(lon=12.94, lat=47.77, buffer_m=960)
SUMMER = TemporalSpec.range("2022-06-01", "2022-09-01")
CARD = replace(shrunken("prithvi_eo_2_0_100_tl", dim=64, depth=2, heads=2), id="prithvi_small")
SERIES = {"modality": "s2_series", "frames": 3}


def embed(card=CARD, **options):
    call = {"spatial": PLACE, "temporal": SUMMER, "backend": FieldProvider(), "pretrained": "ckpt" in options}
    call |= options
    if "input_chw" in call:
        del call["backend"]
        call.pop("temporal")
    return get_embedding(card, **call)


def fed(**options) -> tuple[FieldProvider, dict[str, torch.Tensor]]:
    """What the network gets of the first window."""
    provider, caught = FieldProvider(), []
    plan = plan_embedding(CARD, PLACE, SUMMER, backend=provider, pretrained=False, **options)
    hook = plan.job.embedder.network.module.register_forward_pre_hook(
        lambda module, given, named: caught.append(named), with_kwargs=True
    )
    (_,) = plan.run()
    hook.remove()
    return provider, caught[0]


def test_an_image_is_standardised_and_told_year_day_latitude_and_longitude():
    provider, given = fed()
    chip = provider.fetch(provider.queries[0])
    mean, std = (np.array(one)[:, None, None] for one in ([1087.0, 1342.0], [2248.0, 2179.0]))
    padded = given["frames"][0, 0, :2, :64, :64].numpy()
    np.testing.assert_allclose(padded, (chip.values[0][:2] - mean) / std, atol=1e-5)
    assert given["dates"].tolist() == [[[2022.0, 152.0]]]
    lon, lat = (float(np.median(degrees)) for degrees in pixel_centres(chip.geobox))
    np.testing.assert_allclose(given["place"], [[lat, lon]], atol=1e-3)
    assert set(fed(metadata=False)[1]) == {"frames", "layers"}


def test_a_series_has_a_frame_and_a_date_for_each_part_of_the_window():
    _, given = fed(**SERIES)
    assert given["frames"].shape == (1, 3, 6, 64, 64)
    days = given["dates"][0, :, 1].tolist()
    assert given["dates"].shape == (1, 3, 2) and days == sorted(days) and len(set(days)) == 3


def test_a_grid_of_a_series_is_the_mean_of_the_grids_of_its_frames():
    grid, vector = embed(**SERIES, output=OutputSpec.grid()), embed(**SERIES)
    assert grid.data.shape == (64, 4, 4)
    np.testing.assert_allclose(vector.data, grid.data.mean(axis=(1, 2)), atol=1e-5)
    single = embed(output=OutputSpec.grid())
    assert np.abs(grid.data - single.data).max() > 1e-3
    assert grid.meta.inputs[0].frame_times != single.meta.inputs[0].frame_times


def test_knobs_of_a_series_are_no_part_of_the_fingerprint_of_an_image():
    same = {embed(**options).meta.fingerprint for options in ({}, {"frames": 2}, {"temporal_sampling": "scenes"})}
    assert len(same) == 1
    assert len({embed(modality="s2_series", frames=frames).meta.fingerprint for frames in (1, 2)}) == 2


def test_models_of_one_frame_or_without_date_have_what_they_were_trained_with():
    assert not any(modality.is_series for modality in get_card("prithvi_eo_2_0_tiny_tl").modalities)
    untold = replace(shrunken("prithvi_eo_2_0_300", dim=64, depth=2, heads=2), id="prithvi_untold")
    january = TemporalSpec.range("2021-01-10", "2021-02-01")
    np.testing.assert_array_equal(embed(untold).data, embed(untold, temporal=january).data)
    assert np.abs(embed().data - embed(temporal=january).data).max() > 1e-5


def test_an_array_without_date_and_place_is_taken_without_them():
    provider = FieldProvider()
    untold = embed(backend=provider, metadata=False).data
    alone = embed(input_chw=provider.fetch(provider.queries[0]).values[0], spatial=None)
    np.testing.assert_allclose(alone.data, untold, atol=2e-5)


def test_landsat_reflectances_are_taken_as_the_numbers_of_the_training():
    dn = embed(backend=FieldProvider(lambda lon, lat, band: hills(lon, lat, "x")))
    share = FieldProvider(lambda lon, lat, band: hills(lon, lat, "x") / 10_000)
    for name in ("l8", "l9"):
        np.testing.assert_allclose(embed(backend=share, modality=name).data, dn.data, atol=1e-4)


def test_several_modalities_are_refused():
    with pytest.raises(SpecError, match=r"Expected one modality for prithvi_small, got s2 \+ l8"):
        embed(modality="s2+l8")


@pytest.mark.parametrize("patch", [16, 14])
def test_a_bright_pixel_answers_in_its_cell(patch):
    name = "prithvi_eo_2_0_600" if patch == 14 else "prithvi_eo_2_0_tiny_tl"
    card = replace(shrunken(name, dim=64, depth=2, heads=2), id=f"prithvi_impulse_{patch}")
    unmix(card)
    assert_that_the_cell_on_it_answers(card, 224, [(patch - 1, patch), (223, 222)])


def published(path, **changed):
    """A file as the authors save it: the encoder beside a decoder, with positions of four frames."""
    from rs_embed.encoders.prithvi import PrithviEncoder

    names = PrithviEncoder(**CARD.arch).state_dict()
    state = {f"encoder.{name}": values(name, tensor.shape) for name, tensor in names.items()}
    state |= {"encoder.pos_embed": torch.zeros(1, 785, 64), "decoder.mask_token": torch.zeros(1, 1, 8)}
    state |= {"decoder.decoder_blocks.0.norm1.weight": torch.ones(8)}
    torch.save({changed.get(name, name): tensor for name, tensor in state.items()}, path)
    return path


def test_the_encoder_of_a_published_file_is_loaded_strictly(tmp_path):
    told = embed(ckpt=published(tmp_path / "prithvi.pt"))
    assert "decoder" in told.meta["weights_note"] and np.isfinite(told.data).all()
    other = published(tmp_path / "other.pt", **{"encoder.blocks.1.norm1.weight": "encoder.blocks.2.norm1.weight"})
    with pytest.raises(WeightsMismatch, match="1 tensors missing, 1 unexpected"):
        embed(ckpt=other)


def test_single_and_batch_give_the_same_numbers_where_places_differ_in_size():
    places = [PointBuffer(lon=12.94 + i / 10, lat=47.77, buffer_m=700 + 500 * i) for i in range(2)]
    call = {"pretrained": False, **SERIES}
    grids = get_embeddings(CARD, places, SUMMER, OutputSpec.grid(), FieldProvider(), **call)
    for place, grid in zip(places, grids, strict=True):
        np.testing.assert_allclose(grid.data, embed(spatial=place, output=OutputSpec.grid(), **SERIES).data, atol=2e-5)


def test_half_precision_keeps_the_date():
    full, half = (embed(precision=precision).data for precision in ("fp32", "bf16"))
    assert np.corrcoef(full, half)[0, 1] > 0.999
