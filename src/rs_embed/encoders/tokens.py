"""The output of an encoder: token values and their layout."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class TokenGrid:
    """One rectangle of patch tokens, laid out row by row from its north-west corner."""

    name: str
    """Name of the grid, such as "group0" (THOR) or "S2L2A" (TerraMind); unique in a layout."""
    height: int
    """Tokens from north to south."""
    width: int
    """Tokens from west to east."""

    @property
    def length(self) -> int:
        """Number of tokens in the grid."""
        return self.height * self.width


@dataclass(frozen=True)
class TokenLayout:
    """The order of a token sequence: prefix tokens first, then each grid."""

    grids: tuple[TokenGrid, ...]
    """Grids in sequence order; they may differ in size but all cover the same ground."""
    prefix: int = 0
    """Number of class or register tokens before the first grid."""

    @property
    def length(self) -> int:
        """Number of tokens in the sequence, including the prefix."""
        return self.prefix + sum(grid.length for grid in self.grids)


@dataclass(frozen=True, eq=False)
class Tokens:
    """The output of an encoder for a batch of inputs of one layout."""

    values: Float[Tensor, "batch token dim"]
    """Token values `[batch, token, dim]`, in the order of `layout`."""
    layout: TokenLayout
    """The layout of the tokens."""
