"""Interpret Earth Engine's failures: status and message decide the error class; the service's message is kept."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from google.auth.exceptions import GoogleAuthError, TransportError
from requests import RequestException, Timeout

from rs_embed.errors import (
    AccessRefused,
    ComputationTimedOut,
    NoImagery,
    NotRegistered,
    ProviderError,
    QuotaExceeded,
    ReadError,
    RequestTooLarge,
    SensorNotOffered,
    ServiceUnavailable,
)
from rs_embed.providers.common.retry import Verdict
from rs_embed.providers.earthengine.http import Refused

_REGISTER = "https://code.earthengine.google.com/register"


@dataclass(frozen=True)
class _Meaning:
    words: str
    """Regular expression to search for in the service's message."""
    kind: type[ProviderError]
    headline: str
    fix: str


_MEANINGS = (
    _Meaning(
        r"not (?:registered|signed up)",
        NotRegistered,
        "Earth Engine does not know this Cloud project or account.",
        f"register the project (it is free for research): {_REGISTER}",
    ),
    _Meaning(
        r"has not been used in project|API .*(?:is )?disabled",
        NotRegistered,
        "The Earth Engine interface is not enabled in this Cloud project.",
        "enable the API at https://console.cloud.google.com/apis/library/earthengine.googleapis.com, "
        "wait a few minutes, and try again",
    ),
    _Meaning(
        r"permission to use project|serviceusage",
        AccessRefused,
        "This account may not use this Cloud project.",
        'use a project of your own (RS_EMBED_GEE_PROJECT or EarthEngine(project="...")), or have its owner give the '
        "account the role Service Usage Consumer",
    ),
    _Meaning(
        r"[Uu]ser memory limit exceeded",
        RequestTooLarge,
        "Earth Engine ran out of memory for this request.",
        "request a smaller place, a shorter window, or composite='first'",
    ),
    _Meaning(
        r"[Cc]omputation timed out|deadline exceeded before",
        ComputationTimedOut,
        "Earth Engine gave up computing this request.",
        "request a smaller place or a shorter window, lower cloudy_pct, or use host='standard'",
    ),
    _Meaning(
        r"[Tt]otal request size|must be less than or equal to|accumulating over \d+ elements|payload size",
        RequestTooLarge,
        "Earth Engine found this request too large.",
        "request a smaller place or a shorter window",
    ),
    _Meaning(
        r"did not match any bands|may not be null|(?:contains|has) no bands|number of bands \(0\)",
        NoImagery,
        "Earth Engine found no scene to make the pixels of.",
        "widen the window or raise cloudy_pct",
    ),
    _Meaning(
        r"not found",
        SensorNotOffered,
        "Earth Engine does not have that collection, or hides it from this account.",
        "check the collection's name in https://developers.google.com/earth-engine/datasets",
    ),
)
_RATE_REASONS = re.compile(r"rateLimitExceeded|userRateLimitExceeded|quotaExceeded|RESOURCE_EXHAUSTED|Too [Mm]any")


class EarthEngineJudge:
    """See `_retry.Judge`."""

    judges: tuple[type[Exception], ...] = (Refused, RequestException, GoogleAuthError, ReadError)

    def verdict(self, error: Exception, doing: str) -> Verdict:
        """Interpret a failure that happened while `doing` something."""
        if isinstance(error, ReadError):  # an answer cut short, found while it was decoded
            return Verdict("transient", error)
        if isinstance(error, Refused):
            return _judge_answer(error, doing)
        if isinstance(error, RequestException | TransportError):
            what = "did not answer in time" if isinstance(error, Timeout) else "broke the connection off"
            return Verdict("transient", _unavailable(what, doing, str(error) or type(error).__name__))
        return Verdict("final", _stale(doing, str(error)))


def _judge_answer(answer: Refused, doing: str) -> Verdict:
    rate = bool(_RATE_REASONS.search(answer.body))
    if answer.status == 429 or (answer.status == 403 and rate):
        error = QuotaExceeded(
            "Earth Engine refused further requests: too many at once, or the quota is used up.",
            doing=doing,
            said=str(answer),
            fix="lower RS_EMBED_GEE_CONCURRENCY, try later, or check the project's quota in the console",
        )
        return Verdict("throttled", error, _retry_after_s(answer.headers))
    known = _known(answer.message)
    if answer.status >= 500 and known not in (ComputationTimedOut, RequestTooLarge):
        return Verdict("transient", _unavailable("failed", doing, str(answer)), _retry_after_s(answer.headers))
    if answer.status == 401:
        return Verdict("unauthorised", _stale(doing, str(answer)))
    return Verdict("final", _meaning(answer, doing))


def _known(message: str) -> type[ProviderError] | None:
    return next((meaning.kind for meaning in _MEANINGS if re.search(meaning.words, message)), None)


def _meaning(answer: Refused, doing: str) -> ProviderError:
    message = str(answer)
    for meaning in _MEANINGS:
        if re.search(meaning.words, answer.message):
            return meaning.kind(meaning.headline, doing=doing, said=message, fix=meaning.fix)
    if answer.status == 403:
        fix = "give the account the role Earth Engine Resource Viewer in this project"
        return AccessRefused("Earth Engine refused this account.", doing=doing, said=message, fix=fix)
    return ReadError("Earth Engine rejected the request.", doing=doing, said=message, fix="see the service's message")


def _unavailable(what: str, doing: str, message: str) -> ServiceUnavailable:
    fix = "try again later; finished items of a batch are not lost"
    return ServiceUnavailable(f"Earth Engine {what}.", doing=doing, said=message, fix=fix)


def _stale(doing: str, message: str) -> AccessRefused:
    return AccessRefused(
        "Earth Engine did not accept the credentials.",
        doing=doing,
        said=message,
        fix="run `earthengine authenticate --force`, or check the key of the service account",
    )


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that the service asks to wait; a date is ignored."""
    text = headers.get("retry-after", "").strip()
    return float(text) if text.isdigit() else None
