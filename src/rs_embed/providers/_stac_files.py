"""Windows of files on the web: opened once per process, read by many threads, tried again with a new request."""

import re
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

import rasterio
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from requests import RequestException

from rs_embed.errors import (
    AccessRefused,
    ProviderError,
    QuotaExceeded,
    ReadError,
    SensorNotOffered,
    ServiceUnavailable,
)
from rs_embed.providers._grids import is_outside
from rs_embed.providers._raster import AVERAGE_FROM, Header, Take, header_of, read_open
from rs_embed.providers._retry import Retry, Verdict
from rs_embed.providers._stac_sign import Signer
from rs_embed.providers._units import Pixels

OPEN_FILES = 256
"""Files kept open. Each holds its header and, within GDAL's own limit of memory, the blocks read last."""
_STATUS = re.compile(r"(?:HTTP response code|HTTP error code|response_code|returned error)\s*[:=]?\s*(\d{3})", re.I)


def gdal_options(timeout_s: float, cache_mb: int) -> dict[str, str | int]:
    """How GDAL reads from the web."""
    return {
        "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # no listing, no side-cars: 3 requests to a file instead of 13
        "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",  # blocks side by side come in one request
        "GDAL_HTTP_MULTIPLEX": "YES",  # one connection where the server speaks HTTP/2
        "GDAL_INGESTED_BYTES_AT_OPEN": 32_768,  # the header of a full Sentinel-2 tile in the first request
        "GDAL_HTTP_TIMEOUT": max(1, round(timeout_s)),  # none by default: a silent server would hold a thread forever
        "GDAL_HTTP_CONNECTTIMEOUT": max(1, min(10, round(timeout_s))),
        "GDAL_HTTP_MAX_RETRY": 0,  # ours is the retry: it knows the limits that all threads share
        "CPL_VSIL_CURL_CACHE_SIZE": cache_mb * 1_000_000,  # what was read, for the next point of the same block
        "VSI_CACHE": "NO",  # a second cache of 25 MB for every open file, of the same bytes
    }


class FileJudge:
    """What failures of GDAL and of signing mean, as far as their words tell."""

    judges = (RasterioError, OSError, RequestException)

    def __init__(self, signer: Signer) -> None:
        self._signer = signer

    def verdict(self, error: Exception, doing: str) -> Verdict:
        """See `Judge`."""
        said = _words(error)
        status = _status(said)
        if status == 429:
            error_ = _told(QuotaExceeded, "too many requests", doing, said, "fewer at once: RS_EMBED_STAC_CONCURRENCY")
            return Verdict("throttled", error_)
        if status in (401, 403):
            refused = _told(
                AccessRefused, f"a refusal ({status})", doing, said, "does the catalogue want signed links?"
            )
            return Verdict("unauthorised" if self._signer.signs else "final", refused)
        if status in (404, 410):
            missing = _told(ReadError, f"no such file ({status})", doing, said, "report it to the catalogue")
            return Verdict("final", missing)
        later = "try again later, or use another catalogue"
        if status == 503 and ("busy" in said.casefold() or "egress" in said.casefold()):
            return Verdict("throttled", _told(QuotaExceeded, "a busy server (503)", doing, said, later))
        if (status or 0) >= 500 or isinstance(error, RequestException) or "timed out" in said.casefold():
            return Verdict(
                "transient", _told(ServiceUnavailable, f"no pixels ({status or 'no answer'})", doing, said, later)
            )
        return Verdict("transient", _told(ReadError, "an answer that cannot be read", doing, said, later))


def _told(kind: type[ProviderError], found: str, doing: str, said: str, fix: str) -> ProviderError:
    return kind(f"Wanted pixels ({doing}), found {found}.", said=said[:500], fix=fix)


def _status(said: str) -> int | None:
    found = _STATUS.search(said)
    return int(found[1]) if found else None


def _words(error: BaseException | None) -> str:
    """All that an error and its causes say, without what a link was signed with."""
    said: list[str] = []
    while error is not None and len(said) < 8:
        said.append(str(error))
        error = error.__cause__ or error.__context__
    return re.sub(r"\?[^\s'\"]*", "?...", "; ".join(dict.fromkeys(said)))


