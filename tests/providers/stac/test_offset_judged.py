"""DN from which an offset was taken that was not in them; and real scenes, from which it was rightly taken."""

import numpy as np
import pytest
import rasterio
from asking import ask
from shared_data import terramesh

from rs_embed.embedders.cards.thor import S2_BANDS_12 as L2A
from rs_embed.errors import PixelWarning, UnitMismatch
from rs_embed.providers.arrays import ArrayProvider
from rs_embed.providers.common.sentinel2 import judge_offset
from rs_embed.providers.rasters.local import LocalRasters, Raster
from rs_embed.providers.sample import _RASTERS, SampleScene

SAMPLE = next(iter(_RASTERS.values())).path
SCENES = "38D_378R_2_3", "433D_629L_3_1"
"""TerraMesh: DN from 0, and DN with the +1000 still in."""


def pixels(path):
    with rasterio.open(path) as file:
        return file.read().astype(np.float32)


def test_an_offset_that_was_not_in_the_file_is_refused():
    with pytest.raises(UnitMismatch, match=r"medians under -200 in 4 of 12 bands") as caught:
        LocalRasters(SAMPLE, offset=-1000).fetch(ask(L2A))
    assert "leave offset out" in str(caught.value)


def test_an_offset_that_was_not_in_the_array_is_refused():
    with pytest.raises(UnitMismatch, match="an offset was subtracted that was not in them"):
        ArrayProvider({"M": pixels(SAMPLE) - 1000}).fetch(ask(L2A))


def test_an_offset_in_the_header_of_the_file_is_judged_alike(make_raster, rng):
    stored = rng.integers(100, 700, (3, 40, 40)).astype(np.uint16)
    path = make_raster(stored, bands=("B4", "B3", "B2"), scales=(1e-4,) * 3, offsets=(-0.1,) * 3)
    with pytest.raises(UnitMismatch, match="3 of 3 bands"):
        LocalRasters(path).fetch(ask())


def test_of_several_dates_the_one_that_had_no_offset_is_named(make_raster, rng):
    old = make_raster(rng.integers(100, 700, (3, 40, 40)).astype(np.uint16), "old.tif", bands=("B4", "B3", "B2"))
    new = make_raster(rng.integers(1100, 1700, (3, 40, 40)).astype(np.uint16), "new.tif", bands=("B4", "B3", "B2"))
    with pytest.raises(UnitMismatch, match="where: +old"):
        LocalRasters([new, old], offset=-1000).fetch(ask())
    told = LocalRasters([new, Raster(old, offset=0)], offset=-1000).fetch(ask())
    assert told.values.min() >= 100


def test_a_chip_that_is_only_partly_too_dark_is_warned_of():
    values = np.full((3, 40, 40), 900, np.float32)
    values[1, :10] = -600
    with pytest.warns(PixelWarning, match="25% of the DN of a band lie under -200"):
        assert len(judge_offset(values, "here", fix="offset=0")) == 1


def test_dark_water_and_shadow_after_the_right_offset_pass_in_silence(rng):
    water = rng.normal(0, 40, (12, 64, 64)).astype(np.float32)  # every band: glint and noise around reflectance 0
    water[0, :3] = -350  # 5 % of a band: deep shadow
    assert judge_offset(water, "here", fix="offset=0") == ()


@pytest.mark.parametrize("side", [8, 16, 56])
@pytest.mark.parametrize(("scene", "offset"), [(SCENES[0], 0.0), (SCENES[1], -1000.0)])
def test_no_real_chip_from_which_the_right_offset_was_taken_is_suspected(scene, offset, side):
    for kind in ("S2L2A", "S2L1C"):
        path = next(path for path in terramesh(kind) if path.stem == scene)
        values = pixels(path) + offset
        for row in range(0, 224, side):
            for col in range(0, 224, side):
                assert judge_offset(values[:, row : row + side, col : col + side], "here", fix="") == ()


def test_no_chip_of_the_sample_is_suspected():
    values = SampleScene().fetch(ask(L2A)).values[0]
    for row in range(0, 360, 8):
        for col in range(0, 240, 8):
            assert judge_offset(values[:, row : row + 8, col : col + 8], "here", fix="") == ()
