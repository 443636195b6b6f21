"""What an encoder returns: token values and its own account of which token is what."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class TokenGrid:
    """One rectangle of patch tokens, laid out row by row from its north-west corner."""

    name: str
    """What the grid stands for, such as "group0" (THOR) or "S2L2A" (TerraMind); unique in a layout."""
    height: int
    """Tokens from north to south."""
    width: int
    """Tokens from west to east."""

    @property
    def length(self) -> int:
        """How many tokens the grid has."""
        return self.height * self.width


@dataclass(frozen=True)
class TokenLayout:
    """The order of a token sequence: prefix tokens first, then each grid."""

    grids: tuple[TokenGrid, ...]
    """Grids in sequence order; they may differ in size but all span the same ground."""
    prefix: int = 0
    """How many class or register tokens stand before the first grid."""

    @property
    def length(self) -> int:
        """How many tokens the sequence has, prefix included."""
        return self.prefix + sum(grid.length for grid in self.grids)


@dataclass(frozen=True, eq=False)
class Tokens:
    """The output of an encoder for a batch of inputs of one layout."""

    values: Float[Tensor, "batch token dim"]
    """[batch, token, dim], in the order that `layout` tells."""
    layout: TokenLayout
    """Which token is what, as the encoder built it."""
