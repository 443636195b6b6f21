"""The Sentinel-2 offset: each row of the table, and what the pixels say against it."""

from dataclasses import replace

import numpy as np
import pytest
from gee_server import default_world
from stac_asking import S2, ask, equal, expected, stac

from rs_embed.core.specs import TemporalSpec
from rs_embed.errors import PixelWarning, ReadError, UnitMismatch

pytestmark = pytest.mark.slow

WORLD = default_world()
QUERY = ask("toulouse", ("B2", "B4", "B11"))
JANUARY = ask("toulouse", ("B2", "B4", "B11"), TemporalSpec.range("2022-01-03", "2022-01-24"), cloudy_pct=100)


@pytest.mark.parametrize(
    ("preset", "quirks", "query", "offset"),
    [
        ("earth-search", {"applied": True}, QUERY, 0.0),
        ("earth-search", {"applied": False}, QUERY, -1000.0),
        ("earth-search", {}, QUERY, -1000.0),
        ("earth-search", {"raster_bands": False}, QUERY, -1000.0),
        ("earth-search", {}, JANUARY, 0.0),
        ("earth-search", {"baseline": "05.00"}, JANUARY, -1000.0),
        ("c1", {"baseline": "05.09"}, QUERY, -1000.0),
        ("c1", {}, JANUARY, -1000.0),
        ("planetary-computer", {}, QUERY, -1000.0),
        ("planetary-computer", {}, JANUARY, 0.0),
        ("planetary-computer", {"baseline": "05.10"}, JANUARY, -1000.0),
    ],
)
def test_every_row_of_the_table_gives_the_same_reflectance(stac_server, preset, quirks, query, offset):
    chip = stac(stac_server.site(preset, **quirks)).fetch(query)
    equal(chip, expected(WORLD, query))
    assert chip.source.offset_applied == offset
    assert any(note.startswith(f"Offset {offset:+g} DN") for note in chip.source.notes)


def test_scenes_of_both_kinds_in_one_window_are_harmonised_one_by_one(stac_server):
    query = ask("toulouse", ("B4",), TemporalSpec.range("2022-01-03", "2022-02-28"), cloudy_pct=100)
    chip = stac(stac_server.site("planetary-computer")).fetch(query)
    equal(chip, expected(WORLD, query))
    assert chip.source.offset_applied is None
    assert sum("Offset" in note for note in chip.source.notes) == 2


def test_stored_zero_is_nodata_before_the_offset(stac_server):
    query = ask("toulouse", ("B4",), TemporalSpec.range("2022-03-01", "2022-06-01"), cloudy_pct=100, composite="mean")
    chip = stac(stac_server.site("planetary-computer"), max_scenes=1000).fetch(query)
    assert chip.values.min() > 0  # swath edges would be -1000
    np.testing.assert_allclose(chip.values[0], expected(WORLD, query), rtol=1e-6)


def test_pixels_that_speak_against_the_metadata_are_warned_of_once(stac_server):
    site = stac_server.site("planetary-computer", stored_offset=0)
    provider = stac(site)
    with pytest.warns(PixelWarning, match=r"under 1000.*Stac\(offset=0\)"):
        chip = provider.fetch(QUERY)
    assert any("as if ESA's offset were not in" in note for note in chip.source.notes)
    provider.fetch(QUERY)  # said once
    equal(stac(site, offset=0).fetch(QUERY), expected(WORLD, QUERY))


def test_a_flag_that_is_wrong_is_warned_of_and_can_be_overruled(stac_server):
    site = stac_server.site("earth-search", applied=True, stored_offset=1000)
    with pytest.warns(PixelWarning, match=r"no band goes under 1\d\d\d DN.*Stac\(offset=-1000\)"):
        stac(site).fetch(QUERY)
    chip = stac(site, offset=-1000).fetch(QUERY)
    equal(chip, expected(WORLD, QUERY))
    assert any("as said by Stac(offset=...)" in note for note in chip.source.notes)


def test_an_item_without_a_baseline_is_not_guessed(stac_server):
    site = stac_server.site("planetary-computer", baseline="unknown")
    with pytest.raises(ReadError, match="processing_baseline") as caught:
        stac(site).fetch(QUERY)
    assert "Stac(offset=-1000)" in caught.value.fix


def test_a_catalogue_whose_items_say_that_the_offset_was_taken_out_is_believed_whatever_its_rule(stac_server):
    site = stac_server.site("earth-search", applied=True)
    rule = replace(site.catalog.mapping[S2], offset="baseline")
    site.catalog = replace(site.catalog, mapping={S2: rule})
    chip = stac(site).fetch(QUERY)
    equal(chip, expected(WORLD, QUERY))
    assert chip.source.offset_applied == 0.0


@pytest.mark.parametrize("settings", [{}, {"offset": -1000}], ids=["baseline", "of the user"])
def test_an_offset_that_certainly_was_not_in_the_pixels_is_refused(stac_server, settings):
    site = stac_server.site("planetary-computer", stored_offset=-1900)  # dark ground, and the offset taken out
    with pytest.raises(UnitMismatch, match="an offset was subtracted that was not in them") as caught:
        stac(site, **settings).fetch(QUERY)
    assert "Stac(offset=0)" in caught.value.fix
