"""AlphaEarth from Earth Engine: the very vectors, of the right year and zone, in as few requests as can be."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from earth import PLACES, ask, earth_engine, pixels_of, routes
from gee_server import EarthEngineServer, Scene, World, default_world
from numpy.typing import NDArray

from rs_embed import BBox, OutputSpec, PointBuffer, TemporalSpec, get_embedding, get_embeddings
from rs_embed.core.bands import COLLECTIONS, Unit
from rs_embed.core.geo import geobox_for
from rs_embed.core.specs import SpatialSpec
from rs_embed.errors import NoImagery, OutsideCoverage, SpecError
from rs_embed.providers.common.grids import utm_zone

COLLECTION = "GOOGLE/SATELLITE_EMBEDDING/V1/ANNUAL"
BANDS = tuple(COLLECTIONS[COLLECTION])
YEAR = TemporalSpec.year(2021)
GRID = OutputSpec.grid()


@pytest.fixture(scope="module")
def shared():
    with EarthEngineServer(default_world()) as server:
        yield server


@pytest.fixture
def server(shared):
    shared.reset()
    return shared


def images(place: str, year: int = 2021) -> dict[str, Scene]:
    """The images of a year at a place, by zone."""
    near = default_world().scenes_near(COLLECTION, *PLACES[place])
    return {scene.properties["UTM_ZONE"]: scene for scene in near if scene.when.year == year}


def at(place: str, buffer_m: float = 150) -> PointBuffer:
    return PointBuffer(*PLACES[place], buffer_m)


def wanted(scenes: Sequence[Scene], spatial: SpatialSpec) -> NDArray[np.float32]:
    """Each pixel from the first scene that has it, nearest native pixel, `[64, H, W]`."""
    found = np.full((64, *geobox_for(spatial).shape), np.nan, np.float32)
    for scene in reversed(scenes):
        pixels = pixels_of(scene, BANDS, geobox_for(spatial))
        found = np.where(np.isfinite(pixels).all(axis=0), pixels, found)
    return found


def grid_of(server: EarthEngineServer, spatial: SpatialSpec, year: int = 2021):
    return get_embedding("gse", spatial, TemporalSpec.year(year), GRID, earth_engine(server))


@pytest.mark.parametrize("place", ["toulouse", "far_north", "south", "iowa"])
def test_a_grid_holds_the_very_vectors_of_the_image_of_its_zone(server, place):
    grid = grid_of(server, at(place))
    (zone,) = images(place)
    np.testing.assert_array_equal(grid.data, wanted([images(place)[zone]], at(place)))
    assert zone == utm_zone(grid.geobox)
    np.testing.assert_allclose(np.linalg.norm(grid.data, axis=0), 1, atol=1e-5)
    (source,) = grid.meta.inputs
    assert (source.provider, source.collection, set(source.units)) == ("gee", COLLECTION, {"component"})
    assert source.scene_ids == (images(place)[zone].index,)


def test_a_year_is_that_year_and_no_other(server):
    grids = {year: grid_of(server, at("toulouse"), year) for year in (2017, 2021, 2024)}
    for year, grid in grids.items():
        np.testing.assert_array_equal(grid.data, wanted(list(images("toulouse", year).values()), at("toulouse")))
        assert grid.meta.inputs[0].scene_times == (f"{year}-01-01T00:00:00+00:00",)
    assert not np.array_equal(grids[2017].data, grids[2021].data)


def test_a_vector_is_the_mean_direction_of_the_pixels(server):
    vector = get_embedding("alphaearth_v1", at("toulouse"), YEAR, backend=earth_engine(server))
    mean = wanted(list(images("toulouse").values()), at("toulouse")).mean(axis=(1, 2), dtype=np.float64)
    np.testing.assert_allclose(vector.data, mean / np.linalg.norm(mean), atol=1e-6)
    assert np.linalg.norm(vector.data) == pytest.approx(1, abs=1e-6)


def test_a_chip_is_two_requests_or_one_without_provenance_and_years_of_a_place_ask_anew(server):
    backend = earth_engine(server)
    get_embedding("gse", at("toulouse"), YEAR, backend=backend)
    assert routes(server) == ["value", "pixels"]
    get_embedding("gse", at("toulouse"), YEAR, GRID, backend)
    assert routes(server)[2:] == ["pixels"]
    server.reset()
    bare = get_embedding("gse", at("zone_edge"), YEAR, GRID, earth_engine(server, provenance=False))
    assert routes(server) == ["pixels"]
    np.testing.assert_array_equal(bare.data, grid_of(server, at("zone_edge")).data)


@pytest.mark.parametrize("place", ["zone_edge", "antimeridian", "antimeridian_east"])
def test_where_two_zones_overlap_the_own_zone_s_image_is_taken(server, place):
    here = images(place)
    assert len(here) == 2
    grid = grid_of(server, at(place))
    own = here[utm_zone(grid.geobox)]
    np.testing.assert_array_equal(grid.data, wanted([own], at(place)))
    assert any("own is on top" in note for note in grid.meta.inputs[0].notes)


@pytest.mark.parametrize("crs", ["EPSG:32631", "EPSG:32632"])
def test_a_grid_in_either_zone_takes_its_own(server, crs):
    x, y = {"EPSG:32631": (736_500, 4_987_300), "EPSG:32632": (263_500, 4_987_300)}[crs]
    place = BBox(x, y, x + 300, y + 300, crs=crs)
    own = images("zone_edge")[f"{crs[-2:]}N"]
    np.testing.assert_array_equal(grid_of(server, place).data, wanted([own], place))


def edge_world(*, gap: bool) -> tuple[World, list[Scene]]:
    """The images at the edge of two zones: the own one (first) ends within the chip; with a gap, so does the other."""
    here = images("zone_edge")
    box = geobox_for(at("zone_edge")).boundingbox
    own, other = here["32N"], here["31N"]
    own = replace(own, left=own.left + 10 * round((box.left - own.left) / 10 + 17))
    if gap:
        other = replace(other, top=other.top - 10 * round((other.top - 4_987_329) / 10))
    return World([own, other]), [own, other]


@pytest.mark.slow
@pytest.mark.parametrize("gap", [False, True])
def test_what_the_own_zone_lacks_is_filled_whole_from_the_neighbour_and_never_mixed(gap):
    world, scenes = edge_world(gap=gap)
    place = at("zone_edge")
    truth = wanted(scenes, place)
    alone = [np.isfinite(wanted([scene], place)[0]) for scene in scenes]
    assert 0 < alone[0].mean() < 1 and (alone[1] & ~alone[0]).any()
    with EarthEngineServer(world) as server:
        grid = grid_of(server, place)
        np.testing.assert_array_equal(grid.data, truth)
        lengths = np.linalg.norm(grid.data, axis=0)
        np.testing.assert_allclose(lengths[np.isfinite(lengths)], 1, atol=1e-5)
        assert np.isfinite(grid.data).all() != gap
        assert grid.meta.valid_fraction == pytest.approx(np.isfinite(truth[0]).mean())
        vector = get_embedding("gse", place, YEAR, backend=earth_engine(server))
    mean = np.nanmean(truth.reshape(64, -1).astype(np.float64), axis=1)
    np.testing.assert_allclose(vector.data, mean / np.linalg.norm(mean), atol=1e-6)


def test_vectors_are_never_interpolated_whatever_the_provider_was_told():
    world, scenes = edge_world(gap=False)
    with EarthEngineServer(world) as server:
        smooth = get_embedding("gse", at("zone_edge"), YEAR, GRID, earth_engine(server, resampling="bilinear"))
    np.testing.assert_array_equal(smooth.data, wanted(scenes, at("zone_edge")))


@pytest.mark.parametrize("how", ["median", "mean", "first"])
def test_the_provider_itself_never_averages_two_images(server, how):
    query = ask("zone_edge", BANDS, YEAR, collection=COLLECTION, side_m=300, composite=how)
    chip = earth_engine(server).fetch(query)
    own = images("zone_edge")[utm_zone(query.geobox)]
    np.testing.assert_array_equal(chip.values[0], pixels_of(own, BANDS, query.geobox))
    assert {band.unit for band in chip.bands} == {Unit.COMPONENT}


@pytest.mark.parametrize("written", ["1N", "01N"])
def test_a_zone_of_one_digit_is_found_however_it_is_written(written):
    own, other = images("antimeridian_east")["1N"], images("antimeridian_east")["60N"]
    renamed = replace(own, index="!", properties=own.properties | {"UTM_ZONE": written})  # by its id it would be under
    with EarthEngineServer(World([renamed, other])) as server:
        grid = grid_of(server, at("antimeridian_east"))
    np.testing.assert_array_equal(grid.data, wanted([own], at("antimeridian_east")))


def test_a_wrong_window_asks_nothing_and_a_year_that_is_not_there_says_so(server):
    backend = earth_engine(server)
    for window in (TemporalSpec.range("2021-06-01", "2021-09-01"), TemporalSpec.year(2016)):
        with pytest.raises(SpecError, match="calendar year"):
            get_embedding("gse", at("toulouse"), window, backend=backend)
    with pytest.raises(SpecError) as caught:
        get_embedding("gse", at("toulouse"), backend=backend)
    assert "TemporalSpec.year(2022)" in caught.value.fix
    assert server.data_requests == []
    with pytest.raises(NoImagery) as caught:
        get_embedding("gse", at("toulouse"), TemporalSpec.year(2025), backend=backend)
    assert "another year" in caught.value.fix
    with pytest.raises(OutsideCoverage):
        get_embedding("gse", PointBuffer(-150.0, 0.0, 150), YEAR, backend=backend)
    assert "pixels" not in routes(server)


def test_many_places_equal_the_single_calls(server):
    lon, lat = PLACES["toulouse"]
    places = [PointBuffer(lon + 0.003 * i, lat, 100) for i in range(8)]
    backend = earth_engine(server, concurrency=4)
    many = get_embeddings("gse", places, YEAR, backend=backend, progress=False)
    np.testing.assert_allclose(many[5].data, get_embedding("gse", places[5], YEAR, backend=backend).data, atol=1e-7)
    assert len(server.pixel_requests) == 9


@pytest.mark.parametrize(
    ("crs", "zone"), [("EPSG:32601", "1N"), ("EPSG:32760", "60S"), ("EPSG:32661", None), ("EPSG:3857", None)]
)
def test_a_grid_knows_its_utm_zone(crs, zone):
    grid = geobox_for(PointBuffer(5, 10, 100))
    assert utm_zone(type(grid)(grid.shape, grid.affine, crs)) == zone
