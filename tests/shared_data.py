"""Real scenes that lie beside the checkout and are not part of it; tests of them are skipped where they are not."""

from pathlib import Path

import pytest


def terramesh(kind: str) -> list[Path]:
    """The example files of TerraMesh of one kind, such as "S2L2A"."""
    for folder in Path(__file__).resolve().parents[1].parents:
        if found := sorted((folder / "shared" / "data" / "terramesh" / kind).glob("*.tif")):
            return found
    pytest.skip("needs ../shared/data/terramesh beside the checkout")
