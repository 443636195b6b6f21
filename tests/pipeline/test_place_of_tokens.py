"""What lies at a place must come out at that place, through every preparation, shape and file."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from echo import EchoEmbedder, MergingEcho, RectangularEcho, echo
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from impulse import assert_that_the_cell_on_it_answers, unmix
from impulse import embed as impulse
from pyproj import Transformer

from rs_embed.core.geo import geobox_for
from rs_embed.core.specs import BBox, OutputSpec, PointBuffer, Region, SpatialSpec
from rs_embed.embedders.base import ModelInput
from rs_embed.embedders.card import ModelCard
from rs_embed.embedders.catalog import get_card
from rs_embed.embedders.prepare.framing import InputGeometry, frame_chip
from rs_embed.embedding.embedding import Embedding
from rs_embed.encoders.tokens import Tokens
from rs_embed.pipeline.plan import Job, plan_items
from rs_embed.pipeline.run import run
from rs_embed.pipeline.validity import Seen, Validity
from rs_embed.testing import FieldProvider

pytestmark = pytest.mark.filterwarnings("ignore::rs_embed.errors.ScaleWarning")
PREPS = ("resize", "crop", "tile")


def embed(place: SpatialSpec, prep: str, kind: type[EchoEmbedder] = EchoEmbedder, output=None) -> Embedding:
    """An echo of easting (channel 0) and northing (channel 1) in the place's own grid, kilometres."""
    to_grid = Transformer.from_crs("EPSG:4326", str(geobox_for(place).crs), always_xy=True)

    def coordinates(lon, lat, band):
        return to_grid.transform(lon, lat)[["B2", "B3"].index(band)] / 1000

    provider = FieldProvider(coordinates)
    plan = plan_items(Job(echo(kind), provider, output or OutputSpec.grid(), prep), [place], [None])
    _, result = next(run(plan))
    if not isinstance(result, Embedding):
        raise result.error
    return result


def assert_in_place(embedding: Embedding, tolerance_px: float = 0.1) -> None:
    array = embedding.to_xarray()
    tolerance_km = tolerance_px * 0.01
    inner = (slice(1, -1), slice(1, -1))  # cells on the border may hold some padding
    east = np.broadcast_to(array.x.values / 1000, array.shape[1:])
    north = np.broadcast_to(array.y.values[:, None] / 1000, array.shape[1:])
    np.testing.assert_allclose(array.values[0][inner], east[inner], atol=tolerance_km)
    np.testing.assert_allclose(array.values[1][inner], north[inner], atol=tolerance_km)


@pytest.mark.parametrize("prep", PREPS)
@pytest.mark.parametrize("lat", [0.3, 47.7, -33.0, 70.0])
def test_a_square_comes_out_where_it_went_in(prep, lat):
    embedding = embed(PointBuffer(lon=12.9, lat=lat, buffer_m=1440), prep)
    assert_in_place(embedding)
    assert embedding.to_xarray().y[0] > embedding.to_xarray().y[-1], "row 0 is the north"


@pytest.mark.parametrize("prep", PREPS)
@pytest.mark.parametrize("kind", [EchoEmbedder, MergingEcho, RectangularEcho])
@pytest.mark.parametrize("sides_m", [(3000, 1270), (810, 2410), (400, 400)])
def test_a_region_of_any_shape_keeps_its_aspect_and_its_place(prep, kind, sides_m):
    height_m, width_m = sides_m
    place = BBox(400_000, 5_000_000, 400_000 + width_m, 5_000_000 + height_m, crs="EPSG:32633")
    embedding = embed(place, prep, kind)
    assert_in_place(embedding, 0.1 if kind is not MergingEcho else 1.0)
    cell_m = embedding.geobox.resolution.x
    box, chip = embedding.geobox.boundingbox, geobox_for(place).boundingbox
    if prep != "crop":
        assert box.left == chip.left
        assert box.top == chip.top
        assert 0 <= box.right - chip.right < cell_m
        assert 0 <= chip.bottom - box.bottom < cell_m


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(height=st.integers(1, 330), width=st.integers(1, 330), prep=st.sampled_from(PREPS))
def test_every_shape_is_covered_and_nothing_is_invented(height, width, prep):
    assume(max(height, width) >= 12)  # below, bilinear enlargement clamps over more than the outermost cell
    place = BBox(400_000, 5_000_000, 400_000 + 10 * width, 5_000_000 + 10 * height, crs="EPSG:32633")
    embedding = embed(place, prep, RectangularEcho)
    assert np.isfinite(embedding.data).all()
    assert_in_place(embedding)


