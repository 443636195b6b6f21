"""A folder of rasters is embedded file by file, in one call."""

import numpy as np
import pytest
import rasterio
from sample_cuts import cut

from rs_embed import (
    LocalRasters,
    OutputSpec,
    PointBuffer,
    RasterFolder,
    export_embeddings,
    get_embedding,
    open_run,
    raster_places,
)
from rs_embed.core.geo import project
from rs_embed.errors import OutsideCoverage, ReadError, SpecError
from rs_embed.exports.status import retry_export

MODEL = "mosaiks_rcf"


@pytest.fixture
def tiles(tmp_path):
    """Four files: two beside each other, one that lies on both, and one of the first ground on another day."""
    cut(tmp_path / "tiles/a.tif", 0, 0, day="2017-06-13")
    cut(tmp_path / "tiles/b.tif", 96, 0, day="2017-06-13")
    cut(tmp_path / "tiles/over.tif", 48, 0, day="2017-06-13", plus=100)
    cut(tmp_path / "tiles/later.tif", 0, 0, day="2017-07-03", plus=250)
    return tmp_path / "tiles"


def test_every_file_becomes_a_row_with_its_name_and_day(tiles):
    places = raster_places(tiles / "*.tif")
    assert [place.id for place in places] == ["a", "b", "later", "over"]
    assert [str(place.window.start) for place in places] == ["2017-06-13", "2017-06-13", "2017-07-03", "2017-06-13"]


@pytest.mark.slow
def test_each_vector_of_an_export_is_that_of_its_own_file(tiles, tmp_path):
    pattern = str(tiles / "*.tif")
    report = export_embeddings(MODEL, raster_places(pattern), tmp_path / "run", backend=pattern)
    assert (report.ok, report.failed) == (4, 0)
    run = open_run(tmp_path / "run")
    vectors = dict(zip(run.to_frame()["id"], run.matrix(), strict=True))
    for name, vector in vectors.items():
        np.testing.assert_allclose(vector, get_embedding(MODEL, backend=tiles / f"{name}.tif").data, atol=1e-6)
    assert not np.allclose(vectors["a"], vectors["later"])
    assert sorted(one.meta.inputs[0].scene_ids for one in run.embeddings()) == [(name,) for name in sorted(vectors)]


@pytest.mark.slow
def test_each_grid_of_an_export_lies_on_its_own_file(tiles, tmp_path):
    pattern = str(tiles / "*.tif")
    export_embeddings(MODEL, raster_places(pattern), tmp_path / "run", backend=pattern, output=OutputSpec.grid())
    grids = open_run(tmp_path / "run").grids()
    for name in ("a", "b", "later", "over"):
        alone, found = (
            get_embedding(MODEL, backend=tiles / f"{name}.tif", output=OutputSpec.grid()),
            grids.embedding(name),
        )
        assert found.geobox == alone.geobox
        np.testing.assert_allclose(found.data, alone.data, atol=1e-6)


def test_a_file_without_the_bands_fails_alone_and_the_run_can_be_taken_up_again(tiles, tmp_path):
    cut(tiles / "rgb.tif", 96, 100, bands=[4, 3, 2])
    pattern = str(tiles / "*.tif")
    report = export_embeddings(MODEL, raster_places(pattern), tmp_path / "run", backend=pattern)
    assert (report.ok, report.failed) == (4, 1)
    again = retry_export(tmp_path / "run")
    assert (again.ok, again.failed) == (4, 1)


def test_points_are_read_from_the_file_that_covers_them(tiles):
    with rasterio.open(tiles / "b.tif") as tile:
        x, y = tile.transform @ (70, 40)
        lon, lat = (values[0] for values in project(np.array([x]), np.array([y]), str(tile.crs), "EPSG:4326"))
    place = PointBuffer(lon=lon, lat=lat, buffer_m=100)
    found = get_embedding(MODEL, place, backend=str(tiles / "*.tif"))
    np.testing.assert_array_equal(found.data, get_embedding(MODEL, place, backend=tiles / "b.tif").data)
    with pytest.raises(OutsideCoverage, match="in the folder"):
        get_embedding(MODEL, PointBuffer(lon=lon + 1, lat=lat, buffer_m=100), backend=str(tiles / "*.tif"))


def test_two_files_of_one_ground_and_day_and_a_pattern_without_files_are_refused(tiles):
    cut(tiles / "deep/er/a.tif", 200, 0)
    assert {place.id for place in raster_places(tiles / "**/*.tif")} > {"b", str(tiles / "deep/er/a.tif")}
    cut(tiles / "twin.tif", 0, 0, day="2017-06-13")
    with pytest.raises(SpecError, match=r"a.tif' and '.*twin.tif'"):
        raster_places(tiles / "*.tif")
    with pytest.raises(ReadError, match="match .*vrt"):
        raster_places(tiles / "*.vrt")
    with pytest.raises(SpecError, match="Expected a place in one of 5 rasters"):
        get_embedding(MODEL, backend=str(tiles / "*.tif"))


def test_what_is_said_of_a_folder_holds_for_each_of_its_files(tiles, tmp_path):
    for path in tiles.iterdir():
        with rasterio.open(path, "r+") as file:
            names, file.descriptions = file.descriptions, (None,) * file.count
    pattern = tiles / "*.tif"
    backend = RasterFolder(pattern, bands=names, offset=-50)
    report = export_embeddings(MODEL, raster_places(pattern), tmp_path / "run", backend=backend)
    assert (report.ok, report.failed) == (4, 0)
    alone = get_embedding(MODEL, backend=LocalRasters(tiles / "a.tif", bands=names, offset=-50))
    np.testing.assert_allclose(open_run(tmp_path / "run").matrix()[0], alone.data, atol=1e-6)
    assert next(open_run(tmp_path / "run").embeddings()).meta.inputs[0].offset_applied == -50


@pytest.mark.parametrize("ask", [raster_places, RasterFolder])
def test_all_files_that_cannot_be_read_are_named_at_once(tiles, ask):
    (tiles / "text.tif").write_text("no raster")
    with pytest.raises(ReadError, match=r"text.tif"):
        ask(tiles / "*.tif")
    (tiles / "half.tif").write_bytes((tiles / "a.tif").read_bytes()[:3000])
    with pytest.raises(ReadError, match="6 rasters, got 2") as caught:
        ask(tiles / "*.tif")
    assert "half.tif" in str(caught.value) and "text.tif" in str(caught.value)


def test_undated_files_are_taken_as_they_are(tmp_path):
    cut(tmp_path / "one.tif", 0, 0)
    assert [place.window for place in raster_places(tmp_path / "*.tif")] == [None]
    export_embeddings(MODEL, raster_places(tmp_path / "*.tif"), tmp_path / "run", backend=str(tmp_path / "*.tif"))
    alone = get_embedding(MODEL, backend=tmp_path / "one.tif")
    np.testing.assert_allclose(open_run(tmp_path / "run").matrix()[0], alone.data, atol=1e-6)
