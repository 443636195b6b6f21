"""AlphaEarth without Earth Engine: vectors stay as they are, nodata stays nodata, means are unit vectors."""

from dataclasses import replace
from datetime import UTC, date, datetime

import numpy as np
import pytest
import rasterio
from pyproj import Transformer
from rasterio.transform import from_origin

from rs_embed import (
    BBox,
    LocalRasters,
    OutputSpec,
    PointBuffer,
    Region,
    TemporalSpec,
    describe_model,
    geobox_for,
    get_embedding,
    get_embeddings,
    inspect_chip,
)
from rs_embed.embedders.catalog import get_card
from rs_embed.errors import BandMismatch, BatchError, NoValidPixels, PixelWarning, SpecError, UnitMismatch
from rs_embed.providers.published.alphaearth import decoding_table
from rs_embed.testing import FieldProvider, directions, pixel_centres

CARD = get_card("gse")
SENSOR = CARD.modalities[0].sensor
PLACE = PointBuffer(lon=12.94, lat=47.77, buffer_m=200)
YEAR = TemporalSpec.year(2022)
GRID = OutputSpec.grid()


def vectors(place=PLACE) -> np.ndarray:
    """The field under a place, `[64, H, W]`."""
    lon, lat = pixel_centres(geobox_for(place))
    return np.stack([directions(lon, lat, band) for band in SENSOR.bands]).astype(np.float32)


def unit_mean(pixels: np.ndarray) -> np.ndarray:
    """Of `[64, N]`."""
    mean = pixels.astype(np.float64).mean(axis=1)
    return mean / np.linalg.norm(mean)


def embed(output=OutputSpec.pooled(), **options):
    call = {"spatial": PLACE, "temporal": YEAR, "backend": FieldProvider(directions)} | options
    if "input_chw" in options:
        call.pop("backend")
    return get_embedding("alphaearth_v1", output=output, **call)


def test_a_grid_holds_the_very_vectors_at_their_place():
    grid = embed(GRID)
    np.testing.assert_array_equal(grid.data, vectors())
    assert grid.geobox == geobox_for(PLACE)
    assert (grid.meta.grid_kind, grid.meta.patch_size, grid.meta.normalization) == ("pixels", 1, "none")
    assert grid.meta.weights == "precomputed:GOOGLE/SATELLITE_EMBEDDING/V1/ANNUAL"
    assert (grid.meta.kind, grid.meta.inputs[0].fill_value) == ("precomputed", "nan")


def test_a_vector_is_the_mean_direction_and_of_length_one():
    vector = embed()
    np.testing.assert_allclose(vector.data, unit_mean(vectors().reshape(64, -1)), atol=1e-6)
    assert np.linalg.norm(vector.data) == pytest.approx(1, abs=1e-6)
    assert vector.meta.pooling == "unit_patch_mean"


def test_nodata_stays_nodata_and_does_not_count_in_a_vector():
    given = vectors()
    given[:, :10] = np.nan
    given[5, 20, 20] = np.nan  # one number lacks: no vector
    given[:, 30, 30] = 0  # as exports write masked pixels
    grid = embed(GRID, input_chw=given)
    lost = np.zeros((40, 40), bool)
    lost[:10] = lost[20, 20] = lost[30, 30] = True
    assert np.isnan(grid.data[:, lost]).all()
    np.testing.assert_array_equal(grid.data[:, ~lost], given[:, ~lost])
    assert grid.meta.valid_fraction == pytest.approx(1 - lost.mean())
    vector = embed(input_chw=given)
    np.testing.assert_allclose(vector.data, unit_mean(given[:, ~lost]), atol=1e-6)


def test_a_polygon_takes_the_pixels_that_it_touches():
    corners = [(12.9390, 47.7690), (12.9412, 47.7690), (12.9390, 47.7708)]
    grid = embed(GRID, spatial=Region(corners))
    inside = np.isfinite(grid.data[0])
    assert 0.5 < inside.mean() < 0.8
    whole = vectors(Region(corners))
    np.testing.assert_array_equal(grid.data[:, inside], whole[:, inside])
    np.testing.assert_allclose(embed(spatial=Region(corners)).data, unit_mean(whole[:, inside]), atol=1e-6)


