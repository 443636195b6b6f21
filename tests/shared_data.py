"""Real scenes and trained weights that lie beside the checkout and are not part of it; their tests are skipped where
they are not."""

from pathlib import Path

import pytest


def terramesh(kind: str) -> list[Path]:
    """The example files of TerraMesh of one kind, such as "S2L2A"."""
    return sorted(_shared(f"data/terramesh/{kind}").glob("*.tif"))


def trained(file: str) -> Path:
    """A checkpoint, such as "galileo_nano/encoder.pt"."""
    return _shared(f"weights/{file}")


def _shared(path: str) -> Path:
    for folder in Path(__file__).resolve().parents[1].parents:
        if (found := folder / "shared" / path).exists():
            return found
    pytest.skip(f"needs ../shared/{path} beside the checkout")
