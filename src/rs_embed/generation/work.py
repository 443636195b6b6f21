"""Run one generation: fetch, generate tokens window by window, decode them, and add metadata."""

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import cast

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from torch import Tensor

from rs_embed.core.chip import Chip
from rs_embed.core.progress import progress_bar
from rs_embed.core.specs import Region, SpatialSpec
from rs_embed.embedders.base import ModelInput
from rs_embed.embedders.cards.terramind import TerraMindKnobs, TokenModality
from rs_embed.embedders.cards.terramind_tokens import LULC_CLASSES, PATCH_PX, TOKENS
from rs_embed.embedders.imagining.sampler import Sampling
from rs_embed.embedders.prepare.framing import Frame, InputGeometry, frame_chip
from rs_embed.errors import SpecError
from rs_embed.generation.networks import Networks, networks_for
from rs_embed.generation.raster import GeneratedRaster
from rs_embed.generation.result import Generated, GenerationMeta, fingerprint_of
from rs_embed.generation.tiles import Diffusion, at_limit, decode_tiles, stitch_ids, tile_seed, to_pixels
from rs_embed.pipeline.plan import Workload
from rs_embed.pipeline.prepare import fetch_checked
from rs_embed.pipeline.readout import input_meta, touches

PACKAGES = {"rs_embed": "eo-rs-embed", "torch": "torch", "numpy": "numpy", "terratorch": "terratorch"}


@dataclass(frozen=True)
class GenerationOptions:
    """The options of a generation."""

    outputs: tuple[TokenModality, ...]
    sampling: Sampling
    steps: int
    """Number of diffusion steps."""
    tokenizer_ckpts: Mapping[TokenModality, Path]
    """Modality -> file to use instead of the hub's."""


@dataclass(frozen=True)
class Ground:
    """The imagery of the place, cut into windows."""

    chips: Mapping[str, Chip]
    shape_px: tuple[int, int]
    geobox: GeoBox | None
    frame: Frame
    windows: list[ModelInput]


