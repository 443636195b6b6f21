"""Each sensor of each preset, in the unit of the shared vocabulary."""

import numpy as np
import pytest
from earth import S1_FLOAT
from gee_server import default_world
from stac_asking import SUMMER, ask, expected, frames_of, scenes_of, stac

from rs_embed import StacCatalog, StacCollection
from rs_embed.core.specs import SensorSpec, TemporalSpec
from rs_embed.errors import NoImagery, OutsideCoverage, SensorNotOffered, SpecError
from rs_embed.providers.common.composite import composite

WORLD = default_world()
RTC, DEM = "COPERNICUS/S1_RTC", "COPERNICUS/DEM/GLO30"


@pytest.mark.parametrize("orbit", [None, "ASCENDING"])
def test_radar_is_averaged_as_power_and_given_in_decibels(stac_server, orbit):
    chip = stac(stac_server.site("planetary-computer")).fetch(
        ask("toulouse", ("VV", "VH"), collection=RTC, orbit_pass=orbit)
    )
    twin = ask("toulouse", ("VV", "VH"), collection=S1_FLOAT, orbit_pass=orbit)
    power = composite(frames_of(WORLD, twin), "median")
    np.testing.assert_allclose(chip.values[0], 10 * np.log10(power), rtol=1e-5)
    notes = " ".join(chip.source.notes)
    assert "gamma0" in notes and "linear power" in notes
    assert ("mixed" in notes) == (orbit is None)
    assert len(chip.source.scene_ids) == len(scenes_of(WORLD, twin))


@pytest.mark.parametrize(("preset", "place"), [("earth-search", "toulouse"), ("planetary-computer", "south")])
def test_heights_are_interpolated_between_their_pixels(stac_server, preset, place):
    query = ask(place, ("DEM",), None, collection=DEM)
    chip = stac(stac_server.site(preset)).fetch(query)
    scene = next(s for s in WORLD.scenes if s.collection == DEM and np.isfinite(_heights(s, query)).all())
    np.testing.assert_allclose(chip.values[0, 0], _heights(scene, query), rtol=1e-3, atol=0.5)
    assert chip.times == (None,) and chip.source.scene_times == ()


def test_heights_have_no_seam_where_four_tiles_meet(stac_server):
    chip = stac(stac_server.site("planetary-computer")).fetch(ask("far_north", ("DEM",), None, collection=DEM))
    assert np.isfinite(chip.values).all() and len(chip.source.scene_ids) == 4


def _heights(scene, query):
    """Bilinear, worked out from the four native pixels around each centre."""
    from earth import centres

    x, y = centres(query.geobox, scene.crs)
    col, row = (x - scene.left) * 3600 - 0.5, (scene.top - y) * 3600 - 0.5
    left, top = np.floor(col), np.floor(row)
    total = 0.0
    for down in (0, 1):
        for right in (0, 1):
            weight = abs(1 - right - (col - left)) * abs(1 - down - (row - top))
            px, py = scene.left + (left + right + 0.5) / 3600, scene.top - (top + down + 0.5) / 3600
            total = total + weight * scene.pixels("DEM", px, py)
    return total


def test_landsat_is_reflectance_and_kelvin_of_the_satellite_asked_for(stac_server):
    for collection, day in (("LANDSAT/LC08/C02/T1_L2", "LC08"), ("LANDSAT/LC09/C02/T1_L2", "LC09")):
        query = ask("toulouse", ("SR_B4", "ST_B10"), collection=collection, scale_m=30, cloudy_pct=90)
        chip = stac(stac_server.site("planetary-computer")).fetch(query)
        dn = expected(WORLD, query)
        np.testing.assert_allclose(chip.values[0, 0], dn[0] * 2.75e-5 - 0.2, atol=1e-5)
        np.testing.assert_allclose(chip.values[0, 1], dn[1] * 0.00341802 + 149, atol=1e-2)
        assert all(day in index for index in chip.source.scene_ids)


@pytest.mark.slow
def test_photographs_have_their_bands_in_one_file(stac_server):
    query = ask("iowa", ("N", "R"), TemporalSpec.range("2021-01-01", "2022-01-01"), collection="USDA/NAIP/DOQQ",
                scale_m=1, side_m=60)  # fmt: skip
    site = stac_server.site("planetary-computer")
    chip = stac(site).fetch(query)
    np.testing.assert_array_equal(chip.values[0], expected(WORLD, query))
    assert len({one["path"] for one in site.log if one["route"] == "range"}) == 1


