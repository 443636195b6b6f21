"""Parts of `bench_gpu.py`, each in a process of its own: `python benchmarks/gpu_parts.py PART '{"device": "cuda"}'`.

Every part prints a line of JSON with its figures. Weights are random.
"""

import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from harness import Case, Figures, ready

WEST, NORTH, PIXEL_M, EPSG = 600_000, 5_300_040, 10, 32632
"""North-west corner of the images, metres, and their grid."""
DAY = "2022-06-12"
LARGE = {"thor": "thor_1_0_base", "terramind": "terramind_1_0_base"}
TINY = {"thor": "thor_1_0_tiny", "terramind": "terramind_1_0_tiny"}


def models(given: Figures) -> dict[str, str]:
    """Short name -> model id."""
    return TINY if given["tiny"] else LARGE


def make_folder(given: Figures) -> Figures:
    """Write one COG per Sentinel-2 band, with the entropy of imagery."""
    import numpy as np
    import rasterio
    from affine import Affine
    from rasterio.io import MemoryFile
    from rasterio.shutil import copy

    from rs_embed.core.bands import COLLECTIONS

    start, side = time.perf_counter(), given["side_px"]
    folder = Path(given["folder"])
    rng = np.random.default_rng(0)
    row, col = np.mgrid[0:side, 0:side].astype(np.float32)
    ground = 1500 + 600 * np.sin(col / 37) * np.cos(row / 23)
    profile = {
        "driver": "GTiff", "dtype": "uint16", "count": 1, "width": side, "height": side, "crs": f"EPSG:{EPSG}",
        "nodata": 0, "transform": Affine(PIXEL_M, 0, WEST, 0, -PIXEL_M, NORTH), "tiled": True,
    }  # fmt: skip
    for band in COLLECTIONS["COPERNICUS/S2_SR_HARMONIZED"].bands:
        if not band.name.startswith("B"):
            continue
        pixels = ground + rng.normal(0, 60, ground.shape).astype(np.float32)
        with MemoryFile() as memory, rasterio.Env(GDAL_NUM_THREADS="ALL_CPUS"):
            with memory.open(**profile) as dataset:
                dataset.write(pixels.astype(np.uint16), 1)
            with memory.open() as dataset:
                copy(dataset, folder / f"{band.name}.tif", driver="COG", COMPRESS="DEFLATE", LEVEL=1, PREDICTOR="YES")
    size = sum(path.stat().st_size for path in folder.glob("*.tif"))
    return {"seconds": time.perf_counter() - start, "mb": size / 1e6}


def places(given: Figures, count: int) -> list[tuple[float, float]]:
    """Centres of chips all over the images, `(lon, lat)`."""
    import numpy as np

    from rs_embed.core.geo import project

    margin_m, side_m = 1500, given["side_px"] * PIXEL_M
    x, y = np.random.default_rng(1).uniform(margin_m, side_m - margin_m, (2, count))
    lon, lat = project(WEST + x, NORTH - y, f"EPSG:{EPSG}", "EPSG:4326")
    return list(zip(lon.tolist(), lat.tolist(), strict=True))


def job(given: Figures) -> Callable[[int], object]:
    """`get_embeddings` of so many places from the folder."""
    from rs_embed import LocalRasters, get_embeddings

    bands = {path.stem: str(path) for path in Path(given["folder"]).glob("*.tif")}
    options = {
        "backend": LocalRasters(bands, unit="dn", offset=0, dates=DAY),
        "device": given["device"],
        "precision": given["precision"],
        "buffer_m": 1440,
        "input_prep": "crop",
        "pretrained": False,
        "fetch_workers": given["fetch_workers"],
    }
    return lambda count: get_embeddings(models(given)[given["model"]], places(given, count), **options)