@pytest.mark.filterwarnings("ignore::rs_embed.errors.PixelWarning")
def test_a_polygon_without_a_valid_pixel_is_an_error_of_that_item_though_its_chip_has_some():
    def far_from_corner(lon, lat, band):
        near = (lon - 12.939) / 0.003 + (lat - 47.769) / 0.002 < 1.3
        return np.where(near, np.nan, directions(lon, lat, band))

    backend = FieldProvider(far_from_corner)
    triangle = Region([(12.939, 47.769), (12.942, 47.769), (12.939, 47.771)])
    for output in (OutputSpec.pooled(), GRID):
        with pytest.raises(NoValidPixels, match="Expected a token with any valid pixels"):
            embed(output, spatial=triangle, backend=backend)
    with pytest.raises(BatchError) as caught:
        get_embeddings("gse", [triangle, PLACE], YEAR, backend=backend, progress=False)
    assert [one is None for one in caught.value.embeddings] == [True, False]


def test_crop_keeps_the_centre_and_tile_everything():
    np.testing.assert_array_equal(embed(GRID, input_prep="crop", img=10).data, vectors()[:, 15:25, 15:25])
    np.testing.assert_array_equal(embed(GRID, input_prep="tile", img=10).data, vectors())


def test_single_and_batch_give_the_same_numbers_in_order():
    places = [PointBuffer(12.94 + i / 100, 47.77, 100 + 20 * (i % 2)) for i in range(6)]
    for output in (GRID, OutputSpec.pooled()):
        batch = get_embeddings("gse", places, YEAR, output, FieldProvider(directions), progress=False)
        for place, one in zip(places, batch, strict=True):
            np.testing.assert_allclose(one.data, embed(output, spatial=place).data, atol=1e-7)


THIS_YEAR = datetime.now(UTC).year


@pytest.mark.parametrize(
    ("window", "fix"),
    [
        (TemporalSpec.range("2022-06-01", "2022-09-01"), "year(2022)"),
        (TemporalSpec.range("2022-01-01", "2022-12-31"), "year(2022)"),
        (TemporalSpec.range("2021-01-01", "2023-01-01"), "year(2021)"),
        (TemporalSpec.year(2016), "year(2017)"),
        (TemporalSpec.year(THIS_YEAR), f"year({THIS_YEAR - 1})"),
        (TemporalSpec.year(2100), f"year({THIS_YEAR - 1})"),
    ],
)
def test_any_window_but_a_calendar_year_that_there_is_is_refused_before_anything_is_fetched(window, fix):
    provider = FieldProvider(directions)
    with pytest.raises(SpecError, match="finished calendar year, 2017 or later") as caught:
        embed(temporal=window, backend=provider)
    assert fix in caught.value.fix
    with pytest.raises(SpecError, match="calendar year"):
        inspect_chip("gse", PLACE, window, provider)
    with pytest.raises(SpecError, match="calendar year"):
        get_embeddings("gse", [PLACE, PLACE], [YEAR, window], backend=provider)
    assert provider.queries == []


def test_the_first_and_the_last_whole_year_are_taken():
    for year in (2017, THIS_YEAR - 1):
        assert embed(temporal=TemporalSpec.year(year)).meta.inputs[0].frame_times[0].startswith(f"{year}-01-01")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"input_prep": "resize"}, "native size"),
        ({"output": OutputSpec.pooled("max")}, "mean direction"),
        ({"output": OutputSpec.grid("dense")}, "finer than a patch"),
        ({"sensor": replace(SENSOR, scale_m=20)}, "10 m per pixel"),
        ({"sensor": replace(SENSOR, composite="median")}, "averages them"),
        ({"sensor": replace(SENSOR, fill_value=0.0)}, "Expected fill_value='nan'"),
        ({"bands": ["A00", "A01"]}, "in the model's order"),
    ],
)
def test_what_would_mix_or_lose_numbers_is_refused_before_anything_is_fetched(options, says):
    provider = FieldProvider(directions)
    with pytest.raises((SpecError, BandMismatch), match=says) as caught:
        embed(backend=provider, **options)
    assert caught.value.fix
    assert provider.queries == []


def test_other_models_cannot_be_told_to_keep_nodata():
    sensor = replace(get_card("mosaiks").modalities[0].sensor, fill_value="nan")
    with pytest.raises(SpecError, match="Expected no fill_value='nan'"):
        get_embedding("mosaiks", PLACE, YEAR, backend=FieldProvider(), sensor=sensor)


@pytest.mark.parametrize(
    ("values", "says"),
    [(lambda v: v * 127, "beyond -1 to 1"), (lambda v: v * 0.5, "length 1"), (lambda v: np.roll(v, 1, 1) + v, None)],
)
def test_arrays_that_are_no_unit_vectors_are_refused(values, says):
    with pytest.raises(UnitMismatch, match=says):
        embed(input_chw=values(vectors()).astype(np.float32))


