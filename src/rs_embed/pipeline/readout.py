"""Turn tokens into an `Embedding`: stitch them, crop them to the region, pool them or lay them out, add metadata."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import version
from platform import python_version

import numpy as np
import torch
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from torch import Tensor
from torch.nn.functional import normalize

from rs_embed.core.chip import Chip
from rs_embed.core.geo import densified, project, subgrid
from rs_embed.core.polygon import Ring
from rs_embed.core.specs import GridBlock, Region, SensorSpec
from rs_embed.embedders._vit_mae_utils import pool, pool_blocks, pool_weighted
from rs_embed.embedders.base import ModelInput
from rs_embed.embedders.prepare.framing import Frame, kept_shape, kept_tokens, stitch
from rs_embed.embedding.embedding import Embedding
from rs_embed.embedding.meta import Debiased, InputMeta, Meta
from rs_embed.embedding.position import PositionMeans
from rs_embed.encoders.tokens import TokenGrid, TokenLayout, Tokens
from rs_embed.errors import NoValidPixels, ReadoutError
from rs_embed.pipeline.needed import cells_of, encoded_cells
from rs_embed.pipeline.plan import Item, Job, fingerprint
from rs_embed.pipeline.position import of_reference, of_region
from rs_embed.pipeline.validity import Seen, Validity


@dataclass(frozen=True)
class Prepared:
    """An item whose pixels are ready for the network."""

    item: Item
    metas: tuple[InputMeta, ...]
    """Metadata of the chips, one entry per modality."""
    frame: Frame
    inputs: tuple[ModelInput, ...]
    """One input per window of the frame."""
    gsd_m: float
    """True ground size of an input pixel, metres."""
    geobox: GeoBox | None
    """The grid that all chips lie on or subdivide."""
    seen: Mapping[str, Seen]
    """Validity masks of the modalities that have nodata."""
    absent: Mapping[str, str]
    """Optional modality that the place lacks -> the reason."""


@dataclass(frozen=True)
class _Numbers:
    """The values of one item, before metadata."""

    data: NDArray[np.float32]
    geobox: GeoBox | None
    valid: NDArray[np.float32] | None
    """`[H, W]`: see `Embedding.valid`."""
    left_out: int | None
    """See `Meta.nodata_tokens`."""


def read_out(one: Prepared, tokens: Tensor, layout: TokenLayout, job: Job) -> Embedding:
    """Turn the tokens of one item into its embedding.

    Args:
        one: The item.
        tokens: `[windows, N, D]`.
        layout: The token layout of one window.
        job: The model and the requested output.

    Raises:
        NoValidPixels: Every token lies on nodata.
        ReadoutError: The network returned values that are not finite.
        SpecError: Position offsets are to be removed, and there are too few windows to estimate them.
    """
    whole = stitch(tokens, layout, one.frame)
    if job.output.kind == "pooled":
        found = _pooled(one, whole, job)
        return Embedding(found.data, _meta(one, found, layout, job), found.geobox)
    whole, debiased, means = _without_offsets(one, whole, tokens, layout, job)
    found = _grid(one, whole, job)
    return Embedding(found.data, _meta(one, found, layout, job, debiased), found.geobox, found.valid, means)


def _without_offsets(
    one: Prepared, whole: Tokens, tokens: Tensor, layout: TokenLayout, job: Job
) -> tuple[Tokens, Debiased | None, PositionMeans | None]:
    """Subtract position offsets from the stitched tokens, if the output asks for it.

    Returns:
        The tokens, a record of what was subtracted, and the offsets of the region if they were estimated but not
        subtracted.
    """
    wanted = job.output.debias == "position"
    if not job.embedder.readout.placed:
        return whole, Debiased(by="position", estimated_on="nothing", windows=0) if wanted else None, None
    frame = job.embedder.windows(one.frame)
    validity = Validity(one.seen, frame, job.embedder, one.absent)
    alone = isinstance(one.item.spatial, GridBlock)  # blocks of a map must have the same taken out
    own = of_region(tokens, layout, validity) if frame is one.frame and not alone else None
    if not wanted:
        return whole, None, None if own is None else own.compact(job.embedder, frame)
    offsets = own or of_reference(frame, one.absent, job)
    return offsets.subtracted_from(whole, frame), offsets.about, None


def _grid(one: Prepared, whole: Tokens, job: Job) -> _Numbers:
    validity = Validity(one.seen, one.frame, job.embedder, one.absent)
    merged, there = validity.merged(whole)
    cells = (merged.shape[1], merged.shape[2])
    rows, cols = kept_shape(TokenGrid("merged", *cells), one.frame)
    data, read = merged[:, :rows, :cols].contiguous().numpy(), there[:, :rows, :cols].numpy()
    geobox, made = _token_geobox(one, cells, (rows, cols)), encoded_cells(one.frame, cells, job)[:rows, :cols]
    valid = read[0].astype(np.float32) if job.embedder.readout.keeps_nodata else validity.share(cells)[:rows, :cols]
    if isinstance(one.item.spatial, GridBlock) and geobox is not None:
        own = cells_of(one.item.spatial, geobox)
        data, read, valid, geobox, made = data[:, *own], read[:, *own], valid[own], geobox[own], made[own]
    inside = np.ones(valid.shape, bool)
    if isinstance(one.item.spatial, Region) and geobox is not None:
        inside = touches(one.item.spatial, geobox)
        data[:, ~inside], valid[~inside] = np.nan, 0
    _require_tokens(bool((read & inside).any()), one, job)
    _require_finite(data, np.repeat(read & inside & made, len(data) // len(read), axis=0), one, job)
    return _Numbers(data, geobox, valid, int((inside & ~read.any(axis=0)).sum()))


def _pooled(one: Prepared, whole: Tokens, job: Job) -> _Numbers:
    if job.embedder.readout.own_vector is not None:
        vector, left_out = whole.values[0, 0].numpy(), None
    else:
        vector, left_out = _pooled_tokens(one, whole, job)
    _require_finite(vector, np.ones(vector.shape, bool), one, job)
    return _Numbers(vector, one.geobox, None, left_out)


def _pooled_tokens(one: Prepared, whole: Tokens, job: Job) -> tuple[NDArray[np.float32], int]:
    """Return the vector, and how many tokens were left out because of nodata."""
    readout, validity = job.embedder.readout, Validity(one.seen, one.frame, job.embedder, one.absent)
    if readout.pools_merged:
        grid, there = validity.merged(whole)
        there = there.flatten(1)
        whole = Tokens(grid.flatten(1).mT[None], TokenLayout((TokenGrid("merged", *grid.shape[1:]),)))
    else:
        there = validity.tokens(whole)[None]
    keep = kept_tokens(whole.layout, one.frame)
    if isinstance(one.item.spatial, Region):
        keep &= _region_tokens(one, one.item.spatial, whole.layout)
    keep[: whole.layout.prefix] = readout.pools_prefix
    counted = there & keep
    _require_tokens(bool(counted.any(dim=1).all()), one, job)
    if len(there) > 1 and not bool((counted == keep).all()):  # blocks of channels, each with its own nodata
        vector = pool_blocks(whole.values[0], counted, job.output.pooling)
    else:
        (kept,) = counted[:1]
        if whole.layout.prefix or not bool(kept.all()):
            values = whole.values[:, kept]
            whole = Tokens(values, TokenLayout((TokenGrid("kept", 1, values.shape[1]),)))
        if readout.weighted:
            vector = pool_weighted(whole.values[0], job.output.pooling)
        else:
            vector = pool(whole.values, whole.layout, job.output.pooling)[0]
    vector = normalize(vector, dim=0) if readout.unit_length else vector
    return vector.numpy(), int((keep & ~counted.any(dim=0)).sum())


def _require_tokens(some: bool, one: Prepared, job: Job) -> None:
    if some:
        return
    floor = job.request.knobs.min_token_valid
    least = f"at least {floor:.0%} valid" if floor else "any valid"
    raise NoValidPixels(
        f"Expected a token with {least} pixels, got none.",
        place=one.item.spatial,
        in_chip=f"{min(meta.valid_fraction for meta in one.metas):.0%} of the pixels around it are valid",
        fix=f"choose another place or a larger one{', or lower min_token_valid' if floor else ''}",
    )


def _require_finite(values: NDArray[np.float32], wanted: NDArray[np.bool_], one: Prepared, job: Job) -> None:
    """Refuse values that are not finite: from valid pixels they mean overflow or broken weights."""
    finite = np.isfinite(values)
    if bool(finite.all()) or bool(finite[wanted].all()):
        return
    fp32 = job.request.precision == "fp32"
    raise ReadoutError(
        f"Expected finite values from {job.request.card.id}, got {int((~finite & wanted).sum())} of "
        f"{int(wanted.sum())} NaN or infinite.",
        place=one.item.spatial,
        precision=job.request.precision,
        weights=job.embedder.network.weights_id,
        fix="check the weights, and inspect the pixels with inspect_chip" if fp32 else 'set precision="fp32"',
    )


def _token_geobox(one: Prepared, cells: tuple[int, int], shape: tuple[int, int]) -> GeoBox | None:
    if one.geobox is None:
        return None
    cell_px = one.frame.extent_px[0] / cells[0]
    return subgrid(one.geobox, one.frame.token_origin_px, cell_px, shape)


def _region_tokens(one: Prepared, region: Region, layout: TokenLayout) -> Tensor:
    masks = [torch.zeros(layout.prefix, dtype=torch.bool)]
    for grid in layout.grids:
        cells = (grid.height, grid.width)
        geobox = _token_geobox(one, cells, cells)
        mask = np.ones(cells, bool) if geobox is None else touches(region, geobox)
        masks.append(torch.from_numpy(mask).flatten())
    return torch.cat(masks)


def touches(region: Region, geobox: GeoBox) -> NDArray[np.bool_]:
    """Return a mask `[H, W]` of the cells or pixels that the polygon touches."""
    from rasterio.features import geometry_mask  # only regions need rasterio here

    def projected(ring: Ring) -> list[list[float]]:
        corners: list[list[float]] = np.stack(project(*densified(ring), region.crs, str(geobox.crs)), axis=1).tolist()
        return corners

    polygons = [{"type": "Polygon", "coordinates": [projected(ring) for ring in part]} for part in region.parts]
    mask: NDArray[np.bool_] = geometry_mask(polygons, geobox.shape, geobox.affine, all_touched=True, invert=True)
    return mask


def _pooling(job: Job) -> str:
    readout = job.embedder.readout
    unit = "unit_" if readout.unit_length else ""
    return (
        readout.own_vector
        or f"{unit}{'token' if readout.pools_prefix or readout.weighted else 'patch'}_{job.output.pooling}"
    )


def _meta(one: Prepared, found: _Numbers, layout: TokenLayout, job: Job, debiased: Debiased | None = None) -> Meta:
    embedder, request, item, grid = job.embedder, job.request, one.item, job.output.kind == "grid"
    geometry, geobox = embedder.geometry(), found.geobox
    return Meta(
        model_id=request.card.id,
        model_key=request.card.model_key,
        card_revision=request.card.revision,
        kind=request.card.kind,
        output=job.output.kind,
        pooling=None if grid else _pooling(job),
        grid_kind=embedder.readout.grid_kind if grid else None,
        placed=embedder.readout.placed if grid else None,
        debias=debiased,
        cls_removed=layout.prefix > 0 and not request.places and (grid or embedder.readout.own_vector is None),
        modality=tuple(name for name in request.modality_names if name not in one.absent),
        absent=dict(one.absent),
        inputs=one.metas,
        spatial=None if item.spatial is None else repr(item.spatial),
        temporal=None if item.window is None else repr(item.window),
        crs=None if geobox is None else str(geobox.crs),
        transform=None if geobox is None else tuple(geobox.affine)[:6],
        input_prep=job.prep,
        image_size=max(one.frame.input_px),
        input_px=one.frame.input_px,
        windows=len(one.inputs),
        ground_cover_m=one.inputs[0].ground_cover_m
        or max(one.frame.input_px) * (request.scale_m if item.queries else one.gsd_m),
        gsd_m=one.gsd_m,
        patch_size=geometry.patch_px,
        normalization=embedder.normalization,
        valid_fraction=min((meta.valid_fraction for meta in one.metas), default=1.0),
        nodata_tokens=found.left_out,
        device=str(embedder.device),
        precision=request.precision,
        kernels=embedder.kernels,
        weights=embedder.network.weights_id,
        weights_note=embedder.network.note,
        licence=request.card.licence,
        accepted_licence=",".join(one.id for one in request.to_accept) or None,
        knobs=embedder.knobs_in_force(),
        model={
            **embedder.facts(),
            **embedder.facts_of(one.inputs[0]),
            "tokens": {grid.name: [grid.height, grid.width] for grid in layout.grids},
        },
        versions=_versions(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        fingerprint=fingerprint(job, item),
    )


def input_meta(chip: Chip, name: str, sensor: SensorSpec, clipped: float | None = None) -> InputMeta:
    """Build the metadata of one modality.

    Args:
        chip: The pixels of the modality.
        name: The name of the modality.
        sensor: The request for its imagery.
        clipped: Share of its values that were clipped; `None` if not counted.
    """
    return InputMeta(
        modality=name,
        collection=chip.source.collection,
        provider=chip.source.provider,
        bands=chip.band_names,
        units=tuple(str(band.unit) for band in chip.bands),
        scene_ids=chip.source.scene_ids,
        scene_times=tuple(time.isoformat() for time in chip.source.scene_times),
        frames=chip.values.shape[0],
        frame_times=tuple("" if time is None else time.isoformat() for time in chip.times),
        scenes_per_frame=chip.source.scenes_per_frame,
        shape_px=chip.shape_px,
        valid_fraction=chip.valid_fraction,
        offset_applied=chip.source.offset_applied,
        composite=sensor.composite,
        fill_value=sensor.fill_value,
        cloudy_pct=sensor.cloudy_pct,
        cloud_mask=sensor.cloud_mask,
        scale_m=sensor.scale_m,
        instrument_mode=sensor.instrument_mode if sensor.collection.startswith("COPERNICUS/S1") else None,
        orbit_pass=sensor.orbit_pass,
        notes=chip.source.notes,
        clear_observations=chip.source.clear_observations,
        clipped_fraction=clipped,
    )


@lru_cache(maxsize=1)
def _versions() -> dict[str, str]:
    packages = {"rs_embed": "eo-rs-embed", "torch": "torch", "numpy": "numpy", "rasterio": "rasterio"}
    return {"python": python_version()} | {name: version(dist) for name, dist in packages.items()}
