"""One embedding, written to a file and read back with its metadata and its place: the formats, and their one table."""

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
"""Group of entry points: each names a class that is a `FileFormat`."""
TABLES = {"geoparquet": ".parquet"}
"""What is taken by tables of vectors."""


class FileFormat(Protocol):
    """How one embedding is kept as a file, or as a folder that counts as one.

    `rs_embed.formats.texts_of` gives what stands beside the arrays, `from_parts` puts an embedding together again.
    """

    name: str
    """What `export_embeddings(format=...)` calls it."""
    suffix: str
    """What the names of its files end in, such as ".npz"; no other format has it."""
    media_type: str
    """What STAC calls it."""
    grids_only: bool
    """Whether it cannot hold a vector."""

    def room(self, embedding: Embedding) -> int:
        """Bytes that writing may take on the disk."""
        ...

    def write(self, embedding: Embedding, path: Path) -> None:
        """Write to exactly this path, where nothing is. The same embedding gives the same bytes.

        Raises:
            OSError: The disk refuses.
            StorageError: The format cannot hold this embedding.
        """
        ...

    def read(self, path: Path) -> Embedding:
        """What `write` wrote, to the bit. Any common error will do for a file that is damaged, or somebody else's."""
        ...


_FORMATS: dict[str, FileFormat] = {one.name: one for one in (Cog(), Zarr(), NetCdf(), Npz())}
"""By name."""


def register_format(added: FileFormat) -> None:
    """Make a format known: to `Embedding.save` and `load`, and by its name to `export_embeddings` and `open_run`.

    One that is registered again takes its own place. Other processes, as those of a cluster, know it if its package
    names it as an entry point of the group `rs_embed.formats`.

    Raises:
        SpecError: Its name or suffix is no plain one, or another format has it.
    """
    fix = 'for example name = "pair", suffix = ".pair"'
    if not re.fullmatch(r"[a-z][a-z0-9_]*", added.name):
        raise SpecError(f"Expected a format named in small letters and digits, got {added.name!r}.", fix=fix)
    if not re.fullmatch(r"\.[a-z0-9_]+", added.suffix):
        raise SpecError(f"Expected a suffix of a dot and small letters, got {added.suffix!r}.", fix=fix)
    taken = {one.name: one.suffix for one in _FORMATS.values() if type(one).__qualname__ != type(added).__qualname__}
    for name, suffix in {**taken, **TABLES}.items():
        if added.name == name or added.suffix == suffix:
            raise SpecError(
                f"Expected a format of its own name and suffix, got {added.name!r}, {added.suffix!r}.",
                taken=f"{name!r}, {suffix!r}",
                fix=fix,
            )
    _FORMATS[added.name] = added


def formats() -> tuple[FileFormat, ...]:
    """Every format there is: those of this package, those of other packages, and those that were registered."""
    _load_installed()
    return tuple(_FORMATS.values())


@cache
def _load_installed() -> None:
    for plugin in plugins(PLUGINS):
        try:
            register_format(plugin.entry.load()())
        except Exception as error:  # noqa: BLE001  (the code of others; the formats that work are not to suffer)
            _LOG.warning(
                "the format %s of %s cannot be used: %s: %s", plugin.name, plugin.package, type(error).__name__, error
            )


def format_named(name: str) -> FileFormat:
    """The format of that name.

    Raises:
        SpecError: There is none.
    """
    named = {one.name: one for one in formats()}
    require_choice("the format of grids", name, tuple(named))
    return named[name]


def format_of(path: Path) -> FileFormat | None:
    """The format of files so named; `None` if there is none."""
    return next((one for one in formats() if one.suffix == path.suffix), None)


def save(embedding: Embedding, path: Path) -> Path:
    """Write under a temporary name, then rename: a file is whole or not there."""
    kind = check_path(path, embedding.meta.output)
    size = kind.room(embedding)
    try:
        require_room(path.parent, size)
        with replacing(path, durable=False) as part:
            kind.write(embedding, part)
    except OSError as error:
        raise StorageError(
            f"Expected to write {str(path)!r}, got: {error}.",
            fix=f"make room: {(size + SPARE_BYTES) / 1e6:.1f} MB at most are needed"
            if is_about_space(error)
            else "check that the folder exists and may be written to, and that no folder has that name",
        ) from error
    return path


def check_path(path: Path, output: Literal["pooled", "grid"]) -> FileFormat:
    """The format of a path; raises `StorageError` where `save` could not write, before anything is computed for it."""
    kind = format_of(path)
    if kind is None:
        raise StorageError(
            f"Expected a file name ending in {_suffixes()}, got {str(path)!r}.", fix="choose one of them"
        )
    if not path.parent.is_dir():
        raise StorageError(f"Expected to write {str(path)!r}, got no such folder.", fix="make the folder first")
    if kind.grids_only and output == "pooled":
        raise StorageError(
            f"Expected a grid for a file ending in {kind.suffix}, got a pooled vector.",
            fix="save it as .npz or .nc, or ask for a grid",
        )
    return kind


def load(path: Path) -> Embedding:
    """Read what `save` wrote."""
    kind, there = format_of(path), _is_there(path)
    if kind is None or not there or not (path.is_file() or path.is_dir()):  # a pipe would be waited for
        raise StorageError(
            f"Expected a file ending in {_suffixes()}, got {str(path)!r}{'' if there else ', which does not exist'}.",
            fix="give a file that Embedding.save wrote",
        )
    try:
        return kind.read(path)
    except UNREADABLE as error:
        raise StorageError(
            f"{str(path)!r} is not an embedding of rs_embed ({type(error).__name__}: {error}).",
            fix="give a file that Embedding.save or export_embeddings wrote; if it was one, it is damaged",
        ) from error


def _suffixes() -> str:
    return ", ".join(one.suffix for one in formats())


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long for a name, or with a NUL
        return False
