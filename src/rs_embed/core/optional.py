"""The check for optional packages."""

from importlib.util import find_spec

from rs_embed.errors import MissingDependency


def require(package: str, extra: str) -> None:
    """Check that an optional package is installed.

    Raises:
        MissingDependency: It is not; the error says how to install it.
    """
    spec = find_spec(package)
    if spec is None or spec.origin is None:  # a folder of that name on the path is not a package
        raise MissingDependency(
            f"Expected the package {package!r}, got none.", fix=f"pip install 'eo-rs-embed[{extra}]'"
        )
