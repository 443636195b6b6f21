"""How much of the tokens of a grid is only their place in the network's window, and what debias="position" leaves.

    python benchmarks/windows.py [--galileo ENCODER.pt] [--only NAME]

Each model sees windows all over the bundled scene, each as a place of its own; `rs_embed.testing.place_share` says how
much of the variance of their tokens the place in the window explains, with what chance adds taken off. What is taken
out was estimated on other windows than these: 64 of the scene and its mirror images, sheared; these lie straight on the
scene itself. The ground is the same.
"""

import argparse
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rs_embed import Embedding, OutputSpec, get_embeddings
from rs_embed.core.specs import BBox
from rs_embed.providers.sample import SampleScene
from rs_embed.testing import place_share

WEST, NORTH, CRS = 344_400, 5_294_400, "EPSG:32633"
HEIGHT_PX, WIDTH_PX, PIXEL_M = 360, 240, 10


@dataclass(frozen=True)
class Case:
    """A model, and how its windows lie."""

    name: str
    model_id: str
    window_px: int
    knobs: dict[str, object] = field(default_factory=dict)
    along: int = 8
    """Windows along either side of the scene."""


RANDOM = {"pretrained": False}


def cases(galileo: Path | None) -> list[Case]:
    """What can run here."""
    weights = RANDOM if galileo is None else {"ckpt": str(galileo)}
    how = "random" if galileo is None else "trained"
    nano = {**weights, "modality": "s2", "frames": 1, "temporal_sampling": "composite"}
    return [
        Case(f"Galileo nano, {how}, windows of 12", "galileo_1_0_nano", 96, {**nano, "window_patches": 12}),
        Case(f"Galileo nano, {how}, windows of 12, patch 4", "galileo_1_0_nano", 48,
             {**nano, "window_patches": 12, "patch_size": 4}),
        Case(f"Galileo nano, {how}, alone", "galileo_1_0_nano", 96, nano),
        Case("TerraMind tiny, random", "terramind_1_0_tiny", 128, {**RANDOM, "img": 128}, along=6),
        Case("THOR tiny, random", "thor_1_0_tiny", 128, {**RANDOM, "img": 128}, along=6),
        Case("AnySat base, random", "anysat_1_0_base", 80, {**RANDOM, "frames": 1}, along=4),
        Case("MOSAIKS", "mosaiks_rcf", 96),
    ]  # fmt: skip


def places(case: Case) -> list[BBox]:
    """Its windows, spread evenly over the scene."""
    starts = [
        (row, col)
        for row in np.linspace(0, HEIGHT_PX - case.window_px, case.along).astype(int)
        for col in np.linspace(0, WIDTH_PX - case.window_px, case.along).astype(int)
    ]
    return [_box(WEST + PIXEL_M * col, NORTH - PIXEL_M * row, case.window_px, CRS) for row, col in starts]


def _box(west: float, north: float, side_px: int, crs: str) -> BBox:
    side = side_px * PIXEL_M
    return BBox(float(west), float(north - side), float(west + side), float(north), crs=crs)


def tokens(case: Case, where: list[BBox], backend: object, debias: str) -> NDArray[np.float32]:
    """`[window, D, h, w]`."""
    output = OutputSpec.grid(debias="position" if debias == "position" else "none")
    found = get_embeddings(
        case.model_id, where, output=output, backend=backend, input_prep="tile", progress=False, **case.knobs
    )
    return np.stack([one.data for one in found if isinstance(one, Embedding)])


def row(case: Case) -> str:
    """One line of the table."""
    where = places(case)
    raw, found = (tokens(case, where, SampleScene(), debias) for debias in ("none", "position"))
    return f"| {case.name} | {case.window_px} | {len(where)} | {place_share(raw):.1%} | {place_share(found):.1%} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--galileo", type=Path, help="the checkpoint of Galileo nano; else random weights")
    parser.add_argument("--only", default="", help="models whose names begin so")
    given = parser.parse_args()
    print("| Model | Window, px | Windows | Position, before | Position, after |\n| --- | --- | --- | --- | --- |")
    for case in cases(given.galileo):
        if case.name.startswith(given.only):
            print(row(case), flush=True)


if __name__ == "__main__":
    main()
