"""Ground that nobody saw never comes back as numbers: no token of fill values, in no grid and in no vector."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from echo import EchoEmbedder, echo
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import card_of

from rs_embed import BBox, OutputSpec, PointBuffer, Region, TemporalSpec, get_embedding, get_embeddings
from rs_embed.core.chip import Chip
from rs_embed.core.geo import geobox_for
from rs_embed.embedding.embedding import Embedding
from rs_embed.encoders.tokens import Tokens
from rs_embed.errors import BatchError, Failure, NoValidPixels, ReadoutError
from rs_embed.pipeline.plan import Job, plan_items
from rs_embed.pipeline.run import run
from rs_embed.testing import FieldProvider

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::rs_embed.errors.ScaleWarning"),
    pytest.mark.filterwarnings("ignore::rs_embed.errors.PixelWarning"),
]
YEAR = TemporalSpec.year(2022)
GRID = OutputSpec.grid()
SMALL = ["thor_1_0_tiny", "terramind_1_0_tiny", "anysat_tiny", "mosaiks_rcf"]
PLACE = PointBuffer(lon=12.94, lat=47.77, buffer_m=960)  # 192 px: 12 patches of 16
HOLE = (slice(40, 110), slice(60, 140))  # 70 x 80 px


class Holed(FieldProvider):
    """Imagery with nodata in a rectangle of pixels.

    Args:
        hole: Rows and columns.
        modalities: Whose; `None`: of all.
        frames: Which.
    """

    def __init__(self, hole=HOLE, *, modalities=None, frames=slice(None), **options):
        super().__init__(**options)
        self.hole, self.modalities, self.frames = hole, modalities, frames

    def fetch(self, query) -> Chip:
        chip = super().fetch(query)
        if self.modalities is not None and query.modality not in self.modalities:
            return chip
        values = chip.values.copy()
        values[(self.frames, slice(None), *self.hole)] = np.nan
        return replace(chip, values=values)


def embed(model_id: str, backend=None, output=GRID, **options) -> Embedding:
    knobs = {} if model_id == "mosaiks_rcf" else {"pretrained": False}
    knobs |= {"frames": 2} if model_id == "anysat_tiny" else {}
    call = {"spatial": PLACE, "temporal": YEAR, **knobs, **options}
    return get_embedding(card_of(model_id), output=output, backend=backend or Holed(), **call)


def covered(grid: Embedding, hole=HOLE, place=PLACE) -> np.ndarray:
    """`[H, W]`: how much of each cell of a grid lies in the hole, worked out on the map alone."""
    chip = geobox_for(place)
    west, north = chip.affine @ (hole[1].start, hole[0].start)
    east, south = chip.affine @ (hole[1].stop, hole[0].stop)
    shares = np.zeros(grid.geobox.shape)
    for row, col in np.ndindex(shares.shape):
        (left, top), (right, bottom) = (grid.geobox.affine @ corner for corner in ((col, row), (col + 1, row + 1)))
        right, bottom = min(right, chip.boundingbox.right), max(bottom, chip.boundingbox.bottom)  # the rest is padding
        wide, high = min(right, east) - max(left, west), min(top, north) - max(bottom, south)
        shares[row, col] = max(wide, 0) * max(high, 0) / ((right - left) * (top - bottom))
    return shares.round(6)


class FilledEcho(EchoEmbedder):
    """Fills nodata, as every model does."""

    def prepare(self, chips, frame):
        chip = chips["s2"]
        return super().prepare({"s2": replace(chip, values=np.nan_to_num(chip.values))}, frame)


class FilledRectangularEcho(FilledEcho):
    square = False


def embed_echo(kind, place, hole, prep, output=GRID) -> Embedding:
    plan = plan_items(Job(echo(kind), Holed(hole), output, prep), [place], [None])
    _, result = next(run(plan))
    if isinstance(result, Failure):
        raise result.error
    return result


@settings(max_examples=60, deadline=None)
@given(data=st.data(), prep=st.sampled_from(["resize", "crop", "tile"]))
def test_the_hole_of_a_grid_is_where_the_hole_of_the_imagery_is_and_shares_are_true(data, prep):
    height, width = data.draw(st.integers(20, 250)), data.draw(st.integers(20, 250))
    place = BBox(400_000, 5_000_000, 400_000 + 10 * width, 5_000_000 + 10 * height, crs="EPSG:32633")
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    hole = (slice(top, data.draw(st.integers(top + 1, height))), slice(left, data.draw(st.integers(left + 1, width))))
    kind = data.draw(st.sampled_from([FilledEcho, FilledRectangularEcho]))
    try:
        grid = embed_echo(kind, place, hole, prep)
    except NoValidPixels:  # all of it, or of what a crop leaves
        assert prep == "crop" or hole == (slice(0, height), slice(0, width))
        return
    share = covered(grid, hole, place)
    np.testing.assert_array_equal(np.isnan(grid.data), np.broadcast_to(share == 1, grid.data.shape))
    np.testing.assert_allclose(grid.valid, 1 - share, atol=1e-5)
    assert grid.meta.nodata_tokens == (share == 1).sum()


@pytest.mark.parametrize("model_id", SMALL)
@pytest.mark.parametrize("prep", ["crop", "tile", "resize"])
def test_tokens_wholly_on_nodata_are_nan_and_no_others(model_id, prep):
    if (model_id, prep) == ("anysat_tiny", "resize"):
        pytest.skip("takes pixels at their native size only")
    grid = embed(model_id, input_prep=prep)
    share = covered(grid)
    assert (share == 1).sum() > 5
    np.testing.assert_array_equal(np.isnan(grid.data), np.broadcast_to(share == 1, grid.data.shape))
    np.testing.assert_allclose(grid.valid, 1 - share, atol=1e-5)
    assert grid.meta.nodata_tokens == (share == 1).sum()


@pytest.mark.parametrize("model_id", SMALL)
def test_a_chip_without_nodata_has_whole_tokens_only(model_id):
    grid = embed(model_id, FieldProvider())
    assert (grid.valid == 1).all() and grid.valid.dtype == np.float32 and grid.valid.shape == grid.data.shape[1:]
    assert np.isfinite(grid.data).all() and grid.meta.nodata_tokens == 0
    vector = embed(model_id, FieldProvider(), OutputSpec.pooled())
    assert vector.valid is None
    assert vector.meta.nodata_tokens == (None if model_id == "anysat_tiny" else 0)


@pytest.mark.parametrize("model_id", ["thor_1_0_tiny", "terramind_1_0_tiny", "mosaiks_rcf"])
@pytest.mark.parametrize("output", [OutputSpec.pooled(), OutputSpec.pooled("max"), GRID])
def test_where_every_token_sees_something_numbers_are_those_of_the_filled_chip_to_the_bit(model_id, output):
    provider = FieldProvider()
    embed(model_id, provider)
    filled = provider.fetch(provider.queries[0]).values[0].copy()
    filled[:, 20:23, 50:53] = 1234.0  # no model has patches so small
    sensor = replace(card_of(model_id).modalities[0].sensor, fill_value=1234.0)
    small = embed(model_id, Holed((slice(20, 23), slice(50, 53))), output, sensor=sensor)
    np.testing.assert_array_equal(small.data, embed(model_id, These(filled), output, sensor=sensor).data)
    assert small.meta.nodata_tokens == 0 and small.meta.valid_fraction < 1
    assert small.valid is None or 0 < small.valid.min() < small.valid.max() == 1


class These(FieldProvider):
    """These very pixels."""

    def __init__(self, values):
        super().__init__()
        self.values = values

    def fetch(self, query) -> Chip:
        return replace(super().fetch(query), values=self.values[None])


@pytest.mark.parametrize("output", [OutputSpec.pooled(), OutputSpec.pooled("max")])
@pytest.mark.parametrize(
    ("model_id", "knobs"),
    [
        ("terramind_1_0_tiny", {}),
        ("terramind_1_0_tiny", {"modality": "S2L2A+DEM", "merge_method": "concat"}),
        ("mosaiks_rcf", {}),
        ("anysat_tiny", {"pooled": "patch"}),
    ],
)
def test_a_vector_is_made_of_the_tokens_that_see_something(model_id, knobs, output):
    backend = Holed(modalities=["S2L2A", "s2_12", "s2"])
    grid, vector = (embed(model_id, backend, one, **knobs) for one in (GRID, output))
    reduce = np.nanmean if output.pooling == "mean" else np.nanmax
    assert np.isnan(grid.data).any()
    np.testing.assert_allclose(vector.data, reduce(grid.data, axis=(1, 2)), atol=2e-5)
    assert vector.meta.nodata_tokens == grid.meta.nodata_tokens


def test_the_baseline_is_what_it_would_be_without_the_hole_everywhere_else():
    whole, holed = embed("mosaiks_rcf", FieldProvider()), embed("mosaiks_rcf")
    share = covered(holed)
    near = np.pad(share > 0, 1)
    near = np.any([np.roll(near, (i, j), (0, 1)) for i in (-1, 0, 1) for j in (-1, 0, 1)], axis=0)[1:-1, 1:-1]
    np.testing.assert_array_equal(holed.data[:, ~near], whole.data[:, ~near])
    without = whole.data[:, share < 1].mean(axis=1)
    vector = embed("mosaiks_rcf", output=OutputSpec.pooled()).data
    full = embed("mosaiks_rcf", FieldProvider(), OutputSpec.pooled()).data
    assert np.linalg.norm(vector) == pytest.approx(np.linalg.norm(full), rel=0.03)
    assert np.linalg.norm(vector - without) / np.linalg.norm(without) < 0.05  # only tokens on the edge differ


def test_a_modality_that_saw_nothing_is_left_out_of_a_merged_token():
    backend = Holed(modalities=["S2L2A"])
    both = {"modality": "S2L2A+DEM"}
    apart = embed("terramind_1_0_tiny", backend, merge_method="dict", **both)
    parts, hole = apart.by_modality(), covered(apart) == 1
    assert np.isnan(parts["S2L2A"][:, hole]).all() and np.isfinite(parts["DEM"]).all()
    assert np.isfinite(parts["S2L2A"][:, ~hole]).all()
    assert (apart.valid[hole] == 0.5).all() and apart.meta.nodata_tokens == 0
    total = parts["DEM"] + np.where(hole, parts["DEM"], parts["S2L2A"])
    most = np.maximum(parts["DEM"], np.where(hole, parts["DEM"], parts["S2L2A"]))
    for merge, expected in (("mean", total / 2), ("max", most)):
        merged = embed("terramind_1_0_tiny", backend, merge_method=merge, **both)
        np.testing.assert_allclose(merged.data, expected, atol=1e-5)
        np.testing.assert_array_equal(merged.valid, apart.valid)
    vector = embed("terramind_1_0_tiny", backend, OutputSpec.pooled(), merge_method="none", **both)
    tokens = np.concatenate([parts["S2L2A"][:, ~hole], parts["DEM"].reshape(len(parts["DEM"]), -1)], axis=1)
    np.testing.assert_allclose(vector.data, tokens.mean(axis=1), atol=1e-5)
    assert vector.meta.nodata_tokens == hole.sum()


def test_band_groups_of_thor_know_whose_pixels_they_see():
    radar = embed("thor_1_0_tiny", Holed(modalities=["s2"]), modality="s2+s1", group_merge="concat")
    optical = embed("thor_1_0_tiny", Holed(modalities=["s1"]), modality="s2+s1", group_merge="concat")
    hole = covered(radar) == 1
    *s2, s1 = np.split(radar.data[:, hole], len(radar.data) // 192)
    assert np.isnan(s2).all() and np.isfinite(s1).all()
    *s2, s1 = np.split(optical.data[:, hole], len(optical.data) // 192)
    assert np.isfinite(s2).all() and np.isnan(s1).all()
    assert (radar.valid[hole] == 0.5).all()
    merged = embed("thor_1_0_tiny", Holed(modalities=["s2"]), modality="s2+s1")
    np.testing.assert_allclose(merged.data[:, hole], radar.data[-192:, hole], atol=1e-5)


@pytest.mark.parametrize("merge", ["mean", "sum"])
def test_grids_of_coarser_tokens_are_interpolated_without_those_that_saw_nothing(merge):
    grid = embed("thor_1_0_tiny", group_merge=merge)
    hole = covered(grid) == 1
    np.testing.assert_array_equal(np.isnan(grid.data), np.broadcast_to(hole, grid.data.shape))


@pytest.mark.slow
def test_a_series_is_nodata_only_where_no_frame_has_a_pixel():
    once = embed("anysat_tiny", Holed(frames=slice(1)))
    hole = covered(once) == 1
    assert np.isfinite(once.data).all() and (once.valid[hole] == 0.5).all()
    never = embed("anysat_tiny")
    assert np.isnan(never.data[:, hole]).all() and (never.valid[hole] == 0).all()
    tile = embed("anysat_tiny", output=OutputSpec.pooled())
    assert np.isfinite(tile.data).all() and tile.meta.nodata_tokens is None
    assert tile.meta.pooling == "tile_token"


@pytest.mark.slow
def test_dense_tokens_lie_on_nodata_one_by_one():
    dense = embed("anysat_tiny", output=OutputSpec.grid("dense"))
    np.testing.assert_array_equal(np.isnan(dense.data[0]), covered(dense) == 1)


def test_the_floor_for_tokens_is_a_knob():
    half = embed("mosaiks_rcf", min_token_valid=0.6)
    share = 1 - covered(half)
    np.testing.assert_array_equal(np.isnan(half.data[0]), share < 0.6)
    assert (half.valid[np.isnan(half.data[0])] > 0).any()
    assert half.meta.knobs["min_token_valid"] == 0.6
    assert half.meta.fingerprint != embed("mosaiks_rcf").meta.fingerprint
    whole = embed("mosaiks_rcf", FieldProvider(), min_token_valid=1)
    np.testing.assert_array_equal(whole.data, embed("mosaiks_rcf", FieldProvider()).data)
    stripes = FieldProvider(lambda lon, lat, band: np.where(np.arange(lon.shape[1]) % 2, 1000.0, np.nan) + 0 * lon)
    for output in (GRID, OutputSpec.pooled()):
        with pytest.raises(NoValidPixels, match="at least 60% valid") as caught:
            embed("mosaiks_rcf", stripes, output, min_token_valid=0.6)
        assert "min_token_valid" in str(caught.value)


def test_a_polygon_on_nodata_is_an_error_and_cells_outside_of_one_have_no_share():
    edge = geobox_for(PLACE).boundingbox
    west = edge.left + 10 * HOLE[1].start
    inside = Region(
        [(west + 100, edge.top - 500), (west + 500, edge.top - 500), (west + 300, edge.top - 900)], crs="EPSG:32633"
    )
    hole = (slice(0, 400), slice(0, 400))

    class Corner(Holed):
        def fetch(self, query):
            chip = super().fetch(query)
            values = chip.values.copy()
            values[..., -1, -1] = 1000.0  # one pixel of the box is valid, none under the polygon
            return replace(chip, values=values)

    for output in (GRID, OutputSpec.pooled()):
        with pytest.raises(NoValidPixels, match="any valid"):
            get_embedding("mosaiks_rcf", inside, YEAR, output, Corner(hole), patch_size=4)
    grid = get_embedding("mosaiks_rcf", inside, YEAR, GRID, FieldProvider(), patch_size=4)
    outside = np.isnan(grid.data[0])
    assert outside.any() and (grid.valid[outside] == 0).all() and (grid.valid[~outside] == 1).all()
    assert grid.meta.nodata_tokens == 0


class Overflowing(FilledRectangularEcho):
    """Infinite where a pixel is above 5,000."""

    def encode(self, batch):
        tokens = super().encode(batch)
        return Tokens(torch.where(tokens.values > 5000, torch.inf, tokens.values), tokens.layout)


@pytest.mark.parametrize("output", [OutputSpec.pooled(), GRID])
def test_numbers_that_overflow_are_a_failure_of_that_row_alone(output):
    def field(lon, lat, band):
        return np.where(lon > 13, 9000.0, 1000.0)

    places = [PointBuffer(lon, 47.77, 400) for lon in (12.9, 13.1, 12.95)]
    plan = plan_items(Job(echo(Overflowing), FieldProvider(field), output, "tile"), places, [None] * 3)
    first, bad, last = (result for _, result in run(plan))
    assert np.isfinite(first.data).all() and np.isfinite(last.data).all()
    assert isinstance(bad, Failure) and bad.stage == "encode" and isinstance(bad.error, ReadoutError)
    assert "Expected finite values from echo, got" in str(bad.error) and "precision:" in str(bad.error)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_weights_that_overflow_are_told_of_and_the_advice_fits_the_precision(thor_tiny_checkpoint, tmp_path, precision):
    state = torch.load(thor_tiny_checkpoint)["state_dict"]
    state["encoder.ind_patch_embed.patch_embed.S2:Red.weight"] *= 1e38
    torch.save(state, tmp_path / "huge.pt")
    with pytest.raises(BatchError) as caught:
        get_embeddings(
            "thor_1_0_tiny", [PLACE], YEAR, backend=FieldProvider(), ckpt=tmp_path / "huge.pt", precision=precision
        )  # fmt: skip
    (failure,) = caught.value.failures
    assert isinstance(failure.error, ReadoutError) and "ckpt:huge.pt" in str(failure.error)
    assert ('precision="fp32"' in str(failure.error)) == (precision == "bf16")
