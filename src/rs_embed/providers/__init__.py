"""Providers of imagery. `open_provider` turns what a user passes as `backend=` into a `Provider`."""

import sys
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Protocol, TypeGuard, runtime_checkable

from rs_embed.core.bands import nearest
from rs_embed.core.checks import short
from rs_embed.core.chip import Chip
from rs_embed.core.plugins import PROVIDERS, Plugin, plugins
from rs_embed.errors import NotConfigured, PluginWarning, RSEmbedError, SpecError, warn
from rs_embed.providers.base import Provider, Query

__all__ = ["Provider", "Query", "open_provider"]

_RASTER_SUFFIXES = (".tif", ".tiff", ".vrt", ".zarr", ".jp2", ".img", ".nc")
_CHOICES = 'use backend="gee", backend="stac", backend="sample", the path of a raster, or a LocalRasters(...)'


def _sample() -> Provider:
    from rs_embed.providers.sample import SampleScene  # here, because rasterio is slow to import

    return SampleScene()


def _earth_engine() -> Provider:
    from rs_embed.providers.earthengine.provider import EarthEngine  # here, because it needs google-auth

    return EarthEngine()


def _stac() -> Provider:
    from rs_embed.providers.stac.provider import Stac  # here, because it needs the extra `stac`

    return Stac()


def _published() -> Provider:
    from rs_embed.providers.published.provider import PublishedEmbeddings  # here, because it needs the extra `export`

    return PublishedEmbeddings()


def _gee_or_published() -> Provider:
    from rs_embed.providers.auto import chosen_for_embeddings  # here, because it needs google-auth

    return chosen_for_embeddings()


def _auto() -> Provider:
    from rs_embed.providers.auto import chosen  # here, because it needs google-auth

    return chosen(_CHOICES)


_BACKENDS: Mapping[str, Callable[[], Provider]] = {
    "sample": _sample,
    "gee": _earth_engine,
    "stac": _stac,
    "published": _published,
    "gee-or-published": _gee_or_published,
    "auto": _auto,
}
"""Name -> factory: a new backend is one line. Other packages add theirs by entry points of the group
`rs_embed.providers`."""


@runtime_checkable
class _Fetches(Protocol):
    """The least that an object must have to be taken for a provider."""

    def fetch(self, query: Query) -> Chip: ...


def open_provider(backend: str | Path | Provider) -> Provider:
    """Return the provider that a user means.

    Args:
        backend: A name ("sample", or one that an installed package adds), the path of a raster, a pattern of paths
            ("tiles/*.tif"), or a provider, which is returned as it is.

    Raises:
        SpecError: It is none of these.
        NotConfigured: The backend is known but cannot be used.
        ReadError: The raster does not exist or cannot be read.
    """
    require_backend(backend)
    named = _named()
    if isinstance(backend, str) and backend in named:
        return named[backend]()
    if isinstance(backend, str | Path):
        from rs_embed.providers.rasters.folder import RasterFolder, is_pattern  # here: rasterio is slow to import
        from rs_embed.providers.rasters.local import LocalRasters

        return RasterFolder(str(backend)) if is_pattern(backend) else LocalRasters(backend)
    return backend


def require_backend(backend: str | Path | Provider) -> None:
    """Raise `SpecError` unless `backend` is a backend. Whether it can be used is checked when it is opened."""
    named = _named()
    if isinstance(backend, Path) or (isinstance(backend, str) and (backend in named or _is_path(backend))):
        return
    if _is_provider(backend):
        return
    guess = nearest(backend, named) if isinstance(backend, str) else None
    raise SpecError(
        f"Expected a backend, got {backend!r}.",
        known=", ".join(named),
        fix=f"did you mean {guess!r}?" if guess else _CHOICES,
    )


def _named() -> Mapping[str, Callable[[], Provider]]:
    return {**_installed(tuple(sys.path)), **_BACKENDS}


@lru_cache(maxsize=8)
def _installed(path: tuple[str, ...]) -> Mapping[str, Callable[[], Provider]]:
    """Return name -> factory for installed packages; a name that is already taken is ignored, with one warning."""
    found: dict[str, Callable[[], Provider]] = {}
    for plugin in plugins(PROVIDERS):
        if plugin.name in _BACKENDS or plugin.name in found:
            warn(f"{plugin.package}: the backend {plugin.name!r} is ignored, as that name is taken.", PluginWarning)
        else:
            found[plugin.name] = partial(_made, plugin)
    return found


def _made(plugin: Plugin) -> Provider:
    """Make the provider of an installed package.

    Raises:
        NotConfigured: Its code fails, or makes something else.
    """
    expected, fix = f"Expected the backend {plugin.name!r}", f"repair or remove the package {plugin.package}"
    try:
        factory = plugin.load()
        provider = factory() if callable(factory) else factory
    except RSEmbedError:
        raise
    except Exception as error:  # other people's code: the message names the package
        raise NotConfigured(f"{expected}, got {type(error).__name__}: {error}.", fix=fix) from error
    if not _is_provider(provider):
        raise NotConfigured(f"{expected}, got {short(provider)}.", fix=fix)
    return provider


def _is_provider(given: object) -> TypeGuard[Provider]:
    """Whether it has `fetch`; `Checked` checks what that returns."""
    return isinstance(given, _Fetches) and not isinstance(given, str | type)


def _is_path(text: str) -> bool:
    if "/" in text or "\\" in text or text.lower().endswith(_RASTER_SUFFIXES):
        return True
    try:
        return text != "" and Path(text).exists()
    except (OSError, ValueError):  # too long for a path, or contains a NUL
        return False
