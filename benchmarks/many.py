"""Measure runs of many items: fetching beside inference, memory, and what an export costs above the bare generator.

A part of `make bench`. Alone, `python benchmarks/many.py` replaces its section of `RESULTS.md`; minutes. `--quick`
prints only. All of it is `mosaiks_rcf` on small chips, one thread, imagery from memory: what is left is the pipeline.
"""

import argparse
import json
import tempfile
import time
from collections import deque
from datetime import date
from pathlib import Path

from run import RESULTS, child, in_turns, peak_mb

HEADING = "## Many items"
MODEL, BUFFER_M = "mosaiks_rcf", 80.0
ITEMS, LATENCY_S, WORKERS = 64, 0.3, 8
BIG_BUFFER_M = 700.0
"""A chip of 140 px: there inference takes longer than eight fetches at a time."""
FEW, MANY, UNIT_ROWS = 1_000, 10_000, 500


def _provider(latency_s: float = 0.0):
    """The same pixels everywhere, at once or after a while."""
    import numpy as np

    from rs_embed.bands import bands_of
    from rs_embed.chip import Chip, Source
    from rs_embed.testing import FieldProvider

    pixels = np.random.default_rng(0).integers(200, 4000, (1, 12, 420, 420)).astype(np.float32)

    class Archive(FieldProvider):
        def fetch(self, query):
            time.sleep(latency_s)
            height, width = query.geobox.shape
            bands = bands_of(query.sensor.collection, query.sensor.bands)
            return Chip(
                pixels[:, :, :height, :width], bands, query.geobox, (None,), Source(self.name, query.sensor.collection)
            )

    return Archive()


def _places(count: int) -> list[tuple[float, float]]:
    return [(12 + (i % 100) / 100, 47 + (i // 100) / 100) for i in range(count)]


def _generator(count: int, buffer_m: float = BUFFER_M, latency_s: float = 0.0) -> None:
    """What every call runs on, with its results dropped."""
    from rs_embed import OutputSpec
    from rs_embed._call import Call
    from rs_embed.pipeline.run import run
    from rs_embed.places import read_places

    call = Call(MODEL, OutputSpec.pooled(), None, None, None, "auto", "cpu", "fp32", {"fetch_workers": WORKERS})
    table = list(read_places(_places(count), buffer_m=buffer_m))
    plan = call.plan(_provider(latency_s), [place.spatial for place in table], [None] * count)
    deque(run(plan), maxlen=0)


def _export(count: int) -> None:
    from rs_embed import export_embeddings

    options = {"buffer_m": BUFFER_M, "unit_rows": UNIT_ROWS, "device": "cpu", "fetch_workers": WORKERS}
    with tempfile.TemporaryDirectory() as folder:
        report = export_embeddings(
            MODEL, _places(count), Path(folder) / "run", backend=_provider(), progress=False, **options
        )
    assert (report.ok, report.failed) == (count, 0)


def overlap(buffer_m: str, turns: str) -> dict[str, float]:
    """64 items from a provider of 300 ms, against the longer of fetching alone and computing alone."""
    size_m, fetch_s = float(buffer_m), ITEMS * LATENCY_S / WORKERS
    figures = in_turns(
        lambda: _generator(ITEMS, size_m, LATENCY_S), lambda: _generator(ITEMS, size_m), int(turns)
    )  # in turns: of a noisy machine both see the same
    ideal_s = max(fetch_s, figures["other_s"])
    return {"one_s": figures["one_s"], "fetch_s": fetch_s, "compute_s": figures["other_s"], "ideal_s": ideal_s}


def memory(kind: str, count: str) -> dict[str, float]:
    """Peak of a process."""
    {"export": _export, "generator": _generator}[kind](int(count))
    return {"peak_mb": peak_mb()}


def overhead(turns: str) -> dict[str, float]:
    """An export of 1,000 rows against the generator that it runs on."""
    return in_turns(lambda: _export(FEW), lambda: _generator(FEW), int(turns))


def _rows(*, quick: bool) -> list[tuple[str, str, str]]:
    turns, many = ("2", 2 * FEW) if quick else ("5", MANY)
    rows = []
    for buffer_m, label in ((BUFFER_M, "16 px chips"), (BIG_BUFFER_M, "140 px chips")):
        run = child("overlap", 1, str(buffer_m), turns, script=__file__)
        rows.append(
            (
                f"{ITEMS} items of {LATENCY_S * 1000:.0f} ms, {WORKERS} workers, {label}: wall / ideal",
                f"{run['one_s'] / run['ideal_s']:.2f}; {run['one_s']:.2f} s, fetching alone {run['fetch_s']:.2f} s, "
                f"computing alone {run['compute_s']:.2f} s",
                "under 1.2",
            )
        )
    for kind in ("generator", "export"):
        peaks = [child("memory", 1, kind, str(count), script=__file__)["peak_mb"] for count in (FEW, many)]
        figure = f"{peaks[1] / peaks[0]:.3f}; {peaks[1]:.0f} MB against {peaks[0]:.0f} MB"
        rows.append((f"{kind}: peak memory of {many:,} items / of {FEW:,}", figure, "under 1.1"))
    run = child("overhead", 1, turns, script=__file__)
    figure = f"{run['ratio']:.2f} (quartiles {run['ratio_low']:.2f} to {run['ratio_high']:.2f}); "
    figure += f"{run['one_s'] / FEW * 1000:.1f} ms a row against {run['other_s'] / FEW * 1000:.1f} ms"
    rows.append((f"export of {FEW:,} rows / the bare generator", figure, ""))
    return rows


def section(*, quick: bool) -> str:
    """This part of the results."""
    lines = [f"\n{HEADING}\n", f"{date.today()}. `mosaiks_rcf`, 1 thread, imagery from memory.\n"]
    lines += ["| what | figure | goal |", "| --- | --- | --- |"]
    return "\n".join([*lines, *(f"| {what} | {figure} | {goal} |" for what, figure, goal in _rows(quick=quick))]) + "\n"


def main(*, quick: bool) -> None:
    text = section(quick=quick)
    print(text)
    if not quick:
        before = RESULTS.read_text().partition(f"\n{HEADING}")[0]
        RESULTS.write_text(before + text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", nargs="?", choices=["overlap", "memory", "overhead"])
    parser.add_argument("arguments", nargs="*")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    if given.task is None:
        main(quick=given.quick)
    else:
        print(json.dumps(globals()[given.task](*given.arguments)))
