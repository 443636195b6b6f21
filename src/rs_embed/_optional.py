"""The one guard for packages that not every user needs."""

from importlib.util import find_spec

from rs_embed.errors import MissingDependency


def require(package: str, extra: str) -> None:
    """Say how to install an optional package.

    Raises:
        MissingDependency: It is not installed.
    """
    if find_spec(package) is None:
        raise MissingDependency(
            f"Wanted the package {package!r}, found none.", fix=f"pip install 'eo-rs-embed[{extra}]'"
        )
