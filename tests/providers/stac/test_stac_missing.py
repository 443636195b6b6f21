"""A scene with a file that is not there, broken or not listed: left out with a word, or an error; never silently."""

import numpy as np
import pytest
from gee_server import default_world
from stac_asking import QUICK, ask, equal, frames_of, scenes_of, stac
from stac_server.flavours import lacks

from rs_embed.core.specs import Series, TemporalSpec
from rs_embed.errors import KnobError, PixelWarning, ReadError, SensorNotOffered, ServiceUnavailable
from rs_embed.providers.common.composite import composite
from rs_embed.providers.common.retry import Backoff, Waits

WORLD = default_world()
QUERY = ask("toulouse", ("B2", "B11"))
DAY = ask("toulouse", ("B4",), TemporalSpec.range("2022-06-12", "2022-06-13"))
STUBBORN = Waits(Backoff(first_s=0.01, longest_s=0.02, tries=4))


def without(query, gone):
    """The median of all scenes but one."""
    kept = [
        frame for scene, frame in zip(scenes_of(WORLD, query), frames_of(WORLD, query), strict=True) if scene != gone
    ]
    return composite(kept, "median")


@pytest.mark.parametrize("fault", [{"status": 404}, {"status": 410}, {"kind": "corrupt"}], ids=["404", "410", "broken"])
def test_a_scene_without_a_readable_file_is_left_out_of_a_composite_with_a_word(stac_server, fault):
    gone = scenes_of(WORLD, QUERY)[1]
    site = stac_server.site("earth-search", applied=True)
    site.fail(path=f"{gone.index}/B11", **fault)
    provider = stac(site)
    with pytest.warns(PixelWarning, match=f"Left out scene {gone.index}, asset swir16"):
        chip = provider.fetch(QUERY)
    equal(chip, without(QUERY, gone))
    assert gone.index not in chip.source.scene_ids
    assert chip.source.scenes_per_frame == (len(chip.source.scene_ids),)
    assert any(note.startswith(f"Left out scene {gone.index}, asset swir16") for note in chip.source.notes)
    assert chip.source.clear_observations == pytest.approx(len(scenes_of(WORLD, QUERY)) - 1, abs=0.5)


@pytest.mark.slow
def test_a_scene_that_is_left_out_makes_room_for_another(stac_server):
    query = ask("toulouse", ("B4",), TemporalSpec.range("2022-04-01", "2022-09-01"), cloudy_pct=60)
    site = stac_server.site("earth-search", applied=True)
    gone = min(scenes_of(WORLD, query), key=lambda scene: scene.cloud_pct)
    site.fail(path=gone.index, status=404)
    with pytest.warns(PixelWarning, match=gone.index):
        chip = stac(site, max_scenes=3).fetch(query)
    whole = stac(stac_server.site("earth-search", applied=True), max_scenes=3).fetch(query)
    assert len(chip.source.scene_ids) >= len(whole.source.scene_ids)
    assert gone.index in whole.source.scene_ids and gone.index not in chip.source.scene_ids
    assert any("passes with more cloud were not read" in note for note in chip.source.notes)


def test_where_one_scene_is_wanted_the_next_best_is_taken_and_the_choice_is_told(stac_server):
    site = stac_server.site("earth-search", applied=True)
    query = ask("toulouse", ("B2", "B11"), composite="first")
    (best,) = stac(site).fetch(query).source.scene_ids
    site = stac_server.site("earth-search", applied=True)
    site.fail(path=f"{best}/B11", status=404)
    with pytest.warns(PixelWarning, match=best):
        chip = stac(site).fetch(query)
    assert len(chip.source.scene_ids) == 1 and chip.source.scene_ids != (best,)
    assert any(best in note for note in chip.source.notes)
    assert np.isfinite(chip.values).all()


