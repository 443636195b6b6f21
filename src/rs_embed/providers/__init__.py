"""Where imagery comes from. `open_provider` turns what a user writes as `backend=` into a `Provider`."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

from rs_embed.core.bands import nearest
from rs_embed.core.chip import Chip
from rs_embed.errors import SpecError
from rs_embed.providers.base import Provider, Query

__all__ = ["Provider", "Query", "open_provider"]

_RASTER_SUFFIXES = (".tif", ".tiff", ".vrt", ".zarr", ".jp2", ".img", ".nc")
_CHOICES = 'use backend="gee", backend="stac", backend="sample", the path of a raster, or a LocalRasters(...)'


def _sample() -> Provider:
    from rs_embed.providers.sample import SampleScene  # not above: rasterio is slow to import

    return SampleScene()


def _earth_engine() -> Provider:
    from rs_embed.providers.earthengine.provider import EarthEngine  # not above: it needs google-auth

    return EarthEngine()


def _stac() -> Provider:
    from rs_embed.providers.stac.provider import Stac  # not above: it needs the extra `stac`

    return Stac()


def _auto() -> Provider:
    from rs_embed.providers.auto import chosen  # not above: it needs google-auth

    return chosen(_CHOICES)


_BACKENDS: Mapping[str, Callable[[], Provider]] = {
    "sample": _sample,
    "gee": _earth_engine,
    "stac": _stac,
    "auto": _auto,
}
"""Name -> factory: a new backend is one line."""


@runtime_checkable
class _Fetches(Protocol):
    """What tells a provider from a mistake."""

    def fetch(self, query: Query) -> Chip: ...


def open_provider(backend: str | Path | Provider) -> Provider:
    """The provider that a user means.

    Args:
        backend: A name ("sample"), the path of a raster, a pattern of paths ("tiles/*.tif"), or a provider, which is
            returned as it is.

    Raises:
        SpecError: It is none of these.
        NotConfigured: The backend is known but cannot be used.
        ReadError: There is no such raster, or it cannot be read.
    """
    require_backend(backend)
    if isinstance(backend, str) and backend in _BACKENDS:
        return _BACKENDS[backend]()
    if isinstance(backend, str | Path):
        from rs_embed.providers.rasters.folder import RasterFolder, is_pattern  # not above: rasterio is slow to import
        from rs_embed.providers.rasters.local import LocalRasters

        return RasterFolder(str(backend)) if is_pattern(backend) else LocalRasters(backend)
    return backend


def require_backend(backend: str | Path | Provider) -> None:
    """Raise `SpecError` for what is no backend; whether it can be used shows when it is opened."""
    if isinstance(backend, Path) or (isinstance(backend, str) and (backend in _BACKENDS or _is_path(backend))):
        return
    if isinstance(backend, _Fetches) and not isinstance(backend, str | type):
        return
    guess = nearest(backend, _BACKENDS) if isinstance(backend, str) else None
    raise SpecError(
        f"Expected a backend, got {backend!r}.",
        known=", ".join(_BACKENDS),
        fix=f"did you mean {guess!r}?" if guess else _CHOICES,
    )


def _is_path(text: str) -> bool:
    if "/" in text or "\\" in text or text.lower().endswith(_RASTER_SUFFIXES):
        return True
    try:
        return text != "" and Path(text).exists()
    except (OSError, ValueError):  # too long for a name, or with a NUL
        return False
