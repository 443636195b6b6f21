"""The interface of a published product: what the provider asks of it, and what it returns."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from rs_embed.errors import OutsideCoverage
from rs_embed.providers.common.grids import in_degrees
from rs_embed.providers.published.store import Store


@dataclass(frozen=True)
class Found:
    """The embeddings of a chip."""

    values: NDArray[np.float32]
    """`[C, H, W]`, all bands of the collection; NaN is nodata."""
    ids: tuple[str, ...]
    """Which parts of the store were read."""
    notes: tuple[str, ...] = ()


class Product(Protocol):
    """Reads a product from its public store."""

    @property
    def collection(self) -> str:
        """Its collection (see `rs_embed.core.bands`)."""
        ...

    @property
    def store(self) -> Store:
        """The store."""
        ...

    def read(self, year: int, geobox: GeoBox) -> Found:
        """Return the embeddings of a calendar year on a grid.

        Raises:
            OutsideCoverage: The store does not cover the grid.
            NoImagery: It does not have the year.
            ProviderError: It could not be read; one class per reason.
        """
        ...

    def described(self) -> str:
        """Read the metadata of the store, and say what it holds.

        Raises:
            ProviderError: It did not answer, or is laid out in another way than documented.
        """
        ...

    def own_grid(self, geobox: GeoBox) -> GeoBox:
        """Return the grid of the product's own pixels that cover another grid.

        Raises:
            OutsideCoverage: The store does not cover it.
            ProviderError: It could not be read; one class per reason.
        """
        ...


def outside(who: str, geobox: GeoBox, covered: str) -> OutsideCoverage:
    """Return the error for a place that a store does not cover."""
    return OutsideCoverage(
        f"Expected a place that {who} covers, got one outside.",
        place=in_degrees(geobox),
        covered=covered,
        fix="choose another place",
    )
