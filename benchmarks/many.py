"""Runs of many items: fetching beside inference, memory, what batches and exports cost above their parts.

`make bench`, or alone: `python benchmarks/many.py [--quick]`. Small chips of `mosaiks_rcf` leave the
pipeline to be seen.
"""

import statistics
import tempfile
import time
from collections import deque
from pathlib import Path

from harness import QUICK_TURNS, Case, Figures, Row, child, in_turns, peak_mb, ratio, ready, run_script, shown

MODEL, BUFFER_M = "mosaiks_rcf", 80.0
ITEMS, LATENCY_S, WORKERS = 64, 0.3, 8
BIG_BUFFER_M = 700.0
"""A chip of 140 px: there inference takes longer than eight fetches at a time."""
NETWORK_M = 2880
"""Side of a chip of 288 px: the size that THOR takes."""
FEW, MANY, UNIT_ROWS = 1_000, 10_000, 500


def _provider(latency_s: float = 0.0):
    """The same pixels everywhere, at once or after a while."""
    import numpy as np

    from rs_embed.core.bands import bands_of
    from rs_embed.core.chip import Chip, Source
    from rs_embed.testing import FieldProvider

    pixels = np.random.default_rng(0).integers(200, 4000, (1, 12, 420, 420)).astype(np.float32)

    class Archive(FieldProvider):
        def fetch(self, query):
            time.sleep(latency_s)
            height, width = query.geobox.shape
            bands = bands_of(query.sensor.collection, query.sensor.bands)
            return Chip(
                pixels[:, : len(bands), :height, :width],
                bands,
                query.geobox,
                (None,),
                Source(self.name, query.sensor.collection),
            )

    return Archive()


def _places(count: int) -> list[tuple[float, float]]:
    return [(12 + (i % 100) / 100, 47 + (i // 100) / 100) for i in range(count)]


def _generator(count: int, buffer_m: float = BUFFER_M, latency_s: float = 0.0) -> None:
    """What every call runs on, with its results dropped."""
    from rs_embed import EmbeddingRequest, Plan

    request = EmbeddingRequest(
        model_id=MODEL, backend=_provider(latency_s), device="cpu", knobs={"fetch_workers": WORKERS}
    )
    deque(Plan.of(request, _places(count), buffer_m=buffer_m).run(), maxlen=0)


def _export(count: int) -> None:
    from rs_embed import export_embeddings

    options = {"buffer_m": BUFFER_M, "unit_rows": UNIT_ROWS, "device": "cpu", "fetch_workers": WORKERS}
    with tempfile.TemporaryDirectory() as folder:
        report = export_embeddings(
            MODEL, _places(count), Path(folder) / "run", backend=_provider(), progress=False, **options
        )
    assert (report.ok, report.failed) == (count, 0)


def overlap(buffer_m: str, turns: str) -> Figures:
    """64 items from a provider of 300 ms, against the longer of fetching alone and computing alone."""
    size_m, fetch_s = float(buffer_m), ITEMS * LATENCY_S / WORKERS
    tasks = {
        "run": lambda: _generator(ITEMS, size_m, LATENCY_S),
        "compute": lambda: _generator(ITEMS, size_m),
    }  # in turns: of a noisy machine both see the same
    times = in_turns(tasks, int(turns))
    wall_s, compute_s = (statistics.median(times[name]) for name in tasks)
    return {"wall_s": wall_s, "fetch_s": fetch_s, "compute_s": compute_s, "ideal_s": max(fetch_s, compute_s)}


def memory(kind: str, count: str) -> Figures:
    """Peak of a process."""
    {"export": _export, "generator": _generator}[kind](int(count))
    return {"peak_mb": peak_mb()}


def overhead(turns: str) -> Figures:
    """An export of 1,000 rows against the generator that it runs on."""
    times = in_turns({"export": lambda: _export(FEW), "generator": lambda: _generator(FEW)}, int(turns))
    return ratio(times["export"], times["generator"])


def batches(model: str, items: str, turns: str) -> Figures:
    """`get_embeddings` of many chips, and an export of them, against the bare encoder on a ready batch of four."""
    from rs_embed import export_embeddings, get_embeddings
    from rs_embed.embedders.base import ModelInput

    options = {"buffer_m": NETWORK_M / 2, "backend": _provider(), "device": "cpu", "pretrained": False}
    places = _places(int(items))
    _, batch, embedder = ready(Case(model, (10, NETWORK_M // 10, NETWORK_M // 10), ""), "fp32", pretrained=False)
    one = ModelInput({name: tensor[0] for name, tensor in batch.tensors.items()}, batch.ground_cover_m)
    four = ModelInput.stack([one] * 4)

    def encoder() -> None:
        for _ in range(len(places) // 4):
            embedder.run(four)

    def export() -> None:
        with tempfile.TemporaryDirectory() as folder:
            report = export_embeddings(model, places, Path(folder) / "run", progress=False, **options)
        assert report.ok == len(places)

    tasks = {"many": lambda: get_embeddings(model, places, **options), "export": export, "encoder": encoder}
    tasks["encoder"](), get_embeddings(model, places[:1], **options)
    times = in_turns(tasks, int(turns), warm=False)
    figures = ratio(times["many"], times["encoder"])
    return figures | {f"export_{name}": value for name, value in ratio(times["export"], times["encoder"]).items()}


def rows(folder: Path, quick: bool) -> list[Row]:
    turns, many = (QUICK_TURNS, 2 * FEW) if quick else (5, MANY)
    table = []
    for buffer_m, label in ((BUFFER_M, "16 px chips"), (BIG_BUFFER_M, "140 px chips")):
        run = child(__file__, "overlap", 1, buffer_m, turns)
        table.append(
            (
                f"{ITEMS} items of {LATENCY_S * 1000:.0f} ms, {WORKERS} workers, {label}: wall / ideal",
                f"{run['wall_s'] / run['ideal_s']:.2f}; {run['wall_s']:.2f} s, fetching alone {run['fetch_s']:.2f} s, "
                f"computing alone {run['compute_s']:.2f} s",
                "under 1.2",
            )
        )
    for kind in ("generator", "export"):
        peaks = [child(__file__, "memory", 1, kind, count)["peak_mb"] for count in (FEW, many)]
        figure = f"{peaks[1] / peaks[0]:.3f}; {peaks[1]:.0f} MB against {peaks[0]:.0f} MB"
        table.append((f"{kind}: peak memory of {many:,} items / of {FEW:,}", figure, "under 1.1"))
    run = child(__file__, "overhead", 1, turns)
    figure = f"{shown(run)}; {run['over_s'] / FEW * 1000:.1f} ms per row against {run['under_s'] / FEW * 1000:.1f} ms"
    table.append((f"export of {FEW:,} rows / the bare generator", figure, ""))
    for model, items in (("thor_1_0_base", ITEMS), ("thor_1_0_tiny", FEW)):
        run = child(__file__, "batches", 1, model, ITEMS if quick else items, QUICK_TURNS)
        for what, prefix in (("`get_embeddings`", ""), ("export", "export_")):
            figures = {name: run[f"{prefix}{name}"] for name in ("ratio", "low", "high")}
            figure = f"{shown(figures, 3)}; {run[f'{prefix}over_s']:.1f} s against {run['under_s']:.1f} s"
            table.append((f"{model}, {items:,} chips of 288 px: {what} / bare encoder", figure, ""))
    return table


if __name__ == "__main__":
    run_script(
        "Many items",
        f"`{MODEL}` unless another model is named; 1 thread, imagery in memory.",
        rows,
        {"overlap": overlap, "memory": memory, "overhead": overhead, "batches": batches},
    )
