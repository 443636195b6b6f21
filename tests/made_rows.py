"""Rows to write, made without a model: vectors and grids of known numbers at known places."""

import numpy as np

from rs_embed.core.geo import geobox_for
from rs_embed.core.specs import PointBuffer, TemporalSpec
from rs_embed.embedding.embedding import Embedding
from rs_embed.embedding.meta import InputMeta, Meta
from rs_embed.formats.base import Row, RunHeader

DIM = 64
YEAR = TemporalSpec.year(2020)
HEADER = RunHeader(
    model_id="mosaiks_rcf",
    card_revision=1,
    dim=DIM,
    output="pooled",
    created="2026-11-20T12:00:00+00:00",
    weights="bundled:abc",
    title="A test run",
    licence="Apache-2.0",
    publications=("doi:10.1038/s41467-021-24638-z", "arXiv:2504.11171"),
    source_data=("COPERNICUS/S2_SR_HARMONIZED",),
    gsd_m=10.0,
    versions={"rs_embed": "0.1.0"},
    extra={"knobs": {"pool_px": 8}, "device": "cpu"},
)


def embedding(place=None, *, seed=0, dim=DIM, grid=False, cell_px=8):
    """A vector, or a grid of cells of `cell_px`, of normal numbers."""
    place = place or PointBuffer(12.94, 47.77, 320)
    chip = geobox_for(place)
    shape = (dim, chip.shape[0] // cell_px, chip.shape[1] // cell_px) if grid else (dim,)
    geobox = chip.zoom_out(cell_px) if grid else chip
    data = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    inputs = InputMeta(
        modality="s2_12", collection="COPERNICUS/S2_SR_HARMONIZED", provider="field", bands=("B2", "B3"),
        units=("DN", "DN"), scene_ids=(f"S2A_{seed}", f"S2B_{seed}"),
        scene_times=("2020-06-01T10:00:00+00:00", "2020-06-03T10:00:00+00:00"), frames=1, frame_times=(),
        scenes_per_frame=(2,), shape_px=tuple(chip.shape), valid_fraction=0.75, offset_applied=None,
        composite="median", fill_value="mean", cloudy_pct=30.0, cloud_mask="none",
        scale_m=10.0, instrument_mode=None, orbit_pass=None, notes=(),
    )  # fmt: skip
    meta = Meta(
        model_id="mosaiks_rcf", model_key="mosaiks_rcf", card_revision=1, kind="baseline",
        output="grid" if grid else "pooled", pooling=None if grid else "patch_mean",
        grid_kind="patch_tokens" if grid else None, cls_removed=False, modality=("s2_12",), inputs=(inputs,),
        spatial=repr(place), temporal=repr(YEAR), crs=str(geobox.crs), transform=tuple(geobox.affine)[:6],
        input_prep="tile", image_size=256, input_px=(64, 64), windows=1, ground_cover_m=2560.0, gsd_m=10.0,
        patch_size=cell_px, normalization="standardised", valid_fraction=0.75, device="cpu", precision="fp32",
        weights="bundled:abc", weights_note=None, knobs={"pool_px": 8}, model={}, versions={"rs_embed": "0.1.0"},
        created="2026-11-20T12:00:00+00:00", fingerprint=f"{seed:064x}",
    )  # fmt: skip
    return Embedding(data, meta, geobox)


def row(index=0, name=None, place=None, **options):
    """A row that is done."""
    place = place or PointBuffer(12.94 + index * 0.01, 47.77, 320)
    one = embedding(place, seed=options.pop("seed", index), **options)
    return Row(index, name or f"plot {index}", place, YEAR, one)


def failed(index=0, name=None, place=None, error="NoImagery: Expected scenes, got none.\n  fix: widen the window"):
    """A row that could not be done."""
    return Row(index, name or f"plot {index}", place or PointBuffer(20, 50, 320), YEAR, None, error, "fetch")