@dataclass
class _File:
    """One file, open or to be opened; used by the thread that holds its lock."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    dataset: rasterio.DatasetReader | None = None
    header: Header | None = None
    url: str = ""
    """As it was opened last, signed."""
    failed: bool = False
    """GDAL remembers a failure, and would not ask again unless told to."""

    def close(self) -> None:
        dataset, self.dataset, self.header = self.dataset, None, None
        if dataset is not None:
            dataset.close()


class Pool:
    """The files of this process, those unused for longest closed. Safe to use from several threads."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._files: OrderedDict[str, _File] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._files)

    def file(self, href: str) -> _File:
        """The file of that link, open or not."""
        with self._lock:
            file = self._files.setdefault(href, _File())
            self._files.move_to_end(href)
            surplus = [self._files.popitem(last=False)[1] for _ in range(len(self._files) - self._size)]
        for one in surplus:
            with one.lock:  # whoever still reads from it finishes first
                one.close()
        return file


_POOL = Pool(OPEN_FILES)


Resampler = Callable[[float], Resampling]
"""From how many pixels of a file stand side by side in one of the grid."""


def nearest(finer_by: float) -> Resampling:
    """Repeated where pixels are as large or larger, averaged where they are finer, so that none is skipped."""
    return Resampling.average if finer_by >= AVERAGE_FROM else Resampling.nearest


def bilinear(finer_by: float) -> Resampling:
    """Interpolated, but averaged where they are finer."""
    return Resampling.average if finer_by >= AVERAGE_FROM else Resampling.bilinear


def sampled(finer_by: float) -> Resampling:
    """Never a mixture of pixels: for classes, and for a quick look."""
    return Resampling.nearest


class Files:
    """Reads windows of files on the web. Safe to call from several threads."""

    def __init__(self, signer: Signer, retry: Retry, timeout_s: float, cache_mb: int, pool: Pool = _POOL) -> None:
        self._signer, self._retry, self._pool = signer, retry, pool
        self._options = gdal_options(timeout_s, cache_mb)

    def read(self, href: str, geobox: GeoBox, take: Take) -> Pixels | None:
        """The stored numbers on a grid, `[C, H, W]`, NaN for nodata; `None` if the file lies wholly outside.

        Raises:
            ProviderError: The file could not be read, and why.
        """
        file = self._pool.file(href)
        with file.lock:  # neighbours wait, then find header and blocks read
            return self._retry.call(lambda: self._read(file, href, geobox, take), f"reading {href.rsplit('/', 1)[-1]}")

    def _read(self, file: _File, href: str, geobox: GeoBox, take: Take) -> Pixels | None:
        try:
            with rasterio.Env(**self._options):
                dataset, header = self._opened(file, href)
                if is_outside(header.grid, geobox):
                    return None
                if max(take.indexes) > header.count:
                    raise SensorNotOffered(
                        f"Wanted band {max(take.indexes)} of {href.rsplit('/', 1)[-1]}, found {header.count} in it.",
                        fix="leave that band out, or choose other days: older photographs lack the near infrared",
                    )
                return read_open(dataset, header.grid, geobox, take)
        except (RasterioError, OSError) as error:
            file.close()
            file.failed = True
            if _status(_words(error)) in (401, 403):
                self._signer.renew(file.url)
            raise

    def _opened(self, file: _File, href: str) -> tuple[rasterio.DatasetReader, Header]:
        if file.dataset is None or file.header is None:
            file.url = "/vsicurl/" + self._signer.sign(href)  # late: a token may live for less than an hour
            afresh = {"CPL_VSIL_CURL_NON_CACHED": file.url.partition("?")[0]} if file.failed else {}
            with rasterio.Env(**afresh):
                # Without its overviews, a file cannot be read at another size than asked by accident.
                file.dataset = rasterio.open(file.url, sharing=False, OVERVIEW_LEVEL="NONE")
            file.header = header_of(href, file.dataset)
        return file.dataset, file.header
