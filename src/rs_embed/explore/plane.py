"""Vectors on a plane, for the picture beside the map of places."""

import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from rs_embed.core.checks import require_choice
from rs_embed.core.display import percent
from rs_embed.errors import MissingDependency, SpecError
from rs_embed.explore.packing import PageComponents

Projection = Literal["pca", "umap"]
_NEIGHBOURS = 15
_LEAST = 10
"""Places that UMAP needs to say anything."""


@dataclass(frozen=True, eq=False)
class Plane:
    """Where vectors lie on a plane."""

    at: NDArray[np.float32]
    """`[N, 2]`, -1 to 1."""
    text: str
    """How they came there, in a few words."""
    note: str = ""
    """What the reader of the page must know."""


def require_projection(how: str) -> None:
    """Check, before anything is computed, that a projection can be made.

    Raises:
        SpecError: There is none of that name.
        MissingDependency: umap-learn is not installed.
    """
    require_choice("projection", how, get_args(Projection))
    if how == "umap" and find_spec("umap") is None:
        raise MissingDependency("Expected the package 'umap', got none.", fix="pip install umap-learn")


def plane_of(vectors: NDArray[np.float32], components: PageComponents, how: str) -> Plane:
    """Project vectors `[N, D]`, all with a value, on a plane.

    Raises:
        SpecError: There are fewer than ten vectors for UMAP.
    """
    if how == "umap":
        neighbours = min(_NEIGHBOURS, len(vectors) - 1)
        note = "Places that lie near each other are alike. Long distances and the sizes of groups say little."
        return Plane(_scaled(_umap(vectors, neighbours)), f"UMAP, cosine, {neighbours} neighbours", note)
    parts = components.of(vectors)[:, :2]
    two = np.pad(parts, ((0, 0), (0, 2 - parts.shape[1])))
    shares = " and ".join(percent(share) for share in components.shares[:2])
    return Plane(_scaled(two), f"Components 1 and 2: {shares} of the variance")


def _umap(vectors: NDArray[np.float32], neighbours: int) -> NDArray[np.float32]:
    if len(vectors) < _LEAST:
        raise SpecError(f"Expected at least {_LEAST} places for UMAP, got {len(vectors)}.", fix='use projection="pca"')
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImportWarning)  # of a part of it that needs tensorflow
        from umap import UMAP  # type: ignore[import-untyped]

    # One thread and a seed: the same vectors give the same picture.
    fitted = UMAP(metric="cosine", n_neighbors=neighbours, init="pca", random_state=0, n_jobs=1)
    found: NDArray[np.float32] = fitted.fit_transform(vectors)
    found -= (found.min(axis=0) + found.max(axis=0)) / 2
    return found


def _scaled(at: NDArray[np.float32]) -> NDArray[np.float32]:
    scaled: NDArray[np.float32] = (at / max(float(np.abs(at).max()), 1e-12)).astype(np.float32)
    return scaled
