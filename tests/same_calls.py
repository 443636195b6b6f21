"""A dozen calls whose numbers must stay what they are; run as a script, it keeps those of this version."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tiny import TINY_ANYSAT

from rs_embed import (
    BBox,
    Embedding,
    OutputSpec,
    PointBuffer,
    Region,
    SensorSpec,
    TemporalSpec,
    get_embedding,
    get_embeddings,
)
from rs_embed.testing import FieldProvider

KEPT = Path(__file__).parent / "data" / "same_calls.npz"
HERE = PointBuffer(lon=12.94, lat=47.77, buffer_m=640)
SUMMER = TemporalSpec.range("2022-06-01", "2022-09-01")
TRIANGLE = Region([(12.93, 47.765), (12.95, 47.768), (12.941, 47.778)])
S2 = "COPERNICUS/S2_SR_HARMONIZED"


def thor(**options: object) -> Embedding:
    return get_embedding("thor_1_0_tiny", pretrained=False, **({"spatial": HERE, "backend": "sample"} | options))


def terramind(**options: object) -> Embedding:
    return get_embedding("terramind_1_0_tiny", pretrained=False, **({"spatial": HERE} | options))


def array(bands: int) -> NDArray[np.float32]:
    values = np.random.default_rng(5).integers(200, 4_000, (bands, 64, 64)).astype("float32")
    values[:, :9, :7] = np.nan
    return values


def anysat() -> Embedding:
    sensors = {"s2": SensorSpec(S2, ("B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B11", "B12"))}
    return get_embedding(
        TINY_ANYSAT, PointBuffer(7, 51, 120), SUMMER, sensor=sensors, modality="s2", backend=FieldProvider(),
        pretrained=False, output=OutputSpec.grid(),
    )  # fmt: skip


CALLS: Mapping[str, Callable[[], Embedding]] = {
    "mosaiks": lambda: get_embedding("mosaiks_rcf", HERE, backend="sample"),
    "mosaiks_whole_scene": lambda: get_embedding("mosaiks_rcf", backend="sample", output=OutputSpec.grid()),
    "mosaiks_polygon": lambda: get_embedding("mosaiks_rcf", TRIANGLE, backend="sample"),
    "thor_resized": thor,
    "thor_tiled": lambda: thor(input_prep="tile", output=OutputSpec.grid()),
    "thor_cropped_box": lambda: thor(
        spatial=BBox(12.93, 47.765, 12.945, 47.775), input_prep="crop", output=OutputSpec.grid(), patch_size=8
    ),
    "thor_two_sensors": lambda: thor(modality=("s2", "s1"), backend=FieldProvider(), temporal=SUMMER),
    "terramind_two_sensors": lambda: terramind(modality=("S2L2A", "S1GRD"), backend=FieldProvider(), temporal=SUMMER),
    "terramind_array": lambda: terramind(
        spatial=None, input_chw={"S2L2A": array(12)}, modality="S2L2A", output=OutputSpec.grid()
    ),
    "terramind_max": lambda: terramind(modality="S2L2A", backend="sample", output=OutputSpec.pooled("max")),
    "anysat_series": anysat,
    "batch_of_two": lambda: get_embeddings("mosaiks_rcf", [HERE, TRIANGLE], backend="sample")[1],
}


def kept(embedding: Embedding) -> NDArray[np.float32]:
    """A vector, or the first channels of a grid: enough to notice, and small."""
    return embedding.data[:16] if embedding.is_grid else embedding.data


def machine() -> str:
    """What decides the last bits of a product: the processor and the library."""
    names = [line for line in Path("/proc/cpuinfo").read_text().split("\n") if line.startswith("model name")]
    return f"{names[0] if names else ''}, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}"


if __name__ == "__main__":
    torch.set_num_threads(1)
    values = {name: kept(call()) for name, call in CALLS.items()}
    np.savez_compressed(sys.argv[1] if sys.argv[1:] else KEPT, machine=machine(), **values)
    print({name: value.shape for name, value in values.items()})