def work(plan: Workload, options: GenerationOptions, *, progress: bool) -> Generated:
    """Run a generation; networks are loaded before imagery is fetched."""
    request = plan.job.request
    geometry = _geometry(cast("TerraMindKnobs", request.knobs).img, options)
    _require_memory(plan, options)
    networks = networks_for(request, options.outputs, options.tokenizer_ckpts, plan.job.embedder.device)
    ground = _fetch(plan, geometry)
    diffusion = Diffusion(options.sampling.seed, options.steps)
    total = len(ground.windows) * (1 + len(options.outputs))
    with progress_bar(total, shown=progress, label="generate", unit="steps") as advance:
        ids = _imagine(networks, ground, options, lambda: advance(1, 0))
        found = {
            name: decode_tiles(networks.tokenizers[name], ids[name], ground.frame, diffusion, lambda: advance(1, 0))[
                :, : ground.shape_px[0], : ground.shape_px[1]
            ]
            for name in options.outputs
        }
    meta = _describe(plan, options, ground, networks, found)
    text, spatial = meta.model_dump_json(), plan.items[0].spatial
    rasters: dict[str, GeneratedRaster] = {}
    for name, values in found.items():
        pixels = _inside(to_pixels(TOKENS[name], values), spatial, ground.geobox)
        rasters[name] = GeneratedRaster(name, pixels, TOKENS[name].bands, ground.geobox, text, networks.note)
    rows, cols = (-(-side // PATCH_PX) for side in ground.shape_px)
    tokens: dict[str, NDArray[np.int32]] = {
        name: values[:rows, :cols].numpy().astype(np.int32) for name, values in ids.items()
    }
    return Generated(rasters, tokens, meta, ground.geobox)


def _geometry(image_px: int, options: GenerationOptions) -> InputGeometry:
    """Return the geometry of windows: square, as the authors' code requires, on the lattice of the decoders."""
    lattice_px = max(TOKENS[name].lattice_px for name in options.outputs)
    if image_px % lattice_px:
        raise SpecError(
            f"Expected img as a multiple of {lattice_px} px to generate {', '.join(options.outputs)}, got {image_px}.",
            fix=f"set img={max(1, round(image_px / lattice_px)) * lattice_px}",
        )
    return InputGeometry(image_px, lattice_px=lattice_px, square=True, patch_px=PATCH_PX)


def _require_memory(plan: Workload, options: GenerationOptions) -> None:
    """Refuse a region that does not fit into memory, as the kernel would kill the process without an error.

    Imagery is in memory three times (original, standardised, in windows), an output twice (sum and pixels).

    Raises:
        SpecError: The region needs more than the machine's memory.
    """
    geobox = plan.items[0].queries[0].geobox
    if geobox is None or sys.platform == "win32":
        return
    rows, cols = geobox.shape
    bands = sum(len(sensor.bands) for _, sensor in plan.job.request.inputs)
    layers = sum(len(LULC_CLASSES if TOKENS[name].is_classes else TOKENS[name].bands) for name in options.outputs)
    needed, held = rows * cols * 4 * (3 * bands + 2 * layers), os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > held:
        raise SpecError(
            f"Expected a region that fits into {held / 1e9:.0f} GB of memory, got {rows} x {cols} px.",
            takes=f"about {needed / 1e9:.0f} GB",
            fix="split the area, or request fewer outputs at once",
        )


def _fetch(plan: Workload, geometry: InputGeometry) -> Ground:
    chips, shape_px, geobox = fetch_checked(plan.items[0], plan.job)
    frame = frame_chip(shape_px, "tile", geometry)
    windows = plan.job.embedder.prepare(chips, frame)
    return Ground(chips, shape_px, geobox, frame, windows)


def _imagine(
    networks: Networks, ground: Ground, options: GenerationOptions, advance: Callable[[], None]
) -> dict[str, Tensor]:
    """Generate the token ids `[row, col]` of each output over the whole frame."""
    imagined = []
    for number, window in enumerate(ground.windows):
        seed = tile_seed(options.sampling.seed, number)
        imagined.append(networks.imagine(window.tensors, options.sampling, seed))
        advance()
    return {name: stitch_ids([one[name] for one in imagined], ground.frame) for name in options.outputs}


def _describe(
    plan: Workload,
    options: GenerationOptions,
    ground: Ground,
    networks: Networks,
    found: Mapping[TokenModality, Tensor],
) -> GenerationMeta:
    job, item, sampling = plan.job, plan.items[0], options.sampling
    inputs = tuple(input_meta(ground.chips[one.name], one.name, sensor) for one, sensor in job.request.inputs)
    knobs = job.embedder.knobs_in_force()
    meta = GenerationMeta(
        model_id=job.request.card.id,
        model_key=job.request.card.model_key,
        card_revision=job.request.card.revision,
        modality=job.request.modality_names,
        outputs=options.outputs,
        inputs=inputs,
        seed=sampling.seed,
        steps=options.steps,
        decoding_steps=sampling.decoding_steps,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        spatial=None if item.spatial is None else repr(item.spatial),
        temporal=None if item.window is None else repr(item.window),
        crs=None if ground.geobox is None else str(ground.geobox.crs),
        transform=None if ground.geobox is None else tuple(ground.geobox.affine)[:6],
        shape_px=ground.shape_px,
        tile_px=ground.frame.input_px[0],
        tiles=len(ground.windows),
        at_limit={name: at_limit(TOKENS[name], values) for name, values in found.items()},
        valid_fraction=min(one.valid_fraction for one in inputs),
        device=str(job.embedder.device),
        weights=networks.weights,
        weights_note=networks.note,
        knobs={name: knobs[name] for name in ("img", "coords_tokenizer", "min_valid_fraction")},
        versions={"python": python_version()} | {name: version(package) for name, package in PACKAGES.items()},
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        fingerprint="",
    )
    return meta.model_copy(update={"fingerprint": fingerprint_of(meta, job.provider.identity())})


def _inside(
    pixels: NDArray[np.float32] | NDArray[np.uint8], spatial: SpatialSpec | None, geobox: GeoBox | None
) -> NDArray[np.float32] | NDArray[np.uint8]:
    """Set pixels outside a polygon to nodata; leave other places as they are."""
    if not isinstance(spatial, Region) or geobox is None:
        return pixels
    outside = ~touches(spatial, geobox)
    pixels[:, outside] = 0 if pixels.dtype == np.uint8 else np.nan
    return pixels