@pytest.mark.slow
def test_a_band_that_a_file_lacks_is_named(stac_server):
    from dataclasses import replace

    site = stac_server.site("planetary-computer")
    held = StacCollection("naip", {"R": "image:1", "N": "image:7"})
    site.catalog = replace(site.catalog, mapping={"USDA/NAIP/DOQQ": held})
    query = ask("iowa", ("N",), TemporalSpec.year(2021), collection="USDA/NAIP/DOQQ", scale_m=1, side_m=60)
    with pytest.raises(SensorNotOffered, match="Expected band 7 .* got 4"):
        stac(site).fetch(query)


@pytest.mark.slow
@pytest.mark.parametrize("version", ["v100", "v200"])
def test_classes_are_never_mixed_and_versions_not_confused(stac_server, version):
    collection = f"ESA/WorldCover/{version}"
    query = ask("toulouse", ("Map",), SUMMER, collection=collection)
    chip = stac(stac_server.site("planetary-computer")).fetch(query)
    (scene,) = (s for s in WORLD.scenes if s.collection == collection)
    from earth import pixels_of

    np.testing.assert_array_equal(chip.values[0], pixels_of(scene, ["Map"], query.geobox))
    assert "one state of the Earth" in " ".join(chip.source.notes)


def test_a_catalogue_of_ones_own_is_described_in_a_few_lines(stac_server):
    url = stac_server.site("earth-search", applied=True).catalog.url
    held = StacCollection("sentinel-2-l2a", {"B4": "red"}, offset="earth-search", nodata=0)
    from stac_asking import QUICK

    from rs_embed import Stac

    query = ask("toulouse", ("B4",), cloudy_pct=0)  # no cloud property: every scene counts
    catalog = StacCatalog(url, mapping={"COPERNICUS/S2_SR_HARMONIZED": held})
    chip = Stac(catalog, waits=QUICK, max_scenes=100).fetch(query)
    everything = ask("toulouse", ("B4",), cloudy_pct=100)
    assert len(chip.source.scene_ids) >= len(scenes_of(WORLD, everything))


@pytest.mark.parametrize(
    ("preset", "sensor", "fix"),
    [
        ("earth-search", SensorSpec("COPERNICUS/S1_GRD", ("VV",)), "COPERNICUS/S1_RTC"),
        ("earth-search", SensorSpec(RTC, ("VV",)), "planetary-computer"),
        ("planetary-computer", SensorSpec("COPERNICUS/S2_HARMONIZED", ("B10",)), 'backend="gee"'),
        ("earth-search", SensorSpec("LANDSAT/LC08/C02/T1_L2", ("SR_B4",)), "planetary-computer"),
    ],
)
def test_what_a_catalogue_lacks_is_refused_with_what_has_it(preset, sensor, fix):
    from rs_embed import Stac

    with pytest.raises(SensorNotOffered) as caught:
        Stac(preset).require("M", sensor)
    assert fix in caught.value.fix


def test_cloud_score_is_refused_before_anything_is_asked(stac_server):
    site = stac_server.site("earth-search")
    with pytest.raises(SpecError, match="scl"):
        stac(site).fetch(ask(cloud_mask="cs+"))
    assert site.log == []


def test_no_scene_says_which_condition_left_how_many(stac_server):
    provider = stac(stac_server.site("earth-search", applied=True))
    with pytest.raises(NoImagery, match="got no scene") as caught:
        provider.fetch(ask(cloudy_pct=0))
    assert "in the window, of these 0 with at most 0 % cloud" in caught.value.facts["scenes"]
    with pytest.raises(NoImagery) as caught:
        provider.fetch(ask(window=TemporalSpec.year(2010)))
    assert caught.value.facts["scenes"].startswith("0 in the window")
    with pytest.raises(NoImagery) as caught:
        stac(stac_server.site("earth-search", missing=("red",))).fetch(ask(bands=("B4",)))
    assert "of these 0 with all files" in caught.value.facts["scenes"]


def test_places_and_days_are_wanted_and_heights_are_not_everywhere(stac_server):
    provider = stac(stac_server.site("earth-search"))
    with pytest.raises(SpecError, match="Expected a window of days"):
        provider.fetch(ask(window=None))
    with pytest.raises(SpecError, match="Expected a place"):
        provider.native_geobox(ask())
    from rs_embed.core.geo import geobox_for
    from rs_embed.core.specs import PointBuffer
    from rs_embed.providers.base import Query

    ocean = geobox_for(PointBuffer(-150.0, 0.5, 320))
    with pytest.raises(OutsideCoverage):
        provider.fetch(Query("M", SensorSpec(DEM, ("DEM",)), ocean, None))
