"""Tokens become an `Embedding`: stitched, cropped to the region, pooled or laid out, and described."""

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

from rs_embed._polygon import Ring
from rs_embed.chip import Chip
from rs_embed.embedders._framing import Frame, kept_shape, kept_tokens, stitch
from rs_embed.embedders._vit_mae_utils import pool, to_grid
from rs_embed.embedders.base import Embedder, ModelInput
from rs_embed.embedding import Embedding, InputMeta, Meta
from rs_embed.encoders.tokens import TokenGrid, TokenLayout, Tokens
from rs_embed.errors import NoValidPixels
from rs_embed.geo import densified, project, subgrid
from rs_embed.pipeline.plan import Item, Job, fingerprint
from rs_embed.specs import Region, SensorSpec


@dataclass(frozen=True)
class Prepared:
    """An item whose pixels are ready for the network."""

    item: Item
    metas: tuple[InputMeta, ...]
    """What the chips were, one per modality."""
    frame: Frame
    inputs: tuple[ModelInput, ...]
    """One per window of the frame."""
    gsd_m: float
    """True ground size of an input pixel."""
    geobox: GeoBox | None
    """The grid that all chips lie on, or subdivide."""


def read_out(one: Prepared, tokens: Tensor, layout: TokenLayout, job: Job) -> Embedding:
    """The embedding of one item.

    Args:
        tokens: `[windows, N, D]`.
        layout: Of one window.
    """
    whole = stitch(tokens, layout, one.frame)
    if job.embedder.pools_merged and job.output.kind == "pooled":
        whole = _merged(whole, job.embedder)
    if job.output.kind == "grid":
        data, geobox = _grid(one, whole, job.embedder)
    else:
        data, geobox = _pooled(one, whole, job), one.geobox
    return Embedding(data, _meta(one, geobox, layout, job), geobox)


def _merged(whole: Tokens, embedder: Embedder) -> Tokens:
    """The merged grid as tokens of a single grid."""
    grid = to_grid(whole.values, whole.layout, embedder.grid_merge, embedder.token_parts)
    return Tokens(grid.flatten(2).mT, TokenLayout((TokenGrid("merged", grid.shape[2], grid.shape[3]),)))


def _grid(one: Prepared, whole: Tokens, embedder: Embedder) -> tuple[NDArray[np.float32], GeoBox | None]:
    merged = to_grid(whole.values, whole.layout, embedder.grid_merge, embedder.token_parts)[0]
    rows, cols = kept_shape(TokenGrid("merged", merged.shape[1], merged.shape[2]), one.frame)
    data = merged[:, :rows, :cols].contiguous().numpy()
    geobox = _token_geobox(one, (merged.shape[1], merged.shape[2]), (rows, cols))
    if isinstance(one.item.spatial, Region) and geobox is not None:
        data[:, ~touches(one.item.spatial, geobox)] = np.nan
    return data, geobox


def _pooled(one: Prepared, whole: Tokens, job: Job) -> NDArray[np.float32]:
    if job.embedder.own_vector is not None:
        return whole.values[0, 0].numpy()
    keep = kept_tokens(whole.layout, one.frame)
    if isinstance(one.item.spatial, Region):
        keep &= _region_tokens(one, one.item.spatial, whole.layout)
    keep[: whole.layout.prefix] = job.embedder.pools_prefix
    if job.embedder.keeps_nodata:
        keep &= whole.values[0].isfinite().all(dim=-1)
        _require_tokens(keep, one)
    if whole.layout.prefix or not bool(keep.all()):
        values = whole.values[:, keep]
        whole = Tokens(values, TokenLayout((TokenGrid("kept", 1, values.shape[1]),)))
    vector = pool(whole.values, whole.layout, job.output.pooling)[0]
    return (normalize(vector, dim=0) if job.embedder.unit_length else vector).numpy()


def _require_tokens(keep: Tensor, one: Prepared) -> None:
    if not bool(keep.any()):
        raise NoValidPixels(
            f"Wanted valid pixels to pool, found none in {one.item.spatial!r}.",
            in_chip=f"{min(meta.valid_fraction for meta in one.metas):.0%} of the pixels around it are valid",
            fix="ask for another place, or for a larger one",
        )