def test_a_tiled_grid_equals_a_single_window_where_both_see_the_same():
    place = BBox(400_000, 5_000_000, 402_500, 5_001_900, crs="EPSG:32633")
    tiled, whole = embed(place, "tile"), embed(place, "tile", RectangularEcho)
    np.testing.assert_allclose(tiled.data[:, :-1, :-1], whole.data[:, :-1, :-1], atol=1e-3)


def test_tokens_that_lie_on_padding_do_not_enter_the_pooled_vector():
    place = BBox(400_000, 5_000_000, 400_640, 5_000_160, crs="EPSG:32633")  # 64 x 16 px: 6 of 8 rows are padding
    pooled = embed(place, "crop", output=OutputSpec.pooled())
    np.testing.assert_allclose(pooled.data, [400.32, 5000.08], atol=1e-3)


def test_the_geotiff_opens_in_the_right_place(tmp_path: Path):
    embedding = embed(PointBuffer(lon=12.9, lat=47.7, buffer_m=900), "tile")
    with rasterio.open(embedding.save(tmp_path / "grid.tif")) as file:
        assert file.crs == rasterio.CRS.from_epsg(32633)
        data = file.read()
        for row, col in ((1, 1), (1, file.width - 2), (file.height - 2, 1), (file.height - 2, file.width - 2)):
            x, y = file.xy(row, col)
            assert data[0, row, col] * 1000 == pytest.approx(x, abs=1)
            assert data[1, row, col] * 1000 == pytest.approx(y, abs=1)


def test_a_polygon_leaves_out_what_it_does_not_touch():
    triangle = Region([(400_000, 5_000_000), (402_400, 5_000_000), (400_000, 5_002_400)], crs="EPSG:32633")
    grid = embed(triangle, "tile")
    assert np.isnan(grid.data[:, 0, -1]).all()
    assert np.isfinite(grid.data[:, -1, 0]).all()
    pooled = embed(triangle, "tile", output=OutputSpec.pooled())
    assert 400.8 < pooled.data[0] < 400.9  # centroid of the triangle, not of its bounding box (401.2)
    np.testing.assert_allclose(pooled.data, np.nanmean(grid.data, axis=(1, 2)), atol=1e-3)


# --- One bright pixel through the real patches of every network that can be made here ------------------------

EDGES_PX = (0, 14, 15, 16, 17, 31, 32)
"""Around the borders of patches of 16 pixels, where a convolution that pads gives itself away."""


def on_the_diagonal(side_px: int) -> list[tuple[int, int]]:
    return [*((px, px) for px in EDGES_PX), (side_px - 2, 15), (15, side_px - 1), (side_px - 1, side_px - 1)]


def own(name: str, model_id: str, **changes: object) -> ModelCard:
    return replace(get_card(model_id), id=f"{name}_impulse", aliases=(), **changes)


@pytest.mark.slow
@pytest.mark.parametrize("bands", [["B2", "B3", "B4", "B8"], ["B5", "B6", "B7", "B8A", "B11", "B12"]])
def test_a_bright_pixel_of_thor_answers_in_its_cell(bands):
    arch = {"dim": 64, "depth": 2, "heads": 1, "band_dim": 16}
    card = own(f"thor_{len(bands)}", "thor_1_0_tiny", dim=64, arch=arch)
    unmix(card, bands=bands)
    assert_that_the_cell_on_it_answers(card, 288, on_the_diagonal(288), bands=bands)


def test_a_bright_pixel_of_terramind_answers_in_its_cell():
    card = own("terramind", "terramind_1_0_tiny", dim=64, arch={"dim": 64, "depth": 2, "heads": 1, "gated": 0})
    unmix(card)
    assert_that_the_cell_on_it_answers(card, 224, on_the_diagonal(224))


def test_a_bright_pixel_of_anysat_answers_in_its_cell():
    """The second half of a dense token is what the pixel alone gives."""
    card = own("anysat", "anysat_1_0_base", dim=64, arch={"dim": 64, "depth": 1, "heads": 1})
    options = {"output": OutputSpec.grid("dense"), "patch_size_m": 10, "frames": 1}
    dark, bright = (impulse(card, 12, pixel, 10_000, **options) for pixel in (None, (3, 7)))
    change = np.abs(bright.data - dark.data)[64:].max(axis=0)
    assert {(int(row), int(col)) for row, col in zip(*np.nonzero(change > change.max() * 1e-3), strict=True)} == {
        (3, 7)
    }
    assert dark.geobox.shape == (12, 12)


