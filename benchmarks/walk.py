"""What one warm `get_embedding` walks through: files, functions and calls of ours, and the CPU time beside the network.

`make bench`, or alone: `python benchmarks/walk.py [--quick]`.
"""

import statistics
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import FrameType

from harness import Figures, Row, child, run_script

CASES = {
    "arrays": "`mosaiks_rcf`, one array",
    "provider": "`thor_1_0_tiny`, a place, an in-memory provider",
    "two": "`terramind_1_0_tiny`, two modalities, a place, an in-memory provider",
}
VARIABLES = {"RS_EMBED_MEMORY_GB": "4", "RS_EMBED_GEE_QPS": "5", "RS_EMBED_THOR_IMG": "288"}
"""Set as users set them: that some are is the ordinary case."""

ABOUT = (
    "Warm call, 1 thread, three variables set. Before each variable was looked up by name, every read collected them "
    "all: then the counts were 1217, 1450 and 1830 calls, of which 308, 495 and 520 for settings."
)


def _call(case: str):
    """The call, and its network alone."""
    import numpy as np

    from rs_embed import PointBuffer, TemporalSpec, get_embedding
    from rs_embed.embedders.base import Embedder
    from rs_embed.testing import FieldProvider

    place = {"spatial": PointBuffer(12.94, 47.77, 160), "temporal": TemporalSpec.year(2022)}
    random = {"pretrained": False, "input_prep": "crop", "device": "cpu"}
    calls = {
        "arrays": ("mosaiks_rcf", {"input_chw": np.full((12, 32, 32), 1000, np.float32), "device": "cpu"}),
        "provider": ("thor_1_0_tiny", {**place, **random, "backend": FieldProvider()}),
        "two": ("terramind_1_0_tiny", {**place, **random, "backend": FieldProvider(), "modality": "S2L2A+S1GRD"}),
    }
    model, options = calls[case]
    inside: list[float] = []
    run = Embedder.run

    def timed(self: Embedder, batch):
        start = time.process_time()
        tokens = run(self, batch)
        inside.append(time.process_time() - start)
        return tokens

    Embedder.run = timed
    return lambda: get_embedding(model, **options), inside


def walk(case: str, turns: str) -> Figures:
    """Calls in one embedding, and the median CPU time around the network (fair on a busy machine)."""
    import os
    import warnings

    import rs_embed

    os.environ.update(VARIABLES)
    warnings.simplefilter("ignore")
    call, inside = _call(case)
    call(), call()
    package = str(Path(rs_embed.__file__).parent)
    seen: Counter[tuple[str, str]] = Counter()

    def count(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(package):
            seen[code.co_filename.removeprefix(package), f"{code.co_qualname}:{code.co_firstlineno}"] += 1

    threading.setprofile(count)
    sys.setprofile(count)
    call()
    sys.setprofile(None)
    threading.setprofile(None)
    around = []
    for _ in range(int(turns)):
        inside.clear()
        start = time.process_time()
        call()
        around.append(time.process_time() - start - sum(inside))
    of_settings = sum(times for (file, _), times in seen.items() if file.endswith("settings.py"))
    return {
        "files": len({file for file, _ in seen}),
        "functions": len(seen),
        "calls": sum(seen.values()),
        "settings": of_settings,
        "around_ms": 1000 * statistics.median(around),
    }


def rows(folder: Path, quick: bool) -> list[Row]:
    table = []
    for case, label in CASES.items():
        found = child(__file__, "walk", 1, case, 5 if quick else 200)
        figure = (
            f"{found['calls']:.0f} calls of {found['functions']:.0f} functions in {found['files']:.0f} files, "
            f"{found['settings']:.0f} of them for settings; {found['around_ms']:.2f} ms of CPU time outside the network"
        )
        table.append((label, figure, ""))
    return table


if __name__ == "__main__":
    run_script("Overhead of one call", ABOUT, rows, {"walk": walk})
