"""Windows of files on the web: opened once per process, read by many threads, tried again with a new request."""

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
"""A file that could not be read so often, though its server has it, is broken."""


def gdal_options(timeout_s: float, cache_mb: int) -> dict[str, str | int]:
    """How GDAL reads from the web, whatever the user's environment says."""
    return {
        "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # no listing, no side-cars: 3 requests to a file instead of 13
        "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",  # blocks side by side come in one request
        "GDAL_HTTP_MULTIPLEX": "YES",  # one connection where the server speaks HTTP/2
        "GDAL_INGESTED_BYTES_AT_OPEN": 16_384,  # one chunk of GDAL's cache: the header of any usual COG, and no more
        "GDAL_HTTP_TIMEOUT": max(1, round(timeout_s)),  # none by default: a silent server would hold a thread forever
        "GDAL_HTTP_CONNECTTIMEOUT": max(1, min(10, round(timeout_s))),
        "GDAL_HTTP_MAX_RETRY": 0,  # ours is the retry: it knows the limits that all threads share
        "CPL_VSIL_CURL_CACHE_SIZE": cache_mb * 1_000_000,  # what was read, for the next point of the same block
        "VSI_CACHE": "NO",  # a second cache of 25 MB for every open file, of the same bytes
        "CPL_VSIL_CURL_USE_HEAD": "YES",
        "GTIFF_IGNORE_READ_ERRORS": "NO",  # else a block that did not come would be zeros, which look like nodata
        "GTIFF_POINT_GEO_IGNORE": "NO",  # else half a pixel off
        "GDAL_GEOREF_SOURCES": "INTERNAL",
        "GDAL_NUM_THREADS": 1,  # ours are the threads
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
    """GDAL as it is to be while it reads a file."""
    plain = {name: value for name, value in of_file.items() if name not in _KEYS}
    return rasterio.Env(_Keys(of_file), **{**ours, **plain})


@dataclass
class _File:
    """One file, open or to be opened; used by the thread that holds its lock."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    dataset: rasterio.DatasetReader | None = None
    header: Header | None = None
    name: str = ""
    """For GDAL, as it was opened last, signed."""
    options: Mapping[str, str] = field(default_factory=dict)
    """That GDAL needs to read it."""
    failed: bool = False
    """GDAL remembers a failure, and would not ask again unless told to."""
    unreadable: int = 0
    """How often it could not be read in a row, without a reason."""

    def close(self) -> None:
        dataset, self.dataset, self.header = self.dataset, None, None
        if dataset is not None:
            dataset.close()


class _Kept:
    """What a pool holds in one process."""

    def __init__(self) -> None:
        self.files: OrderedDict[str, _File] = OrderedDict()
        self.lock = threading.Lock()


class Pool:
    """The files of this process, those unused for longest closed. Safe to use from several threads."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept = PerProcess(_Kept)

    def __len__(self) -> int:
        return len(self._kept.here.files)

    def file(self, href: str) -> _File:
        """The file of that link, open or not."""
        kept = self._kept.here
        with kept.lock:
            file = kept.files.setdefault(href, _File())
            kept.files.move_to_end(href)
            surplus = [kept.files.popitem(last=False)[1] for _ in range(len(kept.files) - self._size)]
        for one in surplus:
            with taken(one.lock):  # whoever still reads from it finishes first
                one.close()
        return file


_POOL = Pool(OPEN_FILES)


Resampler = Callable[[float], Resampling]
"""From how many pixels of a file stand side by side in one of the grid."""


def nearest(finer_by: float) -> rasterio.enums.Resampling:
    """Repeated where pixels are as large or larger, averaged where they are finer, so that none is skipped."""
    return Resampling.average if finer_by >= AVERAGE_FROM else Resampling.nearest


def bilinear(finer_by: float) -> rasterio.enums.Resampling:
    """Interpolated, but averaged where they are finer."""
    return Resampling.average if finer_by >= AVERAGE_FROM else Resampling.bilinear


def sampled(finer_by: float) -> rasterio.enums.Resampling:
    """Never a mixture of pixels: for classes, and for a quick look."""
    return Resampling.nearest


class Files:
    """Reads windows of files on the web. Safe to call from several threads."""

    def __init__(self, opener: Opener, retry: Retry, timeout_s: float, cache_mb: int, pool: Pool = _POOL) -> None:
        self._opener, self._retry, self._pool = opener, retry, pool
        self._options = gdal_options(timeout_s, cache_mb)

    def read(self, asset: Asset, geobox: GeoBox, take: Take) -> Pixels | None:
        """The stored numbers on a grid, `[C, H, W]`, NaN for nodata; `None` if the file lies wholly outside.

        Raises:
            ReadError: The file is not there, or broken.
            SensorNotOffered: It has not so many bands.
            ProviderError: The file could not be read, and why.
            Stopped: The job of this thread was stopped.
        """
        file = self._pool.file(asset.href)
        with taken(file.lock):  # neighbours wait, then find header and blocks read
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
            current().check()  # between the requests that open it and those that read
            with _env(self._options, file.options):
                return read_open(dataset, header.grid, geobox, take)
        except (RasterioError, OSError) as error:
            file.close()
            file.failed = True
            self._explain(file, error)
            raise

    def _opened(self, file: _File, asset: Asset) -> tuple[rasterio.DatasetReader, Header]:
        if file.dataset is None or file.header is None:
            opened = self._opener.opened(asset.href, asset.service)  # late: a token may run out soon
            file.name, file.options = opened.name, opened.options
            if not file.name.startswith("/vsi") and not Path(file.name).is_file():
                raise Refusal(404, f"no such file on this machine: {file.name}", None)
            afresh = {"CPL_VSIL_CURL_NON_CACHED": file.name.partition("?")[0]} if file.failed else {}
            # Other drivers read what names further files: a VRT on the web could name any of this machine.
            driver = "JP2OpenJPEG" if asset.file.lower().endswith(".jp2") else "GTiff"
            with _env(self._options, {**file.options, **afresh}):
                # Without its overviews, a file cannot be read at another size than asked by accident.
                file.dataset = rasterio.open(file.name, driver=driver, sharing=False, OVERVIEW_LEVEL="NONE")
            file.header = header_of(asset.file, file.dataset)
        return file.dataset, file.header

    def _explain(self, file: _File, error: Exception) -> None:
        """Find out what GDAL does not tell.

        Raises:
            Broken: The server has the file, and still it could not be read several times.
            Refusal: The server says why.
            Silence: It does not answer.
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
