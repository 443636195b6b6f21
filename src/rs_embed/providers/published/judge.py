"""Interpret the failures of a public store."""

from rs_embed.errors import AccessRefused, ProviderError, QuotaExceeded, ReadError, ServiceUnavailable
from rs_embed.providers.common.retry import Verdict
from rs_embed.providers.stac.http import Garbled, Refusal, Silence

_LATER = "try again later, or set the address of a copy"
_NO_NETWORK = "check the network, and HTTPS_PROXY if you need one, or set the address of a copy that you can reach"
_REFUSED = "check the address; some buckets answer 403 for a file that does not exist, others 404, which means nodata"
_ADDRESS = "check the address, which must be of the store itself, on a server that supports byte ranges"


class StoreJudge:
    """Interprets the failures of a store.

    Args:
        who: The store in messages, such as "AlphaEarth's public store".
    """

    judges: tuple[type[Exception], ...] = (Refusal, Silence, Garbled)

    def __init__(self, who: str) -> None:
        self._who = who

    def verdict(self, error: Exception, doing: str) -> Verdict:
        """See `Judge`."""
        said = str(error)[:300] or None
        if isinstance(error, Refusal):
            return self._of_status(error, doing, said)
        if isinstance(error, Garbled):
            return Verdict("final", self._error(ReadError, "more than the bytes requested", doing, said, _ADDRESS))
        if isinstance(error, Silence) and error.offline:
            found = "no answer: this machine seems to be offline, or the host does not exist"
            return Verdict("final", self._error(ServiceUnavailable, found, doing, said, _NO_NETWORK))
        return Verdict("transient", self._error(ServiceUnavailable, "no answer", doing, said, _LATER))

    def _of_status(self, error: Refusal, doing: str, said: str | None) -> Verdict:
        status, wait_s = error.status, error.retry_after_s
        if status == 429:
            return Verdict("throttled", self._error(QuotaExceeded, "too many requests", doing, said, _LATER), wait_s)
        if status in (401, 403):
            return Verdict("final", self._error(AccessRefused, f"a refusal ({status})", doing, said, _REFUSED))
        if status < 500 and status != 408:
            return Verdict("final", self._error(ReadError, f"a refusal ({status})", doing, said, _ADDRESS))
        found = f"an error of the server ({status})"
        return Verdict("transient", self._error(ServiceUnavailable, found, doing, said, _LATER), wait_s)

    def _error(self, kind: type[ProviderError], found: str, doing: str, said: str | None, fix: str) -> ProviderError:
        return kind(f"Expected an answer of {self._who} ({doing}), got {found}.", said=said, fix=fix)
