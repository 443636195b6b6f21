"""A map of somebody else under the page, from the network: only if it is named, and only when it is chosen."""

import re
from dataclasses import dataclass
from typing import Self

from rs_embed.core.checks import short
from rs_embed.errors import SpecError

BaseMap = tuple[str, str]
"""Address of the tiles, with {z}, {x} and {y}, and the line that their terms of use ask for."""
_ADDRESS = re.compile(r"(https://[\w.-]+(?::\d+)?|http://(?:127\.0\.0\.1|localhost)(?::\d+)?)/[^\s\"'<>\\]*", re.ASCII)


@dataclass(frozen=True)
class Tiles:
    """Tiles of 256 px in Web Mercator, in the numbering of most servers (XYZ)."""

    url: str
    origin: str
    """The scheme and the host: all that the page may ask."""
    credit: str

    @classmethod
    def of(cls, given: BaseMap) -> Self:
        """Check what the user named.

        Raises:
            SpecError: It is not an address and a line.
        """
        if not isinstance(given, tuple | list) or len(given) != 2 or not all(isinstance(one, str) for one in given):
            raise SpecError(
                f"Expected the address of tiles and their attribution, got {short(given)}.",
                fix='for example base_map=("https://tiles.example.org/{z}/{x}/{y}.png", "© Example")',
            )
        url, credit = given
        found = _ADDRESS.fullmatch(url)
        if found is None or not all(part in url for part in ("{z}", "{x}", "{y}")):
            raise SpecError(
                f"Expected an address with https, {{z}}, {{x}} and {{y}}, got {short(url)}.",
                fix='for example "https://tiles.example.org/{z}/{x}/{y}.png"',
            )
        if not credit.strip():
            raise SpecError("Expected the attribution of the base map, got none.", fix='for example "© Example"')
        return cls(url, found[1], credit.strip())
