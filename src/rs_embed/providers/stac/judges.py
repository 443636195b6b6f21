"""Interpret failures: of STAC APIs and other HTTP services, of GDAL reading files, and of signing links."""

import re

from rasterio.errors import RasterioError
from requests import RequestException

from rs_embed.errors import AccessRefused, ProviderError, QuotaExceeded, ReadError, ServiceUnavailable
from rs_embed.providers.common.retry import Verdict
from rs_embed.providers.stac.access import Access
from rs_embed.providers.stac.http import Garbled, NoToken, Refusal, Silence

_LATER = "try again later, or use another catalogue"
_NO_NETWORK = (
    "check the network, and HTTPS_PROXY if you need one; without a network, use files of your own, or "
    'backend="sample" to try things out'
)
_STATUS = re.compile(r"(?:HTTP response code|HTTP error code|response_code|returned error)\s*[:=]?\s*(\d{3})", re.I)
_NO_KEY = re.compile(r"AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch|AWS_SECRET_ACCESS_KEY|credentials", re.I)
_GONE = re.compile(r"NoSuchKey|NoSuchBucket|BlobNotFound", re.I)


class Broken(Exception):
    """A file that exists but cannot be read, even with new requests."""


class HttpJudge:
    """Interprets the failures of a service that is requested over HTTP.

    Args:
        who: The service in messages, such as "the STAC catalogue earth-search".
        refused: Error class for a status from 400 to 499 without a meaning of its own.
    """

    judges: tuple[type[Exception], ...] = (Refusal, Silence, Garbled)

    def __init__(self, who: str, refused: type[ProviderError] = ReadError) -> None:
        self._who, self._refused = who, refused

    def verdict(self, error: Exception, doing: str) -> Verdict:
        """See `Judge`."""
        message = words(error)[:300] or None
        if isinstance(error, Refusal):
            return self._of_status(error, doing, message)
        if isinstance(error, Silence) and error.offline:
            found = "no answer: this machine seems to be offline, or the host does not exist"
            return Verdict("final", self._error(ServiceUnavailable, found, doing, message, _NO_NETWORK))
        if isinstance(error, Garbled):
            return Verdict("transient", self._error(ReadError, "something else", doing, message, _LATER))
        return Verdict("transient", self._error(ServiceUnavailable, "no answer", doing, message, _LATER))

    def _of_status(self, error: Refusal, doing: str, message: str | None) -> Verdict:
        status, wait_s = error.status, error.retry_after_s
        if status == 429:
            quota = self._error(QuotaExceeded, "too many requests", doing, message, _LATER)
            return Verdict("throttled", quota, wait_s)
        if status in (401, 403):
            fix = 'if it requires a key, use StacCatalog(..., headers={"Authorization": "Bearer ..."})'
            return Verdict("final", self._error(AccessRefused, f"a refusal ({status})", doing, message, fix))
        if status < 500 and status != 408:
            fix = "check the catalogue's URL"
            return Verdict("final", self._error(self._refused, f"a refusal ({status})", doing, message, fix))
        found = f"an error of the server ({status})"
        return Verdict("transient", self._error(ServiceUnavailable, found, doing, message, _LATER), wait_s)

    def _error(self, kind: type[ProviderError], found: str, doing: str, message: str | None, fix: str) -> ProviderError:
        return kind(f"Expected an answer of {self._who} ({doing}), got {found}.", said=message, fix=fix)


_TOKENS = HttpJudge("the token service that signs links", AccessRefused)
_SERVERS = HttpJudge("the server of a file")


class FileJudge:
    """Interprets the failures of GDAL and of signing, as far as their messages allow."""

    judges: tuple[type[Exception], ...] = (RasterioError, OSError, RequestException, Refusal, Silence, NoToken, Broken)

    def __init__(self, access: Access) -> None:
        self._access = access

    def verdict(self, error: Exception, doing: str) -> Verdict:
        """See `Judge`."""
        if isinstance(error, NoToken):
            cause = error.__cause__
            return _TOKENS.verdict(cause if isinstance(cause, Exception) else error, doing)
        if isinstance(error, Silence):
            return _SERVERS.verdict(error, doing)
        message = words(error)
        if isinstance(error, Broken):
            fix = "report it to the catalogue; to leave the scene out, use on_missing='skip'"
            return Verdict("final", _error(ReadError, "a file that cannot be read", doing, message, fix))
        status = error.status if isinstance(error, Refusal) else status_in(message)
        if status is not None or isinstance(error, Refusal):
            return self._of_status(status or 0, doing, message)
        later = _error(ServiceUnavailable, "no answer", doing, message, _LATER)
        return Verdict("transient", later)

    def _of_status(self, status: int, doing: str, message: str) -> Verdict:
        if status == 429:
            error = _error(QuotaExceeded, "too many requests", doing, message, "lower RS_EMBED_STAC_CONCURRENCY")
            return Verdict("throttled", error)
        if status in (401, 403):
            fix = "check whether the catalogue requires signed links, headers, or keys (access=S3Access(...))"
            refused = _error(AccessRefused, f"a refusal ({status})", doing, message, fix)
            return Verdict("unauthorised" if self._access.renews else "final", refused)
        if status in (404, 410):
            fix = "report it to the catalogue; to leave the scene out, use on_missing='skip'"
            return Verdict("final", _error(ReadError, f"no such file ({status})", doing, message, fix))
        if status == 503 and ("busy" in message.casefold() or "egress" in message.casefold()):
            return Verdict("throttled", _error(QuotaExceeded, "a busy server (503)", doing, message, _LATER))
        return Verdict("transient", _error(ServiceUnavailable, f"no pixels ({status})", doing, message, _LATER))


def _error(kind: type[ProviderError], found: str, doing: str, message: str, fix: str) -> ProviderError:
    return kind(f"Expected pixels ({doing}), got {found}.", said=message[:500] or None, fix=fix)


def status_in(message: str) -> int | None:
    """The HTTP status in a message of GDAL or of a bucket."""
    found = _STATUS.search(message)
    if found is not None:
        return int(found[1])
    return 404 if _GONE.search(message) else 403 if _NO_KEY.search(message) else None


def words(error: BaseException | None) -> str:
    """The messages of an error and its causes, without markup and signatures."""
    message: list[str] = []
    while error is not None and len(message) < 8:
        message.append(re.sub(r"<[^>]{0,200}>|\s+", " ", str(error)).strip())
        error = error.__cause__ or error.__context__
    return re.sub(r"\?[^\s'\"]*", "?...", "; ".join(dict.fromkeys(one for one in message if one)))