def test_a_bright_pixel_of_mosaiks_answers_most_in_its_cell():
    """Its filters reach one pixel further on every side, so neighbours answer too, but alike on both sides."""
    card = get_card("mosaiks_rcf")
    dark, bright = (impulse(card, 64, pixel, 10_000) for pixel in (None, (20, 44)))
    change = np.abs(bright.data - dark.data).mean(axis=0)
    assert np.unravel_index(change.argmax(), change.shape) == (2, 5)
    assert np.count_nonzero(change > change.max() * 1e-6) == 1  # the pixel and its neighbours lie within one cell


SMALL_VIT = {"dim": 64, "arch": {"dim": 64, "depth": 1, "heads": 1}}


@pytest.mark.slow
@pytest.mark.parametrize(("model_id", "side_px"), [("dofa_1_0_base", 224), ("copernicus_fm_base", 96)])
def test_a_bright_pixel_of_patches_that_pad_answers_in_its_cell(model_id, side_px):
    """Pixel 14 lies in the first patch, pixel 15 in the second, and the last row and column in none."""
    card = own(model_id, model_id, **SMALL_VIT)
    unmix(card)
    assert_that_the_cell_on_it_answers(card, side_px, on_the_diagonal(side_px))


@pytest.mark.slow
def test_a_bright_pixel_of_clay_answers_in_its_cell():
    card = own("clay", "clay_1_5_large", **SMALL_VIT)
    unmix(card)
    assert_that_the_cell_on_it_answers(card, 64, on_the_diagonal(64))


@pytest.mark.slow
@pytest.mark.parametrize("prep", ["resize", "tile"])
def test_dofa_s_grid_keeps_its_place_where_it_is_resized_or_cut_into_windows(prep):
    """Windows of 224 px lie side by side; a resized input's pixel is larger, and so is the shift."""
    card = own(f"dofa_{prep}", "dofa_1_0_base", **SMALL_VIT)
    unmix(card)
    dark, bright = (impulse(card, 448, pixel, 10_000, input_prep=prep) for pixel in (None, (40, 300)))
    change = np.abs(bright.data - dark.data).max(axis=0)
    row, col = np.unravel_index(change.argmax(), change.shape)
    cell_px = {"resize": 32, "tile": 16}[prep]
    shift_px = cell_px // 16
    assert (row, col) == ((40 + shift_px) // cell_px, (300 + shift_px) // cell_px)
    assert dark.geobox.resolution.x == 10 * cell_px


# --- A patch convolution that pads ---------------------------------------------------------------------------


class Padded(EchoEmbedder):
    """Patches that begin a pixel before their multiple; in front of the first one the outermost pixel is repeated."""

    patches = (8,)

    def geometry(self) -> InputGeometry:
        return replace(super().geometry(), token_shift_px=1)

    def encode(self, batch: ModelInput) -> Tokens:
        image = torch.nn.functional.pad(batch.tensors["image"], (1, 0, 1, 0), mode="replicate")[..., :-1, :-1]
        return super().encode(ModelInput({"image": image}))


@pytest.mark.parametrize("prep", PREPS)
@pytest.mark.parametrize("sides_m", [(960, 960), (1920, 1920), (3000, 1270)])
def test_tokens_of_patches_that_pad_lie_further_north_west_by_what_they_pad(prep, sides_m):
    height_m, width_m = sides_m
    place = BBox(400_000, 5_000_000, 400_000 + width_m, 5_000_000 + height_m, crs="EPSG:32633")
    embedding, plain = embed(place, prep, Padded), embed(place, prep)
    assert_in_place(embedding)
    (dx, dy), cell_m = (plain.geobox.affine.c - embedding.geobox.affine.c, 0.0), plain.geobox.resolution.x
    dy = embedding.geobox.affine.f - plain.geobox.affine.f
    assert dx == dy == pytest.approx(cell_m / 8)


def test_nodata_is_told_of_the_tokens_that_see_it():
    """A column of nodata at pixel 15: of padded patches of 8 it belongs to the third, of others to the second."""
    counts = np.ones((96, 96), np.uint16)
    counts[:, 15] = 0

    def share(kind: type[EchoEmbedder]) -> list[float]:
        embedder = echo(kind)
        frame = frame_chip((96, 96), "crop", embedder.geometry())
        return Validity({"s2": Seen(counts, frames=1, grid_px=1)}, frame, embedder).share((12, 12))[0, :4].tolist()

    assert share(EchoEmbedder) == [1, 7 / 8, 1, 1]
    assert share(Padded) == [1, 1, 7 / 8, 1]
