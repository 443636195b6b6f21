"""Write one embedding to a file and read it back, in any registered format."""

import re
from functools import cache
from pathlib import Path
from typing import Literal, Protocol

from rs_embed.core.atomic import replacing
from rs_embed.core.checks import require_choice
from rs_embed.core.plugins import plugins
from rs_embed.core.resources import SPARE_BYTES, is_about_space, require_room
from rs_embed.embedding.embedding import Embedding
from rs_embed.errors import SpecError, StorageError
from rs_embed.formats.geotiff import Cog
from rs_embed.formats.netcdf import NetCdf
from rs_embed.formats.npz import Npz
from rs_embed.formats.parts import UNREADABLE
from rs_embed.formats.zarr_store import Zarr
from rs_embed.redact import logger

_LOG = logger(__name__)
PLUGINS = "rs_embed.formats"
"""Group of entry points, each of which names a class that implements `FileFormat`."""
TABLES = {"geoparquet": ".parquet"}
"""Name and suffix used by tables of vectors, which no format may take."""


class FileFormat(Protocol):
    """A format that stores one embedding as a file, or as a folder that counts as one.

    Write the texts that `rs_embed.formats.texts_of` returns next to the arrays, and rebuild the embedding with
    `rs_embed.formats.from_parts`.
    """

    name: str
    """Name of the format for `export_embeddings(format=...)`."""
    suffix: str
    """Suffix of its files, such as ".npz"; unique to the format."""
    media_type: str
    """Media type for STAC."""
    grids_only: bool
    """Whether the format holds only grids, not vectors."""

    def room(self, embedding: Embedding) -> int:
        """Return the largest number of bytes that writing may take on disk."""
        ...

    def write(self, embedding: Embedding, path: Path) -> None:
        """Write to exactly this path, which does not exist yet. The same embedding must give the same bytes.

        Raises:
            OSError: Writing failed.
            StorageError: The format cannot hold this embedding.
        """
        ...

    def read(self, path: Path) -> Embedding:
        """Read back exactly what `write` wrote. For a damaged or foreign file, any common exception may be raised."""
        ...


_FORMATS: dict[str, FileFormat] = {one.name: one for one in (Cog(), Zarr(), NetCdf(), Npz())}
"""Name -> format."""


def register_format(added: FileFormat) -> None:
    """Register a file format for `Embedding.save` and `load`, and for `export_embeddings` and `open_run` by its name.

    Registering the same class again replaces it. To make a format available in other processes, such as those of a
    cluster, declare it in a package as an entry point of the group `rs_embed.formats`.

    Args:
        added: The format.

    Raises:
        SpecError: The name or suffix has invalid characters, or another format uses it.
    """
    fix = 'choose for example name = "pair", suffix = ".pair"'
    if not re.fullmatch(r"[a-z][a-z0-9_]*", added.name):
        raise SpecError(f"Expected a format name of lower-case letters and digits, got {added.name!r}.", fix=fix)
    if not re.fullmatch(r"\.[a-z0-9_]+", added.suffix):
        raise SpecError(f"Expected a suffix of a dot and lower-case letters, got {added.suffix!r}.", fix=fix)
    taken = {one.name: one.suffix for one in _FORMATS.values() if type(one).__qualname__ != type(added).__qualname__}
    for name, suffix in {**taken, **TABLES}.items():
        if added.name == name or added.suffix == suffix:
            raise SpecError(
                f"Expected an unused format name and suffix, got {added.name!r}, {added.suffix!r}.",
                taken=f"{name!r}, {suffix!r}",
                fix=fix,
            )
    _FORMATS[added.name] = added


def formats() -> tuple[FileFormat, ...]:
    """Return all formats: those of this package, of installed packages, and registered ones."""
    _load_installed()
    return tuple(_FORMATS.values())


@cache
def _load_installed() -> None:
    for plugin in plugins(PLUGINS):
        try:
            register_format(plugin.entry.load()())
        except Exception as error:  # noqa: BLE001  (third-party code must not break the other formats)
            _LOG.warning(
                "Cannot use the format %s of %s: %s: %s", plugin.name, plugin.package, type(error).__name__, error
            )


def format_named(name: str) -> FileFormat:
    """Return the format with a name.

    Raises:
        SpecError: No format has this name.
    """
    named = {one.name: one for one in formats()}
    require_choice("the format of grids", name, tuple(named))
    return named[name]


def format_of(path: Path) -> FileFormat | None:
    """Return the format with the suffix of a path, or `None`."""
    return next((one for one in formats() if one.suffix == path.suffix), None)


def save(embedding: Embedding, path: Path) -> Path:
    """Write an embedding under a temporary name, then rename it, so that a file is never partial."""
    kind = check_path(path, embedding.meta.output)
    size = kind.room(embedding)
    try:
        require_room(path.parent, size)
        with replacing(path, durable=False) as part:
            kind.write(embedding, part)
    except OSError as error:
        raise StorageError(
            f"Expected to write {str(path)!r}, got: {error}.",
            fix=f"free disk space: up to {(size + SPARE_BYTES) / 1e6:.1f} MB are needed"
            if is_about_space(error)
            else "check that the folder exists, that you may write to it, and that no folder has this name",
        ) from error
    return path


def check_path(path: Path, output: Literal["pooled", "grid"]) -> FileFormat:
    """Return the format of a path, checked before anything is computed.

    Raises:
        StorageError: `save` could not write this output to this path.
    """
    kind = format_of(path)
    if kind is None:
        raise StorageError(
            f"Expected a file name ending in {_suffixes()}, got {str(path)!r}.", fix="choose one of them"
        )
    if not path.parent.is_dir():
        raise StorageError(f"Expected to write {str(path)!r}, got no such folder.", fix="create the folder first")
    if kind.grids_only and output == "pooled":
        raise StorageError(
            f"Expected a grid for a file ending in {kind.suffix}, got a pooled vector.",
            fix="save it as .npz or .nc, or request a grid",
        )
    return kind


def load(path: Path) -> Embedding:
    """Read what `save` wrote."""
    kind, there = format_of(path), _is_there(path)
    if kind is None or not there or not (path.is_file() or path.is_dir()):  # reading a pipe would block
        raise StorageError(
            f"Expected a file ending in {_suffixes()}, got {str(path)!r}{'' if there else ', which does not exist'}.",
            fix="pass a file that Embedding.save wrote",
        )
    try:
        return kind.read(path)
    except UNREADABLE as error:
        raise StorageError(
            f"{str(path)!r} is not a readable embedding of rs_embed ({type(error).__name__}: {error}).",
            fix="pass a file that Embedding.save or export_embeddings wrote; if this is one, it is damaged",
        ) from error


def _suffixes() -> str:
    return ", ".join(one.suffix for one in formats())


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # the name is too long or contains a NUL
        return False