def test_some_odd_vectors_are_warned_of_and_wrong_shapes_refused():
    given = vectors()
    given[:, 3, 3] *= 0.7
    with pytest.warns(PixelWarning, match="1 of 1600 vectors"):
        embed(input_chw=given)
    with pytest.raises(BandMismatch, match="64"):
        embed(input_chw=given[:63])
    with pytest.raises(BandMismatch, match="moveaxis"):
        embed(input_chw=np.moveaxis(given, 0, -1))
    with pytest.raises(NoValidPixels):
        embed(input_chw=np.zeros_like(given))


def test_an_array_needs_neither_place_nor_year():
    grid = get_embedding("gse", output=GRID, input_chw=vectors())
    np.testing.assert_array_equal(grid.data, vectors())
    assert grid.geobox is None


def write(path, values, nodata=None, upside_down=False):
    """An exported file on the grid of `PLACE`, or the same with its rows from south to north."""
    box = geobox_for(PLACE)
    affine = box.affine
    if upside_down:
        values = values[:, ::-1]
        affine = from_origin(affine.c, affine.f - 10 * values.shape[1], 10, -10)
    with rasterio.open(
        path, "w", driver="GTiff", width=40, height=40, count=64, dtype=values.dtype, crs=str(box.crs),
        transform=affine, nodata=nodata,
    ) as file:  # fmt: skip
        file.write(values)
        file.descriptions = SENSOR.bands
    return path


def test_an_exported_file_is_read_as_it_is(tmp_path):
    path = write(tmp_path / "e.tif", vectors())
    np.testing.assert_array_equal(embed(GRID, backend=path).data, vectors())


@pytest.mark.parametrize("upside_down", [False, True])
def test_8_bit_copies_are_de_quantised(tmp_path, upside_down):
    stored = (np.sign(vectors()) * np.rint(127.5 * np.sqrt(np.abs(vectors())))).astype(np.int8)
    stored[:, 4, 7] = -128
    path = write(tmp_path / "e.tif", stored, nodata=-128, upside_down=upside_down)
    grid = embed(GRID, backend=path)
    assert np.argwhere(np.isnan(grid.data[0])).tolist() == [[4, 7]]
    np.testing.assert_allclose(np.delete(grid.data.reshape(64, -1), 4 * 40 + 7, 1),
                               np.delete(vectors().reshape(64, -1), 4 * 40 + 7, 1), atol=0.005)  # fmt: skip
    assert any("de-quantised" in note for note in grid.meta.inputs[0].notes)


def test_bytes_of_a_south_up_file_are_decoded_as_those_of_the_public_store_row_by_row(tmp_path):
    """A ramp from the north-west: every byte occurs, and a flip would show."""
    bands, rows, cols = np.indices((64, 40, 40))
    ramp = ((40 * rows + cols + bands) % 255 - 127).astype(np.int8)
    path = write(tmp_path / "ramp.tif", ramp, nodata=-128, upside_down=True)
    grid = inspect_chip("gse", PLACE, YEAR, backend=path).chips["embedding"]
    np.testing.assert_array_equal(grid.values[0], decoding_table()[ramp.view(np.uint8)])


def test_a_file_on_another_grid_gives_its_nearest_vectors_never_a_blend(tmp_path):
    path = write(tmp_path / "e.tif", vectors())
    x, y = Transformer.from_crs("EPSG:4326", "EPSG:32632", always_xy=True).transform(PLACE.lon, PLACE.lat)
    place = BBox(x - 150, y - 150, x + 150, y + 150, crs="EPSG:32632")  # the neighbouring zone
    grid = embed(GRID, spatial=place, backend=LocalRasters(path))
    found = grid.data[:, np.isfinite(grid.data[0])].T
    stored = {row.tobytes() for row in vectors().reshape(64, -1).T.copy()}
    assert len(found) > 500
    assert all(row.tobytes() in stored for row in found.copy())


def test_the_card_says_what_it_is_and_whom_to_name():
    facts = describe_model("gse")
    assert (facts["kind"], facts["weights"], facts["dim"]) == ("precomputed", "precomputed", 64)
    assert "CC-BY-4.0" in facts["licence"] and "produced by Google and Google DeepMind" in facts["licence"]
    assert date.fromisoformat(f"{CARD.modalities[0].first_year}-01-01") == date(2017, 1, 1)
