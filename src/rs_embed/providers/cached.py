"""A chip cache on disk, so that a second model, or a second run, does not fetch the same chips again."""

import hashlib
import json
import math
import os
import re
import tempfile
import threading
import zipfile
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from rs_embed.core.bands import bands_of, unit_named
from rs_embed.core.chip import Chip, Source
from rs_embed.core.specs import Series
from rs_embed.core.stopping import PerProcess
from rs_embed.errors import StorageError
from rs_embed.providers.base import Provider, Query, Wrapped, pixels_of

FORMAT = 2
SWEEP_EVERY = 50
"""Number of chips written between two checks of the folder's size."""
_OURS = re.compile(r"[0-9a-f]{64}(?:\.npz|-\w+\.tmp)")
"""Names of the cache's files in the folder."""
SWEEP_TO = 0.9
"""Share of the limit that remains after a sweep."""


class CachedProvider(Wrapped):
    """A provider that caches chips in a folder. Several threads and processes can use the folder at once.

    The cache key is everything that determines the pixels: the provider's identity, sensor, grid, days, series. When
    the folder exceeds its limit, the chips that were unused for longest are removed first.

    Args:
        provider: Fetches chips that are not cached.
        folder: The cache folder; made if it does not exist.
        limit_gb: Largest size of the folder, GB.

    Raises:
        StorageError: The folder cannot be made.
    """

    def __init__(self, provider: Provider, folder: Path, limit_gb: float) -> None:
        super().__init__(provider)
        self._folder, self._limit = folder, limit_gb * 1e9
        self._written = 0
        self._lock = PerProcess(threading.Lock)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"Expected a folder for chips at {str(folder)!r}, got: {error}.", fix="change or unset the chip cache"
            ) from error

    def fetch(self, query: Query) -> Chip:
        """Return the cached chip, or fetch and cache it.

        Raises:
            StorageError: The chip cannot be written, for example because the disk is full.
        """
        path = self._path(query)
        chip = _read(path, query)
        if chip is None:
            chip = self._provider.fetch(query)
            self._keep(chip, path)
        return chip

    def _path(self, query: Query) -> Path:
        box = query.geobox
        facts = {
            "format": FORMAT,
            "provider": self._provider.identity(),
            "sensor": pixels_of(query).sensor.facts(),
            "grid": None if box is None else [str(box.crs), tuple(box.affine)[:6], tuple(box.shape)],
            "window": None if query.window is None else repr(query.window),
            "series": None if query.series is None else _facts_of(query.series),
        }
        key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        return self._folder / key[:2] / f"{key}.npz"

    def _keep(self, chip: Chip, path: Path) -> None:
        """Write to a temporary file and rename it, so that no process reads half a chip."""
        try:
            path.parent.mkdir(exist_ok=True)
            with tempfile.NamedTemporaryFile(
                dir=path.parent, prefix=f"{path.stem}-", suffix=".tmp", delete=False
            ) as file:
                aside = Path(file.name)
                try:
                    np.savez(file, values=chip.values, facts=np.frombuffer(_facts(chip, path.stem), np.uint8))
                    file.close()
                    aside.replace(path)
                except BaseException:
                    aside.unlink(missing_ok=True)
                    raise
        except OSError as error:
            raise StorageError(
                f"Expected to write a chip to {str(self._folder)!r}, got: {error}.",
                fix="free some space, or unset the chip cache",
            ) from error
        with self._lock.here:
            self._written += 1
            due = self._written % SWEEP_EVERY == 1
        if due:
            self._sweep()

    def _sweep(self) -> None:
        """Remove the chips unused for longest if the folder is too large; other processes may do the same."""
        found = []
        for path in self._folder.glob("*/*"):
            if not _OURS.fullmatch(path.name):  # not a file of the cache
                continue
            try:
                status = path.lstat()
            except FileNotFoundError:
                continue
            found.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in found)
        if total <= self._limit:
            return
        for _, size, path in sorted(found):
            path.unlink(missing_ok=True)
            total -= size
            if total <= SWEEP_TO * self._limit:
                return


def _facts(chip: Chip, asked: str) -> bytes:
    box, source = chip.geobox, asdict(chip.source)
    source["scene_times"] = [time.isoformat() for time in chip.source.scene_times]
    facts = {
        "asked": asked,
        "grid": None if box is None else [str(box.crs), tuple(box.affine)[:6], tuple(box.shape)],
        "times": [None if time is None else time.isoformat() for time in chip.times],
        "units": [str(band.unit) for band in chip.bands],
        "source": source,
    }
    return json.dumps(facts).encode()


def _read(path: Path, query: Query) -> Chip | None:
    """Read a cached chip; `None` if it is missing, damaged or for another request (then it is fetched again)."""
    try:
        if not path.is_file():  # reading a pipe would never end
            return None
        with zipfile.ZipFile(path) as packed:
            facts, values = _array(packed, "facts.npy", "|u1", 1), _array(packed, "values.npy", "<f4", 4)
        chip = _chip(values, facts.tobytes(), query, path.stem)
        os.utime(path)
    except _BROKEN:
        return None
    return chip


_BROKEN = (
    *(OSError, EOFError, zipfile.BadZipFile, NotImplementedError, RuntimeError, RecursionError),
    *(ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError),
)
"""The exceptions that a damaged or foreign file leads to."""


def _facts_of(series: Series) -> dict[str, object]:
    """Return what decides which frames there are; a later field counts only if it is set, so that keys stay equal."""
    return {name: value for name, value in asdict(series).items() if (name, value) != ("keep_empty", False)}


def _array(packed: zipfile.ZipFile, name: str, dtype: str, axes: int) -> NDArray[np.generic]:
    """Read an array of at most the size of its file: a few bytes may declare gigabytes.

    Raises:
        ValueError: It is not stored or declared as the cache does.
    """
    entry = packed.getinfo(name)
    with packed.open(entry) as file:
        np.lib.format.read_magic(file)
        shape, _, kind = np.lib.format.read_array_header_1_0(file)
    too_large = math.prod(shape) * kind.itemsize > entry.file_size
    if entry.compress_type != zipfile.ZIP_STORED or kind.str != dtype or len(shape) != axes or too_large:
        raise ValueError(f"{name} is {kind.str} {shape} in {entry.file_size} bytes")
    with packed.open(entry) as file:
        array: NDArray[np.generic] = np.lib.format.read_array(file, allow_pickle=False)
    return array


def _chip(values: NDArray[np.generic], packed_facts: bytes, query: Query, asked: str) -> Chip:
    facts = json.loads(packed_facts)
    grid, source = facts["grid"], facts["source"]
    if facts["asked"] != asked:
        raise ValueError("the chip is for another request")
    lists = {name: tuple(value) for name, value in source.items() if isinstance(value, list)}
    lists["scene_times"] = tuple(datetime.fromisoformat(time) for time in source["scene_times"])
    geobox = None if grid is None else GeoBox(tuple(grid[2]), Affine(*grid[1]), grid[0])
    times = tuple(None if time is None else datetime.fromisoformat(time) for time in facts["times"])
    bands = bands_of(query.sensor.collection, query.sensor.bands)
    bands = tuple(replace(band, unit=unit_named(unit)) for band, unit in zip(bands, facts["units"], strict=True))
    if query.geobox not in (None, geobox):
        raise ValueError("the chip is on another grid")
    return Chip(values.astype(np.float32, copy=False), bands, geobox, times, Source(**(source | lists)))
