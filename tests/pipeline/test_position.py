"""What tokens carry of their place in the window: known by windows of the region or of the sample scene, taken out."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from echo import EchoEmbedder, MergingEcho, echo
from numpy.typing import NDArray
from shared_data import trained
from tiny import TINY_ANYSAT

from rs_embed import (
    BBox,
    EmbeddingRequest,
    OutputSpec,
    PointBuffer,
    TemporalSpec,
    get_embedding,
    get_embeddings,
    plan_embedding,
    release_models,
)
from rs_embed.core.chip import Chip
from rs_embed.core.specs import Region
from rs_embed.embedders.base import ModelInput
from rs_embed.embedding.embedding import Embedding
from rs_embed.embedding.meta import Debiased
from rs_embed.encoders.tokens import Tokens
from rs_embed.errors import SpecError
from rs_embed.pipeline.plan import Job, numbers_of, plan_items
from rs_embed.pipeline.run import run
from rs_embed.providers.sample import SampleScene
from rs_embed.testing import FieldProvider, place_share

HERE, LARGE = PointBuffer(12.94, 47.77, 400), PointBuffer(12.94, 47.77, 2620)
DEBIASED = OutputSpec.grid(debias="position")
STEP = 1000.0
"""What the place in the window puts into a token, at most; of what lies on the ground there is a tenth."""


class FilledEcho(EchoEmbedder):
    """The mean pixels of a patch, those of nodata taken for a number."""

    def prepare(self, chips, frame) -> list[ModelInput]:
        return super().prepare({"s2": replace(chips["s2"], values=np.nan_to_num(chips["s2"].values, nan=2000))}, frame)


class PlacedEcho(FilledEcho):
    """The mean pixels of a patch, and a large number that tells of its place in the window."""

    encoded = 0

    def encode(self, batch) -> Tokens:
        tokens = super().encode(batch)
        type(self).encoded += len(tokens.values)
        start = tokens.layout.prefix
        for grid in tokens.layout.grids:
            rows, cols = torch.arange(grid.height), torch.arange(grid.width)
            code = torch.sin(2.0 * rows)[:, None] * torch.cos(3.0 * cols) * STEP * (1 if grid.name == "8px" else -2)
            tokens.values[:, start : start + grid.length] += code.flatten()[:, None]
            start += grid.length
        return tokens


class PlacedMergingEcho(PlacedEcho, MergingEcho):
    """Of several grids."""


def texture(lon, lat, band) -> NDArray[np.float64]:
    """Fields of some hundred metres: what there is at a place says little of what there is elsewhere."""
    row, col = np.floor(lat / 0.0007), np.floor(lon / 0.001)
    return 2000 + 100 * np.sin(row * 12.9898 + col * 78.233 + len(band) * ord(band[-1]))


class Holed(FieldProvider):
    """The texture, and nothing west of a column."""

    def __init__(self, share: float) -> None:
        super().__init__(texture)
        self._share = share

    def fetch(self, query) -> Chip:
        chip = super().fetch(query)
        values = chip.values.copy()
        values[..., : int(self._share * values.shape[3]) // 16 * 16] = np.nan
        return replace(chip, values=values)


def embed(place, output=DEBIASED, kind=PlacedEcho, provider=None, prep="tile") -> Embedding:
    job = Job(echo(kind), provider or FieldProvider(texture), output, prep, SampleScene())
    _, result = next(run(plan_items(job, [place], [None])))
    if not isinstance(result, Embedding):
        raise result.error
    return result


def rest(found: Embedding, truth: Embedding) -> float:
    """How far from the ground it is, of what the place had put in."""
    apart = found.data - truth.data
    return float(np.nanstd(apart - np.nanmean(apart, axis=(1, 2), keepdims=True)) / STEP)


@pytest.mark.parametrize(("kind", "truth"), [(PlacedEcho, EchoEmbedder), (PlacedMergingEcho, MergingEcho)])
def test_a_region_of_many_windows_takes_its_own_places_out(kind, truth):
    raw, found, ground = embed(LARGE, OutputSpec.grid(), kind), embed(LARGE, kind=kind), embed(LARGE, kind=truth)
    assert rest(raw, ground) > 0.3 > 0.05 > rest(found, ground)
    assert found.meta.debias == Debiased(by="position", estimated_on="region", windows=49)
    assert found.meta.windows == 49 and found.position_means is None
    levels = [one.data[: len(ground.data) // 2].mean() for one in (found, raw)]
    np.testing.assert_allclose(*levels, atol=STEP / 50)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::rs_embed.errors.ScaleWarning")
@pytest.mark.parametrize("prep", ["resize", "crop", "tile"])
def test_a_place_of_few_windows_takes_those_of_the_sample_scene(prep):
    release_models()
    PlacedEcho.encoded = 0
    found, ground = embed(HERE, prep=prep), embed(HERE, kind=EchoEmbedder, prep=prep, output=OutputSpec.grid())
    assert found.meta.debias == Debiased(by="position", estimated_on="sample scene", windows=64)
    assert rest(embed(HERE, OutputSpec.grid(), prep=prep), ground) > 0.3
    assert rest(found, ground) < 0.15
    once = PlacedEcho.encoded
    assert once > 64
    np.testing.assert_array_equal(embed(HERE, prep=prep).data, found.data)
    assert PlacedEcho.encoded - once == found.meta.windows, "it is not computed again"


def test_windows_of_nodata_do_not_count():
    few = embed(LARGE, provider=Holed(0.45))
    assert few.meta.debias is not None and few.meta.debias.estimated_on == "sample scene"
    some, ground = embed(LARGE, provider=Holed(0.04)), embed(LARGE, OutputSpec.grid(), FilledEcho, Holed(0.04))
    assert some.meta.debias == Debiased(by="position", estimated_on="region", windows=42), "seven begin on nodata"
    assert rest(some, ground) < 0.05
    np.testing.assert_array_equal(np.isnan(some.data), np.isnan(ground.data))


def test_a_polygon_is_cut_out_as_before():
    corners = [(12.92, 47.75), (12.96, 47.76), (12.94, 47.79)]
    found, raw = (embed(Region(corners), output) for output in (DEBIASED, OutputSpec.grid()))
    np.testing.assert_array_equal(np.isnan(found.data), np.isnan(raw.data))
    np.testing.assert_array_equal(found.valid, raw.valid)


@pytest.mark.parametrize("kind", [PlacedEcho, PlacedMergingEcho])
def test_a_raw_grid_of_many_windows_keeps_what_can_be_taken_out_later(kind):
    raw, found = embed(LARGE, OutputSpec.grid(), kind), embed(LARGE, kind=kind)
    means = raw.position_means
    assert means is not None and means.values.shape == (len(raw.data), 12, 12) and means.windows == 49
    assert raw.meta.debias is None and raw.debiased().meta.debias == found.meta.debias
    if kind is PlacedEcho:
        np.testing.assert_allclose(raw.debiased().data, found.data, atol=1e-3)
    assert rest(raw.debiased(), found) < 0.15 < rest(raw, found), "coarser grids are blended where windows meet"
    assert found.debiased() is found
    assert embed(HERE, OutputSpec.grid(), kind).position_means is None


def test_each_place_of_a_batch_is_estimated_by_itself():
    places = [HERE, LARGE]
    job = Job(echo(PlacedEcho), FieldProvider(texture), DEBIASED, "tile", SampleScene())
    results = [result for _, result in run(plan_items(job, places, [None, None]))]
    assert [one.meta.debias.estimated_on for one in results] == ["sample scene", "region"]
    for place, one in zip(places, results, strict=True):
        np.testing.assert_array_equal(one.data, embed(place).data)


def test_what_the_sample_scene_lacks_is_refused_with_a_fix():
    call = {"modality": "DEM", "pretrained": False, "backend": FieldProvider(texture)}
    with pytest.raises(SpecError, match="Expected at least 32 windows") as caught:
        get_embedding("terramind_1_0_tiny", HERE, output=DEBIASED, **call)
    assert "NASADEM" in str(caught.value) or "DEM" in str(caught.value)
    assert "km a side" in caught.value.fix


def test_where_tokens_are_encoded_alone_there_is_nothing_to_take_out():
    raw, found = (
        get_embedding("mosaiks_rcf", HERE, output=out, backend="sample") for out in (OutputSpec.grid(), DEBIASED)
    )
    np.testing.assert_array_equal(found.data, raw.data)
    assert found.meta.debias == Debiased(by="position", estimated_on="nothing", windows=0)
    assert raw.meta.debias is None and raw.meta.placed is False


def anysat(buffer_m: float, output: OutputSpec) -> Embedding:
    return get_embedding(
        TINY_ANYSAT, PointBuffer(12.94, 47.77, buffer_m), TemporalSpec.year(2021), output, FieldProvider(texture),
        frames=1, pretrained=False, patch_size_m=10,
    )  # fmt: skip


@pytest.mark.parametrize("detail", ["patch", "dense"])
def test_a_model_that_cuts_windows_itself_takes_those_of_the_sample_scene(detail):
    raw, found = (anysat(40, OutputSpec.grid(detail, debias=debias)) for debias in ("none", "position"))
    assert found.meta.debias == Debiased(by="position", estimated_on="sample scene", windows=64)
    assert np.ptp((raw.data - found.data)[:64], axis=(1, 2)).max() > 1e-5


@pytest.mark.slow
def test_the_windows_that_a_model_cuts_itself_lie_where_it_cuts_them():
    raw, found = anysat(480, OutputSpec.grid()), anysat(480, DEBIASED)
    taken = raw.data - found.data
    same = [taken[:, first : first + 10, first : first + 10] for first in (32, 54)]  # of windows from 21 and from 43 on
    np.testing.assert_allclose(*same, atol=1e-6)
    assert np.ptp(same[0], axis=(1, 2)).max() > 1e-5


def test_a_vector_has_nothing_to_take_out():
    with pytest.raises(SpecError, match="debias only for a grid"):
        OutputSpec("pooled", debias="position")
    with pytest.raises(SpecError, match="debias"):
        OutputSpec.grid(debias="windows")


def test_requests_of_before_are_what_they_were():
    old = '{"model_id": "thor", "output": {"kind": "grid", "pooling": "mean", "detail": "patch"}}'
    assert EmbeddingRequest.from_json(old) == EmbeddingRequest(model_id="thor", output=OutputSpec.grid())
    asked = EmbeddingRequest(model_id="thor", output=DEBIASED)
    assert EmbeddingRequest.from_json(asked.to_json()) == asked

    def facts(output: OutputSpec) -> Mapping[str, object]:
        plan = plan_embedding("mosaiks_rcf", HERE, output=output, backend="sample")
        return numbers_of(plan.job.embedder, output, plan.prep)["output"]

    assert facts(OutputSpec.grid()) == {"kind": "grid", "pooling": "mean", "detail": "patch"}
    assert facts(DEBIASED) == {"kind": "grid", "pooling": "mean", "detail": "patch", "debias": "position"}


@pytest.mark.slow
def test_a_public_batch_says_for_each_how_it_was_known():
    call = {"pretrained": False, "img": 64, "progress": False}
    found = get_embeddings("terramind_1_0_tiny", [HERE, HERE], output=DEBIASED, backend="sample", **call)
    assert [one.meta.debias.estimated_on for one in found] == ["sample scene"] * 2
    again = [one.meta.fingerprint for one in found]
    raw = get_embeddings("terramind_1_0_tiny", [HERE], output=OutputSpec.grid(), backend="sample", **call)
    assert again[0] == again[1] != raw[0].meta.fingerprint


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7])
def test_the_share_of_the_place_is_measured_whatever_chance_adds(share):
    generator = np.random.default_rng(1)
    place = generator.normal(size=(1, 32, 9, 9)) * share**0.5
    windows = place + generator.normal(size=(12, 32, 9, 9)) * (1 - share) ** 0.5 + 5
    assert place_share(windows.astype(np.float32)) == pytest.approx(share, abs=0.02)


def over_the_scene(side_m: float, along: int) -> list[BBox]:
    """Windows straight on the sample scene, 2.4 km wide and 3.6 km high."""
    wests = np.linspace(344_400, 346_800 - side_m, along).round(-1)
    norths = np.linspace(5_294_400, 5_290_800 + side_m, along).round(-1)
    return [BBox(x, y - side_m, x + side_m, y, crs="EPSG:32633") for x in wests for y in norths]


@pytest.mark.slow
@pytest.mark.parametrize("knobs", [{"window_patches": 12}, {}], ids=["windows", "alone"])
def test_of_galileo_s_trained_tokens_the_place_explains_almost_nothing(knobs):
    """In windows of 12 patches it explains two thirds and more before; patches that are encoded alone have no place."""
    call = {
        "ckpt": trained("galileo_nano/encoder.pt"),
        "modality": "s2",
        "backend": "sample",
        "progress": False,
        **knobs,
    }
    windows = over_the_scene(960, 4)
    raw, found = (
        place_share(get_embeddings("galileo_1_0_nano", windows, output=output, **call).stack())
        for output in (OutputSpec.grid(), DEBIASED)
    )
    assert raw > 0.6 if knobs else abs(raw) < 0.02
    assert found < 0.05
