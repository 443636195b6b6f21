"""A provider is not believed: what it brings is what was asked for, or an error that says in what it is not."""

from dataclasses import replace

import numpy as np
import pytest

from rs_embed import PointBuffer, get_embedding, get_embeddings, inspect_chip
from rs_embed.core.bands import Unit
from rs_embed.core.chip import Chip
from rs_embed.errors import BandMismatch, BatchError, InputError, NoValidPixels, UnitMismatch
from rs_embed.testing import FieldProvider

PLACE = PointBuffer(lon=12.9, lat=47.8, buffer_m=320)


def moved(geobox, by_px):
    return geobox.translate_pix(by_px, 0)


class Hostile(FieldProvider):
    """Brings what `spoil` makes of a chip."""

    def __init__(self, spoil):
        super().__init__(name="hostile")
        self.spoil = spoil

    def fetch(self, query):
        return self.spoil(super().fetch(query))


def with_inf(value):
    def spoil(chip):
        values = chip.values.copy()
        values[0, 1, 3, 4] = value
        return replace(chip, values=values)

    return spoil


def regridded(change):
    return lambda chip: replace(chip, geobox=change(chip.geobox))


LIES = {
    "nothing": (lambda chip: None, InputError, "Expected a Chip .*'hostile', got NoneType"),
    "a list": (lambda chip: [chip], InputError, "got list"),
    "an array": (lambda chip: chip.values, InputError, "got ndarray"),
    "float64": (lambda chip: replace(chip, values=chip.values.astype(float)), InputError, "got float64"),
    "integers": (lambda chip: replace(chip, values=chip.values.astype(np.int16)), InputError, "got int16"),
    "three axes": (lambda chip: replace(chip, values=chip.values[0]), InputError, r"\[T, C, H, W\], got float32"),
    "a list of pixels": (lambda chip: replace(chip, values=chip.values.tolist()), InputError, "got list"),
    "a band less": (lambda chip: chip.select(chip.band_names[:-1]), BandMismatch, "Expected bands B1, "),
    "another order": (lambda chip: chip.select(chip.band_names[::-1]), BandMismatch, "Expected bands B1, "),
    "another unit": (
        lambda chip: replace(chip, bands=(replace(chip.bands[0], unit=Unit.REFLECTANCE), *chip.bands[1:])),
        UnitMismatch,
        "Expected B1 in",
    ),
    "no place": (regridded(lambda geobox: None), InputError, "got:.*no grid"),
    "another place": (regridded(lambda geobox: moved(geobox, 1)), InputError, "on the requested grid"),
    "half a pixel off": (regridded(lambda geobox: moved(geobox, 0.5)), InputError, "on the requested grid"),
    "another zone": (
        regridded(lambda geobox: type(geobox)(geobox.shape, geobox.affine, "EPSG:32632")),
        InputError,
        "EPSG:32632",
    ),
    "other pixels": (regridded(lambda geobox: geobox.zoom_to(resolution=20).expand(geobox.shape)), InputError, "grid"),
    "two frames": (
        lambda chip: replace(chip, values=np.repeat(chip.values, 2, axis=0), times=chip.times * 2),
        InputError,
        "Expected one frame",
    ),
    "no frame": (lambda chip: replace(chip, values=chip.values[:0], times=()), InputError, "Expected one frame"),
    "infinity": (with_inf(np.inf), InputError, "infinite pixels: B2 1"),
    "minus infinity": (with_inf(-np.inf), InputError, "infinite pixels: B2 1"),
}


@pytest.mark.parametrize("lie", LIES)
def test_what_a_provider_brings_beside_the_question_is_refused_and_named(lie):
    spoil, kind, said = LIES[lie]
    with pytest.raises(kind, match=f"(?s){said}") as caught:
        get_embedding("mosaiks_rcf", PLACE, backend=Hostile(spoil))
    assert caught.value.fix
    with pytest.raises(kind):
        inspect_chip("mosaiks_rcf", PLACE, backend=Hostile(spoil))


def test_one_bad_chip_fails_its_own_row_and_no_other():
    places = [PLACE, replace(PLACE, lon=13.0)]
    bad = []

    def spoil(chip):
        bad.append(chip.geobox)
        return with_inf(np.inf)(chip) if len(bad) == 1 else chip

    with pytest.raises(BatchError) as caught:
        get_embeddings("mosaiks_rcf", places, backend=Hostile(spoil), progress=False)
    (failure,) = caught.value.failures
    assert failure.stage == "fetch" and isinstance(failure.error, InputError)
    assert sum(one is not None for one in caught.value.embeddings) == 1


def test_nodata_is_no_lie_and_neither_is_a_grid_that_differs_by_rounding():
    honest = get_embedding("mosaiks_rcf", PLACE, backend=FieldProvider(name="hostile")).data

    def rounded(chip):
        a, b, c, d, e, f = tuple(chip.geobox.affine)[:6]
        affine = type(chip.geobox.affine)(a, b, c + 1e-9, d, e, f)
        return replace(chip, geobox=type(chip.geobox)(chip.geobox.shape, affine, chip.geobox.crs))

    np.testing.assert_array_equal(get_embedding("mosaiks_rcf", PLACE, backend=Hostile(rounded)).data, honest)
    with pytest.raises(NoValidPixels):
        get_embedding(
            "mosaiks_rcf", PLACE, backend=Hostile(lambda chip: replace(chip, values=chip.values * np.float32(np.nan)))
        )


def test_checking_leaves_the_chip_itself():
    found = []

    def seen(chip):
        found.append(chip)
        return chip

    report = inspect_chip("mosaiks_rcf", PLACE, backend=Hostile(seen))
    assert next(iter(report.chips.values())) is found[0]
    assert isinstance(found[0], Chip)
