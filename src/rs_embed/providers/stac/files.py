"""Read windows of files on the web: each process opens a file once, many threads read it, and failures are retried."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import rasterio
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.session import Session

from rs_embed.core.stopping import PerProcess, current
from rs_embed.errors import SensorNotOffered
from rs_embed.providers.common.grids import is_outside
from rs_embed.providers.common.plausible import Pixels
from rs_embed.providers.common.retry import Retry
from rs_embed.providers.rasters.raster import AVERAGE_FROM, Header, Take, header_of, read_open
from rs_embed.providers.stac.http import Refusal
from rs_embed.providers.stac.items import Asset
from rs_embed.providers.stac.judges import Broken, status_in, words
from rs_embed.providers.stac.opener import Opener
from rs_embed.providers.stac.waiting import taken

OPEN_FILES = 256
"""Files kept open. Each holds its header and, within GDAL's own limit of memory, the blocks read last."""
UNREADABLE_TRIES = 3
"""After this many failures in a row, a file counts as broken if its server has it."""


def gdal_options(timeout_s: float, cache_mb: int) -> dict[str, str | int]:
    """How GDAL reads from the web, whatever the user's environment says."""
    return {
        "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # no listing, no side-cars: 3 requests per file instead of 13
        "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",  # blocks side by side come in one request
        "GDAL_HTTP_MULTIPLEX": "YES",  # one connection where the server speaks HTTP/2
        "GDAL_INGESTED_BYTES_AT_OPEN": 16_384,  # one chunk of GDAL's cache: the header of any usual COG, and no more
        "GDAL_HTTP_TIMEOUT": max(1, round(timeout_s)),  # none by default: a silent server would hold a thread forever
        "GDAL_HTTP_CONNECTTIMEOUT": max(1, min(10, round(timeout_s))),
        "GDAL_HTTP_MAX_RETRY": 0,  # we retry ourselves, within the limits that all threads share
        "CPL_VSIL_CURL_CACHE_SIZE": cache_mb * 1_000_000,  # keep what was read for the next point in the same block
        "VSI_CACHE": "NO",  # a second cache of 25 MB for every open file, of the same bytes
        "CPL_VSIL_CURL_USE_HEAD": "YES",
        "GTIFF_IGNORE_READ_ERRORS": "NO",  # otherwise a missing block would be read as zeros, which look like nodata
        "GTIFF_POINT_GEO_IGNORE": "NO",  # otherwise positions are off by half a pixel
        "GDAL_GEOREF_SOURCES": "INTERNAL",
        "GDAL_NUM_THREADS": 1,  # we use threads of our own
    }


class _Keys(Session):  # type: ignore[misc]  # rasterio has no types
    """Keys of a bucket for GDAL: rasterio takes them by a session only."""

    def __init__(self, options: Mapping[str, str]) -> None:
        self._keys = {name: options[name] for name in _KEYS if name in options}

    def get_credential_options(self) -> dict[str, str]:
        """What GDAL needs."""
        return self._keys


_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


def _env(ours: Mapping[str, str | int], of_file: Mapping[str, str]) -> rasterio.Env:
    """The GDAL environment to read a file in."""
    plain = {name: value for name, value in of_file.items() if name not in _KEYS}
    return rasterio.Env(_Keys(of_file), **{**ours, **plain})


@dataclass
class _File:
    """One file, open or not yet open; only the thread that holds its lock uses it."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    dataset: rasterio.DatasetReader | None = None
    header: Header | None = None
    name: str = ""
    """The signed name with which GDAL opened it last."""
    options: Mapping[str, str] = field(default_factory=dict)
    """GDAL options to read it."""
    failed: bool = False
    """Whether GDAL must forget a failure before it tries again."""
    unreadable: int = 0
    """Number of unexplained failures in a row."""

    def close(self) -> None:
        dataset, self.dataset, self.header = self.dataset, None, None
        if dataset is not None:
            dataset.close()


class _Kept:
    """The state of a pool in one process."""

    def __init__(self) -> None:
        self.files: OrderedDict[str, _File] = OrderedDict()
        self.lock = threading.Lock()


class Pool:
    """The open files of this process; the least recently used are closed. Safe to use from several threads."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept = PerProcess(_Kept)

    def __len__(self) -> int:
        return len(self._kept.here.files)

    def file(self, href: str) -> _File:
        """Return the file behind a link, open or not."""
        kept = self._kept.here
        with kept.lock:
            file = kept.files.setdefault(href, _File())
            kept.files.move_to_end(href)
            surplus = [kept.files.popitem(last=False)[1] for _ in range(len(kept.files) - self._size)]
        for one in surplus:
            with taken(one.lock):  # a thread that still reads from it finishes first
                one.close()
        return file