def test_a_frame_of_a_series_without_its_scene_is_left_out_with_a_word(stac_server):
    query = ask("toulouse", ("B4",), series=Series(3, "scenes"), cloudy_pct=80)
    first = stac(stac_server.site("earth-search", applied=True)).fetch(query).source.scene_ids[0]
    site = stac_server.site("earth-search", applied=True)
    site.fail(path=first, status=404)
    with pytest.warns(PixelWarning, match=first):
        chip = stac(site).fetch(query)
    assert first not in chip.source.scene_ids and len(chip.times) == len(chip.source.scenes_per_frame)


def test_the_only_scene_is_an_error_that_names_it(stac_server):
    site = stac_server.site("earth-search", applied=True)
    site.fail(status=404)
    with pytest.raises(ReadError, match=r"got no such file \(404\)") as caught:
        stac(site).fetch(DAY)
    assert caught.value.facts["scene"] == scenes_of(WORLD, DAY)[0].index
    assert caught.value.facts["asset"] == "red"


def test_who_wants_an_error_gets_one_that_names_scene_asset_and_status(stac_server):
    gone = scenes_of(WORLD, QUERY)[1]
    site = stac_server.site("earth-search", applied=True)
    site.fail(path=f"{gone.index}/B11", status=404)
    with pytest.raises(ReadError, match="404") as caught:
        stac(site, on_missing="raise").fetch(QUERY)
    assert caught.value.facts["scene"] == gone.index and caught.value.facts["asset"] == "swir16"
    assert "on_missing=raise" in stac(site, on_missing="raise").identity()
    with pytest.raises(KnobError, match="on_missing"):
        stac(site, on_missing="ignore")


@pytest.mark.parametrize("fault", [{"status": 503}, {"kind": "reset"}], ids=["503", "reset"])
def test_a_service_that_does_not_answer_is_an_error_and_no_scene_is_left_out_for_it(stac_server, fault):
    gone = scenes_of(WORLD, QUERY)[1]
    site = stac_server.site("earth-search", applied=True)
    site.fail(path=gone.index, routes=("head", "range", "whole"), **fault)
    with pytest.raises(ServiceUnavailable):
        stac(site, waits=STUBBORN).fetch(QUERY)


def test_scenes_that_do_not_list_a_file_are_told_of(stac_server):
    site = stac_server.site("earth-search", applied=True, lacking={"swir16": 2})
    scenes = scenes_of(WORLD, QUERY)
    lacking = [scene for scene in scenes if lacks(scene, 2)]
    assert 0 < len(lacking) < len(scenes)
    chip = stac(site).fetch(QUERY)
    (note,) = [note for note in chip.source.notes if "without the files swir16" in note]
    assert note.startswith(f"Left out {len(lacking)} scenes (") and all(scene.index in note for scene in lacking[:5])
    assert not {scene.index for scene in lacking} & set(chip.source.scene_ids)
    with pytest.raises(ReadError, match="without swir16"):
        stac(site, on_missing="raise").fetch(QUERY)


def test_scenes_that_do_not_tell_their_cloud_are_told_of(stac_server):
    site = stac_server.site("earth-search", applied=True, lacking={"eo:cloud_cover": 2})
    chip = stac(site).fetch(QUERY)
    assert any(note.endswith("no eo:cloud_cover is told.") for note in chip.source.notes)


def test_a_band_that_the_files_of_one_year_lack_leaves_those_out(stac_server):
    from dataclasses import replace

    from rs_embed import StacCollection

    site = stac_server.site("planetary-computer")
    held = StacCollection("naip", {"N": "image:7"})
    site.catalog = replace(site.catalog, mapping={"USDA/NAIP/DOQQ": held})
    query = ask("iowa", ("N",), TemporalSpec.year(2021), collection="USDA/NAIP/DOQQ", scale_m=1, side_m=60)
    with pytest.raises(SensorNotOffered, match="Expected band 7"):  # all of them: no scene is left
        stac(site, waits=QUICK).fetch(query)
