"""Links that must be signed to be read: at the last moment, and anew when a token has run out."""

import threading
from typing import Protocol

from rs_embed._optional import require


class Signer(Protocol):
    """Makes links readable. Called from several threads."""

    @property
    def signs(self) -> bool:
        """Whether a link that is refused may be readable if it is signed anew."""
        ...

    def sign(self, href: str) -> str:
        """The link, readable for a while."""
        ...

    def renew(self, signed: str) -> None:
        """The service refused this signed link: what it was signed with is not to be used again."""
        ...


class Unsigned:
    """Links that anybody can read."""

    signs = False

    def sign(self, href: str) -> str:
        """The link as it is."""
        return href

    def renew(self, signed: str) -> None:
        """Nothing to renew."""


class PlanetaryComputerSigner:
    """Tokens of the Planetary Computer, one per account and container, kept by its own package until they run out."""

    signs = True

    def __init__(self) -> None:
        self._asking = threading.Lock()

    def sign(self, href: str) -> str:
        """See `Signer`; links that are not in Azure's storage stay as they are.

        Raises:
            MissingDependency: The package planetary-computer is not installed.
            requests.RequestException: There is no token to be had.
        """
        require("planetary_computer", extra="stac")
        import planetary_computer  # not above: slow, and only this catalogue needs it

        with self._asking:  # else every thread would ask for the first token
            signed: str = planetary_computer.sign(href)
        return signed

    def renew(self, signed: str) -> None:
        """See `Signer`. Of many threads that are refused together, the first forgets the token."""
        from planetary_computer import sas

        with self._asking:
            for key, token in list(sas.TOKEN_CACHE.items()):
                if token.token in signed:
                    del sas.TOKEN_CACHE[key]