_POOL = Pool(OPEN_FILES)


Resampler = Callable[[float], Resampling]
"""Decides from the number of file pixels along one pixel of the grid."""


def nearest(finer_by: float) -> rasterio.enums.Resampling:
    """Nearest neighbour where file pixels are as large as the grid's or larger; average where they are finer."""
    return Resampling.average if finer_by >= AVERAGE_FROM else Resampling.nearest


def bilinear(finer_by: float) -> rasterio.enums.Resampling:
    """Bilinear; average where file pixels are finer than the grid's."""
    return Resampling.average if finer_by >= AVERAGE_FROM else Resampling.bilinear


def sampled(finer_by: float) -> rasterio.enums.Resampling:
    """Nearest neighbour, always: for classes and for previews."""
    return Resampling.nearest


class Files:
    """Reads windows of files on the web. Safe to call from several threads."""

    def __init__(self, opener: Opener, retry: Retry, timeout_s: float, cache_mb: int, pool: Pool = _POOL) -> None:
        self._opener, self._retry, self._pool = opener, retry, pool
        self._options = gdal_options(timeout_s, cache_mb)

    def read(self, asset: Asset, geobox: GeoBox, take: Take) -> Pixels | None:
        """Return the stored numbers on a grid, `[C, H, W]`, NaN for nodata; `None` if the file does not overlap it.

        Raises:
            ReadError: The file is missing or broken.
            SensorNotOffered: It has fewer bands than requested.
            ProviderError: The file could not be read; the error says why.
            Stopped: The job of this thread was stopped.
        """
        file = self._pool.file(asset.href)
        with taken(file.lock):  # other threads wait, then find the header and blocks in the cache
            file.unreadable = 0
            return self._retry.call(lambda: self._read(file, asset, geobox, take), f"reading {asset.file}")

    def _read(self, file: _File, asset: Asset, geobox: GeoBox, take: Take) -> Pixels | None:
        try:
            dataset, header = self._opened(file, asset)
            if is_outside(header.grid, geobox):
                return None
            if max(take.indexes) > header.count:
                raise SensorNotOffered(
                    f"Expected band {max(take.indexes)} of {asset.file}, got {header.count} in it.",
                    fix="leave that band out, or choose other days: older photographs lack the near infrared",
                )
            current().check()  # between the requests that open the file and those that read it
            with _env(self._options, file.options):
                return read_open(dataset, header.grid, geobox, take)
        except (RasterioError, OSError) as error:
            file.close()
            file.failed = True
            self._explain(file, error)
            raise

    def _opened(self, file: _File, asset: Asset) -> tuple[rasterio.DatasetReader, Header]:
        if file.dataset is None or file.header is None:
            opened = self._opener.opened(asset.href, asset.service)  # as late as possible: a token may expire soon
            file.name, file.options = opened.name, opened.options
            if not file.name.startswith("/vsi") and not Path(file.name).is_file():
                raise Refusal(404, f"no such file on this machine: {file.name}", None)
            afresh = {"CPL_VSIL_CURL_NON_CACHED": file.name.partition("?")[0]} if file.failed else {}
            # Other drivers follow references to further files: a VRT on the web could name any file on this machine.
            driver = "JP2OpenJPEG" if asset.file.lower().endswith(".jp2") else "GTiff"
            with _env(self._options, {**file.options, **afresh}):
                # Without overviews, a file cannot be read at another size by accident.
                file.dataset = rasterio.open(file.name, driver=driver, sharing=False, OVERVIEW_LEVEL="NONE")
            file.header = header_of(asset.file, file.dataset)
        return file.dataset, file.header

    def _explain(self, file: _File, error: Exception) -> None:
        """Find the cause of a failure that GDAL does not report.

        Raises:
            Broken: The server has the file, but it could not be read several times.
            Refusal: The server says why.
            Silence: The server does not answer.
        """
        message = words(error)
        status = status_in(message)
        if status in (401, 403):
            self._opener.access.renew(file.name)
        if status is not None or "timed out" in message.casefold():
            return
        file.unreadable += 1
        if file.unreadable < UNREADABLE_TRIES:
            return
        if file.name.startswith("/vsicurl/"):
            self._opener.http.landed(file.name.removeprefix("/vsicurl/"))
        elif file.name.startswith("/vsi"):
            return
        raise Broken(message) from error