def end_to_end(given: Figures) -> Figures:
    """Chips per second from files to vectors, CPU time per chip, and the most memory that the card gave."""
    import torch

    work = job(given)
    work(given["warm"])
    cuda = given["device"].startswith("cuda")
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    time.sleep(max(0.0, given.get("start", 0) - time.time()))  # several processes begin together
    begun, start, cpu = time.time(), time.perf_counter(), time.process_time()
    work(given["chips"])
    seconds, cpu_s = time.perf_counter() - start, time.process_time() - cpu
    figures = {
        "begun": begun, "ended": time.time(), "rate": given["chips"] / seconds, "cpu_ms": 1000 * cpu_s / given["chips"]
    }  # fmt: skip
    if cuda:
        total = torch.cuda.get_device_properties(0).total_memory
        figures |= {"peak_gb": torch.cuda.max_memory_reserved() / 1e9, "total_gb": total / 1e9}
    return figures


def together(given: Figures) -> Figures:
    """Chips per second of several processes that run `end_to_end` at the same time, one for each given device."""
    start = time.time() + given["lead_s"]
    command = [sys.executable, __file__, "end_to_end"]
    begun = [
        subprocess.Popen([*command, json.dumps(given | {"device": device, "start": start})], stdout=subprocess.PIPE)
        for device in given["devices"]
    ]
    found = [json.loads(process.communicate()[0].splitlines()[-1]) for process in begun]
    took_s = max(one["ended"] for one in found) - min(one["begun"] for one in found)
    return {"rate": given["chips"] * len(found) / took_s}


def prepare(given: Figures) -> Figures:
    """CPU milliseconds of a fetching thread to make the inputs of a chip on the device, launches included."""
    import statistics

    import torch

    from rs_embed import PointBuffer, TemporalSpec, plan_embedding
    from rs_embed.embedders.prepare.framing import frame_chip
    from rs_embed.pipeline.prepare import _inputs
    from rs_embed.testing import FieldProvider

    plan = plan_embedding(
        models(given)[given["model"]], PointBuffer(*places(given, 1)[0], 1440), TemporalSpec.year(2022),
        backend=FieldProvider(), input_prep="crop", device=given["device"], pretrained=False,
    )  # fmt: skip
    embedder = plan.job.embedder
    chips = {query.modality: plan.job.provider.fetch(query) for query in plan.items[0].queries}
    frame = frame_chip(next(iter(chips.values())).shape_px, plan.job.prep, embedder.geometry())
    times = []
    for _ in range(30):
        torch.empty(16 << 20, device="cpu").fill_(1)  # what a run does in between: the caches are cold
        start = time.thread_time()
        _inputs(embedder, chips, frame)
        times.append(time.thread_time() - start)
    return {"ms": 1000 * statistics.median(times)}


def compiled(given: Figures) -> Figures:
    """Chips per second of an encoder as it is, and through `torch.compile`."""
    import torch
    from gpu_encoders import median_s

    from rs_embed.embedders.base import ModelInput

    case = Case(models(given)[given["model"]], (10, 288, 288) if given["model"] == "thor" else (12, 224, 224), "")
    _, made, embedder = ready(case, given["precision"], device=given["device"], pretrained=False)
    tensors = {name: torch.cat([tensor[:1]] * given["batch"]) for name, tensor in made.tensors.items()}
    batch, device = ModelInput(tensors, made.ground_cover_m).to(embedder.device), embedder.device
    plain_s = median_s(lambda: embedder.run(batch), device, given["patience"])
    module = embedder.network.module
    module.forward = torch.compile(module.forward, backend=given["compiler"])
    start = time.perf_counter()
    embedder.run(batch)
    compile_s = time.perf_counter() - start
    compiled_s = median_s(lambda: embedder.run(batch), device, given["patience"])
    return {"plain": given["batch"] / plain_s, "compiled": given["batch"] / compiled_s, "compile_s": compile_s}


PARTS = {
    "make_folder": make_folder,
    "end_to_end": end_to_end,
    "together": together,
    "prepare": prepare,
    "compiled": compiled,
}

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    os.environ.setdefault("GDAL_CACHEMAX", "256")
    print(json.dumps(PARTS[sys.argv[1]](json.loads(sys.argv[2]))))
