"""The one guard for packages that not every user needs."""

from importlib.util import find_spec

from rs_embed.errors import MissingDependency


def require(package: str, extra: str) -> None:
    """Say how to install an optional package.

    Raises:
        MissingDependency: It is not installed.
    """
    spec = find_spec(package)
    if spec is None or spec.origin is None:  # a folder of that name on the path is no package
        raise MissingDependency(
            f"Expected the package {package!r}, got none.", fix=f"pip install 'eo-rs-embed[{extra}]'"
        )
