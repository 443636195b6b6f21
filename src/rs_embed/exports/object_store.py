"""Run folders in an object store, and the units that are done in them.

In an object store, an object appears completely or not at all, and all readers see it at once. There is no rename, no
lock, and no atomic change of two objects. So a unit is made in a folder on this machine, and its files are uploaded one
by one, its record last: a unit that does not match its record is done again.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from rs_embed.core.checks import short
from rs_embed.core.optional import require
from rs_embed.errors import SpecError, StorageError
from rs_embed.exports.fetching.inputs import FOLDER as INPUTS
from rs_embed.exports.records import Record, Stamp, UnitStore
from rs_embed.exports.unit import TABLES, WorkUnit
from rs_embed.formats.stac import COLLECTION
from rs_embed.redact import cause_of

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

    from rs_embed.exports.work import Advance, Task, Work

SCHEMES = ("s3://", "gs://", "gcs://")
Do = Callable[["Work", "Task", "Advance"], None]


@dataclass(frozen=True)
class Remote:
    """A prefix in an object store. pyarrow finds it, configured by variables such as `AWS_ENDPOINT_URL`."""

    uri: str

    def __str__(self) -> str:
        """Return the URI without credentials and options."""
        parts = urlsplit(self.uri)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    @cached_property
    def _store(self) -> "tuple[FileSystem, str]":
        require("pyarrow", "export")
        from pyarrow.fs import FileSystem

        with reaching(self):
            store, path = FileSystem.from_uri(self.uri)
        return store, path.rstrip("/")

    def __reduce__(self) -> "tuple[type[Remote], tuple[str]]":
        return Remote, (self.uri,)

    def sizes(self, folder: str = "") -> dict[str, int]:
        """Return name -> bytes of all objects, or of those in a folder."""
        from pyarrow.fs import FileSelector, FileType

        store, root = self._store
        root = f"{root}/{folder}" if folder else root
        with reaching(self):
            found = store.get_file_info(FileSelector(root, recursive=True, allow_not_found=True))
        return {one.path[len(root) + 1 :]: one.size for one in found if one.type == FileType.File}

    def size(self, name: str) -> int | None:
        """Return the bytes of one object; `None` if it does not exist."""
        from pyarrow.fs import FileType

        store, root = self._store
        with reaching(self):
            (found,) = store.get_file_info([f"{root}/{name}"])
        size: int | None = found.size if found.type == FileType.File else None
        return size

    def get(self, name: str, folder: Path) -> bool:
        """Download an object into a folder, under its own name; return whether it exists."""
        store, root = self._store
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise StorageError(
                f"Expected object names inside {str(self)!r}, got {name!r}.", fix="pass the `out` of an export"
            )
        if self.size(name) is None:
            return False
        path = folder / name
        with reaching(self):
            path.parent.mkdir(parents=True, exist_ok=True)
            with store.open_input_stream(f"{root}/{name}") as source, path.open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
        return True

    def put(self, folder: Path, name: str) -> None:
        """Upload a file, or all files of a folder: each appears completely or not at all."""
        store, root = self._store
        path = folder / name
        for file in [path] if path.is_file() else sorted(one for one in path.rglob("*") if one.is_file()):
            key = f"{root}/{file.relative_to(folder).as_posix()}"
            with reaching(self), file.open("rb") as source, store.open_output_stream(key) as target:
                shutil.copyfileobj(source, target, 1 << 20)

    def remove(self, name: str) -> None:
        """Remove an object if it exists; another worker may do so at the same time."""
        store, root = self._store
        if self.size(name) is not None:
            with reaching(self), suppress(FileNotFoundError):
                store.delete_file(f"{root}/{name}")


@contextmanager
def reaching(remote: Remote) -> Iterator[None]:
    """Turn any error of the store into a `StorageError`."""
    import pyarrow as pa

    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise StorageError(
            f"Expected the object store at {str(remote)!r} to answer, got: {' '.join(str(error).split())[:400]}",
            fix="check the bucket, credentials and endpoint, then run the same command again; finished work is kept",
        ) from cause_of(error)


def place_of(out: str | Path) -> Path | Remote:
    """Return a folder on this machine, or one in an object store.

    Raises:
        SpecError: The URI is of an unknown store.
    """
    if not isinstance(out, str | Path):
        raise SpecError(f"Expected a folder, got {short(out)}.", fix="pass its path")
    text = str(out)
    if text.startswith(SCHEMES):
        return Remote(text.rstrip("/"))
    if "://" in text:
        raise SpecError(f"Expected a folder, or a URI with {', '.join(SCHEMES)}, got {text!r}.", fix="use one of these")
    return Path(out).expanduser()


def local_place(path: str | Path) -> Path:
    """Return a folder on this machine.

    Raises:
        SpecError: The folder is in an object store.
    """
    place = place_of(path)
    if isinstance(place, Remote):
        raise SpecError(
            f"Expected a run on this machine, got {str(place)!r}.",
            fix="call download_run(uri, folder) first; to resume an export, repeat its call",
        )
    return place


def do_at(where: Path | Remote, work_in: "Callable[[Path], Work]", task: "Task", advance: "Advance", do: Do) -> None:
    """Do a unit where the run is.

    For an object store, the unit is done in a temporary folder on this machine; what is new is uploaded at each
    checkpoint and at the end.

    Args:
        where: The location of the run.
        work_in: Makes the work for a folder.
        task: The unit.
        advance: Called after each row.
        do: `run_unit` or `give_up`.
    """
    if isinstance(where, Path):
        do(work_in(where), task, advance)
        return
    with TemporaryDirectory(prefix="rs-embed-") as text:
        _do_remote(where, work_in(Path(text)), task, advance, do)


def _do_remote(remote: Remote, work: "Work", task: "Task", advance: "Advance", do: Do) -> None:
    copies = [_pull(remote, model.store, task.unit, verify=work.verify) for model in work.models]
    if all(copy.is_whole for copy in copies):
        advance(len(task.unit.rows) * len(copies), 0)
        return

    kept: set[str] = set()

    def put() -> None:
        for path in sorted((work.folder / INPUTS).glob("*/[!.]*")):  # hidden ones are still being written
            name = path.relative_to(work.folder).as_posix()
            if name not in kept:
                remote.put(work.folder, name)
                kept.add(name)
        for copy in copies:
            _push(remote, copy, task.unit)

    models = tuple(replace(model, store=copy.store) for model, copy in zip(work.models, copies, strict=True))
    do(replace(work, models=models, stored=put), task, advance)
    put()  # for the case that only a record had to be restored


@dataclass
class _Copy:
    """The local state of a unit of one model, and the state in the store."""

    store: UnitStore
    known: dict[str, Stamp] = field(default_factory=dict)
    """Files in the store that match their record, as far as they were checked."""
    sent: Record | None = None
    """The record in the store."""
    is_whole: bool = False
    """Whether the unit is finished; then nothing was downloaded."""


def _pull(remote: Remote, store: UnitStore, unit: WorkUnit, *, verify: bool) -> _Copy:
    """Download what is needed to resume a unit. Grids are downloaded only to be compared."""
    table, folder = store.name(store.table(unit)), store.folder.parent
    size = remote.size(f"{store.folder.name}/{table}")
    for path in (store.record(unit), store.announced(unit)):
        record = _brought(remote, path, folder)
        if record is not None and table in record.files and record.files[table].bytes == size:
            break
    else:
        return _Copy(store)
    sent = record if path == store.record(unit) else None
    grids = {name: stamp for name, stamp in record.files.items() if name != table}
    sizes = _sizes_of(remote, store, unit) if grids else {}
    there = {name: stamp for name, stamp in grids.items() if sizes.get(name) == stamp.bytes}
    is_ours = sent is not None and record.fingerprint == store.fingerprint
    if is_ours and record.is_whole and there == grids and not verify:
        return _Copy(store, is_whole=True)
    remote.get(f"{store.folder.name}/{table}", folder)
    if verify:
        for name in there:
            _get_all(remote, f"{store.folder.name}/{name}", folder)
        there = {name: stamp for name, stamp in there.items() if stamp.fault(store.folder / name) is None}
    else:
        store = replace(store, elsewhere={name: sizes.get(name, -1) for name in grids})
    if record.files[table].fault(store.table(unit)) is None:
        there[table] = record.files[table]
    return _Copy(store, there, sent)


def _brought(remote: Remote, path: Path, folder: Path) -> Record | None:
    """Download a record; `None` if it does not exist or is damaged."""
    remote.get(path.relative_to(folder).as_posix(), folder)
    try:
        return Record.load(path)
    except StorageError:
        return None


def _sizes_of(remote: Remote, store: UnitStore, unit: WorkUnit) -> dict[str, int]:
    """Return path in the model's folder -> bytes, for the grids of a unit. A Zarr folder counts as one grid."""
    prefix = store.name(store.grids(unit))
    sizes: dict[str, int] = {}
    for name, size in remote.sizes(f"{store.folder.name}/{prefix}").items():
        grid = f"{prefix}/{name.partition('/')[0]}"
        sizes[grid] = sizes.get(grid, 0) + size
    return sizes


def _get_all(remote: Remote, name: str, folder: Path) -> None:
    if not remote.get(name, folder):  # a folder
        for one in remote.sizes(name):
            remote.get(f"{name}/{one}", folder)


def _push(remote: Remote, copy: _Copy, unit: WorkUnit) -> None:
    """Upload new files: the grids, the announced record, the table, and the record last."""
    store = copy.store
    record = Record.load(store.record(unit))
    if record is None or record == copy.sent:
        return
    folder, name = store.folder.parent, store.folder.name
    remote.remove(f"{name}/{COLLECTION}")  # first: it lists the unit as it was
    announced, told = store.announced(unit), store.record(unit)
    shutil.copyfile(told, announced)
    new = [file for file, stamp in record.files.items() if copy.known.get(file) != stamp]
    grids = [file for file in new if not file.startswith(f"{TABLES}/")]
    for file in [*grids, store.name(announced), *(file for file in new if file not in grids), store.name(told)]:
        remote.put(folder, f"{name}/{file}")
    remote.remove(f"{name}/{store.name(announced)}")
    announced.unlink()
    copy.known, copy.sent = dict(record.files), record
