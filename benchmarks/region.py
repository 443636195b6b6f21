"""Maps of regions: cost and memory by size, kills, and whether a seam or a window shows.

`python benchmarks/region.py [--quick]`. Galileo nano with its trained weights where `../shared/weights` has them.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness import Figures, Row, child, peak_mb, run_script

MODEL, LATENCY_S, WORKERS = "galileo_1_0_nano", 0.3, 8
WEIGHTS = Path(__file__).parents[2] / "shared/weights/galileo_nano/encoder.pt"
CRS, WEST, SOUTH = "EPSG:32633", 400_000, 5_300_000
SCENE_PX = 1024


def _provider(log: Path | None):
    """A smooth landscape that repeats, after a while; each request leaves a line in the log."""
    import numpy as np

    from rs_embed.core.bands import bands_of
    from rs_embed.core.chip import Chip, Source
    from rs_embed.errors import SensorNotOffered
    from rs_embed.testing import FieldProvider

    rng = np.random.default_rng(0)
    coarse = rng.uniform(300, 3700, (12, SCENE_PX // 32, SCENE_PX // 32)).astype(np.float32)
    scene = coarse.repeat(32, axis=1).repeat(32, axis=2) + rng.normal(0, 100, (12, SCENE_PX, SCENE_PX)).astype("f4")

    class Archive(FieldProvider):
        def identity(self) -> str:
            return "archive"

        def require(self, modality, sensor) -> None:
            if not sensor.collection.startswith("COPERNICUS/S2"):
                raise SensorNotOffered(f"no {sensor.collection} here", fix="modality='s2'")

        def fetch(self, query):
            time.sleep(LATENCY_S)
            if log is not None:
                with log.open("a") as file:
                    file.write(f"{query.geobox.boundingbox.bbox}\n")
            bands = bands_of(query.sensor.collection, query.sensor.bands)
            left, top = query.geobox.affine.c / 10, -query.geobox.affine.f / 10
            height, width = query.geobox.shape
            rows, cols = (round(top) + np.arange(height)) % SCENE_PX, (round(left) + np.arange(width)) % SCENE_PX
            values = np.ascontiguousarray(scene[: len(bands), rows[:, None], cols])[None]
            return Chip(values, bands, query.geobox, (query.window.middle,), Source(self.name, query.sensor.collection))

    return Archive()


def _embed(km: float, out: Path, log: Path | None, **options):
    from rs_embed import BBox, TemporalSpec, embed_region

    side = 1000 * km
    weights = {"ckpt": str(WEIGHTS)} if WEIGHTS.exists() else {"pretrained": False}
    return embed_region(
        MODEL,
        BBox(WEST, SOUTH, WEST + side, SOUTH + side, CRS),
        TemporalSpec.range("2022-06-01", "2022-07-01"),
        out,
        crs=CRS,
        backend=_provider(log),
        modality="s2",
        device="cpu",
        progress=False,
        fetch_workers=WORKERS,
        **weights,
        **options,
    )


def _size_mb(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def region(km: str, dtype: str = "float32") -> Figures:
    """A square of that side."""
    with tempfile.TemporaryDirectory() as folder:
        out, log = Path(folder) / "run", Path(folder) / "log"
        start = time.perf_counter()
        report = _embed(float(km), out, log, dtype=dtype)
        seconds = time.perf_counter() - start
        assert report.failed == 0
        blocks = sum(one.ok for one in report.maps.values())
        requests = len(log.read_text().splitlines())
        return {
            "blocks": blocks,
            "requests": requests,
            "seconds": seconds,
            "peak_mb": peak_mb(),
            "stored_mb": _size_mb(out),
        }


def job(km: str, out: str, log: str) -> Figures:
    """One attempt, to be killed."""
    _embed(float(km), Path(out), Path(log), unit_blocks=1)
    return {}


def kills(km: str, count: str) -> Figures:
    """Killed at random and resumed: how many requests more than blocks, and whether the map is the same."""
    import numpy as np
    import xarray as xr

    chance, killed = random.Random(1), 0
    with tempfile.TemporaryDirectory() as folder:
        out, log = Path(folder) / "run", Path(folder) / "log"
        _embed(float(km), Path(folder) / "whole", None, unit_blocks=1)
        while True:
            process = subprocess.Popen([sys.executable, __file__, "job", km, str(out), str(log)], stdout=-3, stderr=-3)
            try:
                process.wait(chance.uniform(8, 20) if killed < int(count) else None)
                break
            except subprocess.TimeoutExpired:
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
                killed += 1
        assert process.returncode == 0
        one, other = (
            xr.open_zarr(next(root.glob("*/map.zarr")), consolidated=False, chunks=None).embedding
            for root in (Path(folder) / "whole", out)
        )
        asked = log.read_text().splitlines()
        return {
            "kills": killed,
            "blocks": len(set(asked)),
            "requests": len(asked),
            "same": float(np.array_equal(one.values, other.values, equal_nan=True)),
        }


def seams(model: str, debias: str, *knobs: str) -> Figures:
    """Steps between neighbours across block borders over those inside, and the largest difference from one window.

    On the sample scene; the window is three blocks wide, and as far as the network allows.
    """
    import numpy as np
    import xarray as xr

    from rs_embed import PointBuffer, embed_region
    from rs_embed.testing import place_share

    given = {name: int(value) if value.isdecimal() else value for name, value in (one.split("=") for one in knobs)}
    weights = {"ckpt": str(WEIGHTS)} if model == MODEL and WEIGHTS.exists() else {"pretrained": False}
    with tempfile.TemporaryDirectory() as folder:
        place = PointBuffer(12.94, 47.77, 900)
        report = embed_region(
            model, place, None, Path(folder) / "run", backend="sample", debias=debias, device="cpu", progress=False,
            **weights, **given,
        )  # fmt: skip
        assert report.failed == 0
        path = next(Path(folder).glob("run/*/map.zarr"))
        with xr.open_zarr(path, consolidated=False, chunks=None) as store:
            tokens, cells = store.embedding.values[0], store.attrs["rs_embed:block"]["cells"]
    steps = np.abs(np.diff(tokens, axis=2)).mean(axis=0)
    at = np.arange(1, tokens.shape[2]) % cells == 0
    whole = np.isfinite(tokens).all(axis=0)
    rows, cols = (np.flatnonzero(whole.any(axis=axis)) for axis in (1, 0))
    inner = tokens[:, rows[0] + 1 : rows[-1], cols[0] + 1 : cols[-1]]
    side = min(cells, *(length // 2 for length in inner.shape[1:]))
    tiles = [
        inner[:, i : i + side, j : j + side]
        for i in range(0, inner.shape[1] - side + 1, side)
        for j in range(0, inner.shape[2] - side + 1, side)
    ]
    return {
        "border": float(np.nanmean(steps[:, at])),
        "inside": float(np.nanmean(steps[:, ~at])),
        "place": place_share(np.stack(tiles)) if len(tiles) > 1 else float("nan"),
    }


def rows(folder: Path, quick: bool) -> list[Row]:
    table: list[Row] = []
    sizes = (5, 10) if quick else (10, 20, 40, 60, 80)
    found = {km: child(__file__, "region", 2, km) for km in sizes}
    for km, run in found.items():
        figure = (
            f"{run['seconds']:.0f} s, {run['blocks'] / run['seconds']:.2f} blocks/s, {run['requests']:.0f} requests "
            f"for {run['blocks']:.0f} blocks, peak {run['peak_mb']:.0f} MB, {run['stored_mb']:.0f} MB stored"
        )
        table.append((f"{km} x {km} km, float32", figure, "a request a block"))
    peaks = [found[km]["peak_mb"] for km in sizes]
    table.append((f"peak memory of {sizes[-1]} km / of {sizes[-2]} km", f"{peaks[-1] / peaks[-2]:.2f}", "flat"))
    killed_km = sizes[0] if quick else 40  # several blocks
    small = child(__file__, "region", 2, sizes[0], "int8")
    stored = found[sizes[0]]["stored_mb"] / small["stored_mb"]
    table.append((f"{sizes[0]} km as int8: times smaller", f"{stored:.1f}", ""))
    run = child(__file__, "kills", 1, killed_km, 2 if quick else 5)
    table.append(
        (
            f"{killed_km} km, killed {run['kills']:.0f} times at random and resumed",
            f"{run['requests'] - run['blocks']:.0f} blocks asked for again, of {run['blocks']:.0f}; "
            f"{'the same map' if run['same'] else 'ANOTHER MAP'}",
            "every block once in the map",
        )
    )
    for model, knobs in (
        (MODEL, ("block_cells=8",)),
        ("terramind_1_0_tiny", ("img=96", "modality=S2L2A", "block_cells=5")),
    ):
        for debias in ("none", "position"):
            run = child(__file__, "seams", 2, model, debias, *knobs)
            figure = f"{run['border'] / run['inside']:.3f}; {run['place']:.1%} of the variance is the place in a block"
            table.append((f"{model}, debias={debias}: step across borders / inside", figure, "1.0"))
    return table


if __name__ == "__main__":
    run_script(
        "Maps of regions",
        f"`{MODEL}`, 2 threads, imagery of one modality from memory {LATENCY_S * 1000:.0f} ms after it is asked for, "
        f"{WORKERS} fetch workers. Seams on the sample scene; TerraMind with random weights.",
        rows,
        {"region": region, "job": job, "kills": kills, "seams": seams},
    )
