"""A folder in an object store, and the units that are done in it.

What an object store offers: an object appears whole or not at all, and is seen by all at once; there is no rename, no
lock, and no step over two objects. So a unit is made in a folder of this machine, its files are put one by one, and its
record last: where there is no record, or one of another size than the table, the unit is done again.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pydantic import ValidationError

from rs_embed._optional import require
from rs_embed._redact import cause_of
from rs_embed.errors import SpecError, StorageError
from rs_embed.pipeline.inputs import FOLDER as INPUTS
from rs_embed.pipeline.journal import Record, UnitStore
from rs_embed.pipeline.units import RECORDS, TABLES
from rs_embed.writers.stac import COLLECTION

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

    from rs_embed.pipeline.export import Advance, Task, Work

SCHEMES = ("s3://", "gs://", "gcs://")
Do = Callable[["Work", "Task", "Advance"], None]


@dataclass(frozen=True)
class Remote:
    """A prefix of an object store; found by pyarrow, by its own variables (`AWS_ENDPOINT_URL` and the like)."""

    uri: str

    def __str__(self) -> str:
        """Without what a URI may hold of keys and options."""
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

    def sizes(self) -> dict[str, int]:
        """Bytes of every object, by name."""
        from pyarrow.fs import FileSelector, FileType

        store, root = self._store
        with reaching(self):
            found = store.get_file_info(FileSelector(root, recursive=True, allow_not_found=True))
        return {one.path[len(root) + 1 :]: one.size for one in found if one.type == FileType.File}

    def size(self, name: str) -> int | None:
        """Bytes of one object; `None` if it is not there."""
        from pyarrow.fs import FileType

        store, root = self._store
        with reaching(self):
            (found,) = store.get_file_info([f"{root}/{name}"])
        size: int | None = found.size if found.type == FileType.File else None
        return size

    def get(self, name: str, folder: Path) -> bool:
        """Copy an object into a folder, under its own name; whether it was there."""
        store, root = self._store
        if self.size(name) is None:
            return False
        path = folder / name
        with reaching(self):
            path.parent.mkdir(parents=True, exist_ok=True)
            with store.open_input_stream(f"{root}/{name}") as source, path.open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
        return True

    def put(self, folder: Path, name: str) -> None:
        """Copy a file, or all files of a folder, into the store: each is whole there or not there."""
        store, root = self._store
        path = folder / name
        for file in [path] if path.is_file() else sorted(one for one in path.rglob("*") if one.is_file()):
            key = f"{root}/{file.relative_to(folder).as_posix()}"
            with reaching(self), file.open("rb") as source, store.open_output_stream(key) as target:
                shutil.copyfileobj(source, target, 1 << 20)

    def remove(self, name: str) -> None:
        """Remove an object, if it is there."""
        store, root = self._store
        if self.size(name) is not None:
            with reaching(self):
                store.delete_file(f"{root}/{name}")


@contextmanager
def reaching(remote: Remote) -> Iterator[None]:
    """Whatever the store refuses becomes one `StorageError`."""
    import pyarrow as pa

    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise StorageError(
            f"Wanted the object store at {str(remote)!r}, found: {' '.join(str(error).split())[:400]}",
            fix="check the bucket, credentials and endpoint, then run the same again: what is finished is kept",
        ) from cause_of(error)


def place_of(out: str | Path) -> Path | Remote:
    """A folder of this machine, or one of an object store.

    Raises:
        SpecError: A store that is not known.
    """
    text = str(out)
    if text.startswith(SCHEMES):
        return Remote(text.rstrip("/"))
    if "://" in text:
        raise SpecError(f"Wanted a folder, or one of {', '.join(SCHEMES)}, found {text!r}.", fix="choose one of these")
    return Path(out).expanduser()


def local_place(path: str | Path) -> Path:
    """A folder of this machine.

    Raises:
        SpecError: It lies in an object store.
    """
    place = place_of(path)
    if isinstance(place, Remote):
        raise SpecError(
            f"Wanted a run on this machine, found {str(place)!r}.",
            fix="download_run(uri, folder) first; an export goes on by the same call again",
        )
    return place


def do_at(where: Path | Remote, work_in: "Callable[[Path], Work]", task: "Task", advance: "Advance", do: Do) -> None:
    """Do a unit where the run lies.

    Of an object store, it is done in a folder of this machine that is there for it alone; then what is new is put.

    Args:
        where: The run.
        work_in: The work, in a folder.
        task: The unit.
        advance: Told of each row.
        do: `run_unit` or `give_up`.
    """
    if isinstance(where, Path):
        do(work_in(where), task, advance)
        return
    with TemporaryDirectory(prefix="rs-embed-") as text:
        folder, remote = Path(text), where
        work = work_in(folder)
        stores = [model.store for model in work.models]
        before = {store.folder.name: _pull(remote, store, task, folder) for store in stores}
        if all(record is not None and not record.failed for record in before.values()):
            advance(len(task.unit.rows) * len(stores), 0)
            return
        do(work, task, advance)
        if (folder / INPUTS).is_dir():
            remote.put(folder, INPUTS)
        for store in stores:
            _push(remote, store, task, before[store.folder.name])


def _pull(remote: Remote, store: UnitStore, task: "Task", folder: Path) -> Record | None:
    """The record of a unit as the store has it, and here the files that are needed to go on with it."""
    name, unit = store.folder.name, task.unit
    table = f"{name}/{TABLES}/{unit.name}.parquet"
    remote.get(f"{name}/{RECORDS}/{unit.name}.json", folder)
    try:
        record = Record.model_validate_json(store.record(unit).read_text("utf-8"))
    except (FileNotFoundError, ValidationError, UnicodeDecodeError):
        record = None
    stamp = None if record is None else record.files.get(f"{TABLES}/{unit.name}.parquet")
    fits = record is not None and stamp is not None and record.fingerprint == store.fingerprint
    if not fits or stamp is None or remote.size(table) != stamp.bytes:
        record = None
    if record is None:
        store.record(unit).unlink(missing_ok=True)
        remote.get(table, folder)  # perhaps whole, and only its record missing
    elif record.failed:
        for file in record.files:
            _pull_file(remote, f"{name}/{file}", folder)
    return record


def _pull_file(remote: Remote, name: str, folder: Path) -> None:
    if not remote.get(name, folder):  # a Zarr is a folder
        for one in remote.sizes():
            if one.startswith(f"{name}/"):
                remote.get(one, folder)


def _push(remote: Remote, store: UnitStore, task: "Task", before: Record | None) -> None:
    """Put the files that are new, the grids first and the record last."""
    record = store.read(task.unit)
    if record is None or record == before:
        return
    remote.remove(f"{store.folder.name}/{COLLECTION}")  # first: it lists the unit as it was
    known = {} if before is None else before.files
    folder, name = store.folder.parent, store.folder.name
    for file in sorted(record.files, key=lambda one: one.startswith(TABLES)):
        if known.get(file) != record.files[file]:
            remote.put(folder, f"{name}/{file}")
    remote.put(folder, f"{name}/{RECORDS}/{task.unit.name}.json")
