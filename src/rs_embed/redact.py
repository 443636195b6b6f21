"""Take secrets out of texts that leave the library: errors, warnings, logs, tables of runs, metadata.

Messages of other packages quote links, headers and whole files. A secret that looks like an ordinary word is not found.
"""

import logging
import re
from collections.abc import Iterable

HIDDEN = "***"
"""Replaces every secret."""

_SUSPECTS = (
    *("token", "secret", "passw", "sig", "credential", "key", "auth", "cookie", "session", "bearer", "amz", "goog"),
    *("code", "policy", "hf_", "akia", "asia", "aiza", "ya29", "1//0", "ghp_", "gho_", "ghs_", "ghr_", "ghu_"),
    *("github_pat", "glpat", "eyj"),
)
"""A text that contains none of these, and no user name in a link, holds no secret: this is true of nearly all texts."""
_SECRET_NAME = re.compile(
    r"(?:token|secret|passw(?:or)?d|passwd|signature|credentials?|api[_-]?key|access[_-]?key(?:[_-]?id)?"
    r"|private[_-]?key(?:[_-]?id)?|subscription[_-]?key|account[_-]?key|sessionid|(?:^|[_.-])sig)$",
    re.IGNORECASE,
)
"""Names whose value is a secret in any context."""
_SECRET_IN_LINK = re.compile(
    r"(?:sig|key|auth|authorization|code|x-(?:amz|goog)-[\w-]+|AWSAccessKeyId|GoogleAccessId|policy)$", re.IGNORECASE
)
"""Names whose value is a secret only in a link, because they are common words elsewhere."""
_NAME = re.compile(
    r"(?P<in_link>(?<=[?&;])|(?<=%26)|(?<=%3[Ff]))?(?:(?<![\w.-])|(?<=%26)|(?<=%3[Ff]))(?P<name>[A-Za-z][\w.-]{1,63})"
    r"(?P<equals>\\?[\"']?\s{0,9}(?:=|%3[Dd]|:)\s{0,9}\\?)"
)
_VALUE = re.compile(r"""(["'])(?:\\.|(?!\1)[^\\])*(?:\1|\Z)|(?:(?!%26)[^\s&'"<>,;)\]}|])+""", re.DOTALL)
"""The value of a name: quoted, or up to the character that ends it in a query, which may be inside another link."""
_HEADER = re.compile(
    r"(?i)((?<![\w-])(?:(?:proxy-)?authorization|(?:set-)?cookie|x-(?:api|goog-api|functions)-key|api-key|private-token"
    r"|x-(?:amz-security|auth|access)-token|ocp-apim-subscription-key)"
    r"\\?[\"']?\s{0,9}[:=,]\s{0,9}\\?(?:b?[\"'])?(?:(?:bearer|basic|digest|token)\s+)?)[^\s\"',;)}\]]+"
)
_SHAPES = (
    (
        re.compile(
            r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,40}PRIVATE KEY-----|\Z)", re.DOTALL
        ),
        HIDDEN,
    ),
    (re.compile(r"(?i)(?<![\w+.-])([a-z][a-z0-9+.-]{1,20}://)[^\s/?#'\"@]{1,512}@"), rf"\g<1>{HIDDEN}@"),
    (_HEADER, rf"\g<1>{HIDDEN}"),
    (re.compile(r"\b([Bb]earer\s{1,9})[\w.~+/-]{8,}=*"), rf"\g<1>{HIDDEN}"),
    # Tokens that can be recognised by their shape: Hugging Face, AWS, Google, GitHub, GitLab, JSON web tokens.
    (re.compile(r"\bhf_[A-Za-z0-9]{16,}"), HIDDEN),
    (re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{12,}"), HIDDEN),
    (re.compile(r"\bAIza[\w-]{20,}|\bya29\.[\w-]+|\b1//0[\w-]{16,}"), HIDDEN),
    (re.compile(r"\bgh[oprsu]_[A-Za-z0-9]{20,}|\bgithub_pat_\w{20,}|\bglpat-[\w-]{16,}"), HIDDEN),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?"), HIDDEN),
)


def redacted(text: str) -> str:
    """Return the text without passwords, tokens, keys and link signatures. Redacting twice changes nothing more."""
    small = text.lower()
    if not any(word in small for word in _SUSPECTS) and not ("://" in small and "@" in small):
        return text
    for pattern, by in _SHAPES:
        text = pattern.sub(by, text)
    return _without_named(text)


def _without_named(text: str) -> str:
    """Replace the values of names that stand for secrets."""
    kept: list[str] = []
    at = done = 0
    while (found := _NAME.search(text, at)) is not None:
        at = found.end()
        value = _VALUE.match(text, at)
        if value is not None and _is_secret(found, quoted=bool(value[1])):
            quote = value[1] or ""
            kept.append(f"{text[done:at]}{quote}{HIDDEN}{quote}")
            at = done = value.end()
    return "".join([*kept, text[done:]])


def _is_secret(found: re.Match[str], *, quoted: bool) -> bool:
    name = found["name"]
    if found["in_link"] is not None:
        return bool(_SECRET_NAME.search(name) or _SECRET_IN_LINK.match(name))
    # A colon makes a secret only of what is quoted: "tokens: 18" is prose.
    return bool(_SECRET_NAME.search(name)) and (quoted or ":" not in found["equals"])


def redacted_all(texts: Iterable[str]) -> tuple[str, ...]:
    """Redact each text. They are checked together first, because hardly any holds a secret."""
    texts = tuple(texts)
    whole = "\n".join(texts)
    return texts if redacted(whole) == whole else tuple(redacted(text) for text in texts)


class ForeignError(Exception):
    """Replaces an error of another package whose message holds a secret: states its class and its redacted message."""


def cause_of(error: BaseException) -> BaseException:
    """Return what to raise an error from: the cause, or a stand-in if its traceback would show a secret."""
    said: list[str] = []
    link: BaseException | None = error
    while link is not None and len(said) < _LINKS:
        said.append(str(link))
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    whole = "\n".join(said)
    if redacted(whole) == whole and link is None:
        return error
    return ForeignError(f"{type(error).__name__}: {redacted(str(error))}").with_traceback(error.__traceback__)


_LINKS = 100
"""Longest chain of causes that is checked; a longer one is replaced by a stand-in as well."""


class _Redacting(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = redacted(record.getMessage()), ()
        if record.exc_info:
            record.exc_text = redacted(logging.Formatter().formatException(record.exc_info))
        return True


_REDACTING = _Redacting()


def logger(name: str) -> logging.Logger:
    """Return the logger of that name with a filter that takes secrets out of its records."""
    found = logging.getLogger(name)
    found.addFilter(_REDACTING)  # has no effect if it was added before
    return found