def _token_geobox(one: Prepared, cells: tuple[int, int], shape: tuple[int, int]) -> GeoBox | None:
    if one.geobox is None:
        return None
    cell_px = one.frame.extent_px[0] / cells[0]
    return subgrid(one.geobox, one.frame.origin_px, cell_px, shape)


def _region_tokens(one: Prepared, region: Region, layout: TokenLayout) -> Tensor:
    masks = [torch.zeros(layout.prefix, dtype=torch.bool)]
    for grid in layout.grids:
        cells = (grid.height, grid.width)
        geobox = _token_geobox(one, cells, cells)
        mask = np.ones(cells, bool) if geobox is None else touches(region, geobox)
        masks.append(torch.from_numpy(mask).flatten())
    return torch.cat(masks)


def touches(region: Region, geobox: GeoBox) -> NDArray[np.bool_]:
    """`[H, W]`: cells, or pixels, that the polygon touches."""
    from rasterio.features import geometry_mask  # only regions need rasterio here

    def projected(ring: Ring) -> list[list[float]]:
        corners: list[list[float]] = np.stack(project(*densified(ring), region.crs, str(geobox.crs)), axis=1).tolist()
        return corners

    polygons = [{"type": "Polygon", "coordinates": [projected(ring) for ring in part]} for part in region.parts]
    mask: NDArray[np.bool_] = geometry_mask(polygons, geobox.shape, geobox.affine, all_touched=True, invert=True)
    return mask


def _pooling(job: Job) -> str:
    embedder = job.embedder
    unit = "unit_" if embedder.unit_length else ""
    return embedder.own_vector or f"{unit}{'token' if embedder.pools_prefix else 'patch'}_{job.output.pooling}"


def _meta(one: Prepared, geobox: GeoBox | None, layout: TokenLayout, job: Job) -> Meta:
    embedder, request, item, grid = job.embedder, job.request, one.item, job.output.kind == "grid"
    geometry = embedder.geometry()
    return Meta(
        model_id=request.card.id,
        model_key=request.card.model_key,
        card_revision=request.card.revision,
        kind=request.card.kind,
        output=job.output.kind,
        pooling=None if grid else _pooling(job),
        grid_kind=embedder.grid_kind if grid else None,
        cls_removed=layout.prefix > 0 and not request.places and (grid or embedder.own_vector is None),
        modality=request.modality_names,
        inputs=one.metas,
        spatial=None if item.spatial is None else repr(item.spatial),
        temporal=None if item.window is None else repr(item.window),
        crs=None if geobox is None else str(geobox.crs),
        transform=None if geobox is None else tuple(geobox.affine)[:6],
        input_prep=job.prep,
        image_size=max(one.frame.input_px),
        input_px=one.frame.input_px,
        windows=len(one.inputs),
        ground_cover_m=one.inputs[0].ground_cover_m or max(one.frame.input_px) * request.scale_m,
        gsd_m=one.gsd_m,
        patch_size=geometry.patch_px,
        normalization=embedder.normalization,
        valid_fraction=min(meta.valid_fraction for meta in one.metas),
        device=str(embedder.device),
        precision=request.precision,
        kernels=embedder.kernels,
        weights=embedder.network.weights_id,
        weights_note=embedder.network.note,
        knobs=embedder.knobs_in_force(),
        model={**embedder.facts(), "tokens": {grid.name: [grid.height, grid.width] for grid in layout.grids}},
        versions=_versions(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        fingerprint=fingerprint(job, item),
    )


def input_meta(chip: Chip, name: str, sensor: SensorSpec) -> InputMeta:
    """What a modality of the input was."""
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
    )


@lru_cache(maxsize=1)
def _versions() -> dict[str, str]:
    packages = {"rs_embed": "eo-rs-embed", "torch": "torch", "numpy": "numpy", "rasterio": "rasterio"}
    return {"python": python_version()} | {name: version(dist) for name, dist in packages.items()}
