"""Every error and warning of rs_embed.

RSEmbedError
├── SpecError            a place, time, sensor or output that is invalid   (also ValueError)
├── UnknownModelError    no card of that id                                     (also LookupError)
├── KnobError            a keyword or RS_EMBED_* variable: unknown, or a bad value (also ValueError)
├── InputError           pixels that the model cannot take                      (also ValueError)
│   ├── BandMismatch         other bands, or another order of axes
│   ├── UnitMismatch         another unit than declared or wanted
│   └── NoValidPixels        nothing but nodata
├── ProviderError        imagery that could not be had
│   ├── NotConfigured        the backend is not set up
│   ├── SensorNotOffered     the backend does not have that sensor or band
│   ├── OutsideCoverage      the place lies outside of what the backend holds
│   ├── NoImagery            nothing was acquired there in that window
│   ├── AccessRefused        the service knows the account and says no, or does not know it
│   │   └── NotRegistered        the cloud project is not registered for the service
│   ├── QuotaExceeded        too many requests, for longer than we wait
│   ├── RequestTooLarge      more pixels, bands or memory than the service gives one request
│   ├── ComputationTimedOut  the service gave up computing
│   ├── ServiceUnavailable   no answer, or only server errors, for longer than we wait
│   └── ReadError            a file or answer that cannot be read
├── WeightsError         weights that could not be had
│   ├── WeightsNotFound      no such file or repository, here or on the hub
│   ├── WeightsUnreachable   the hub did not answer, or offline mode forbids asking
│   ├── WeightsCorrupt       empty, truncated, wrong hash, not finite, unsafe
│   └── WeightsMismatch      keys or shapes of another model
├── ReadoutError         tokens that cannot be laid out as asked, or are not finite
├── DeviceError          no such device here
│   └── OutOfMemory          what one place takes does not fit into memory
├── StorageError         an embedding that cannot be written or read back
├── EngineError          a cluster that cannot be used, or workers that died over their work
├── BatchError           some items of a batch failed; holds the others
└── MissingDependency    an optional package is not installed                   (also ImportError)

RSEmbedWarning           (UserWarning)
├── ScaleWarning         the model sees another pixel size than the imagery has
├── PixelWarning         pixels that are legal but look wrong
├── ChoiceWarning        a setting that overrides what the call says
└── PluginWarning        an installed package whose models cannot be used
"""

import sys
import textwrap
import threading
import warnings
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from rs_embed.redact import redacted

if TYPE_CHECKING:
    from rs_embed.embedding.embedding import Embedding

    Done = Sequence[Embedding | None]


class RSEmbedError(Exception):
    """What was wanted, what was found, where, and the fix, one line each; secrets in them are taken out.

    Args:
        headline: One sentence: what was wanted and what was found instead.
        fix: What the user can do about it.
        facts: Further lines, in the order given; `None` leaves a line out.
    """

    def __init__(self, headline: str, *, fix: str | None = None, **facts: object) -> None:
        self.headline: str = _told(headline)
        self.fix: str | None = None if fix is None else _told(fix)
        self.facts: dict[str, object] = {name: _fact(value) for name, value in facts.items() if value is not None}
        super().__init__(self.headline)

    def __str__(self) -> str:
        rows = {name.replace("_", " "): str(value) for name, value in self.facts.items()}
        if self.fix is not None:
            rows["fix"] = self.fix
        if not rows:
            return self.headline
        width = max(len(name) for name in rows) + 1
        lines = [f"  {name + ':':<{width}} {_hang(value, width + 3)}" for name, value in rows.items()]
        return "\n".join([self.headline, *lines])

    def __reduce__(self) -> tuple[object, ...]:
        """Travel between processes with every line (exceptions drop keyword arguments otherwise)."""
        return _rebuild, (type(self), self.headline, self.fix, self.facts)


def _rebuild(kind: type[RSEmbedError], headline: str, fix: str | None, facts: dict[str, object]) -> RSEmbedError:
    return kind(headline, fix=fix, **facts)


def _fact(value: object) -> object:
    return value if isinstance(value, bool | float) else _told(str(value), _FACT_CHARS)


_LINE_CHARS, _FACT_CHARS = 1000, 2000
"""A line of a message is to be read; what somebody gave us may have megabytes."""


def _told(text: str, limit: int = _LINE_CHARS) -> str:
    """Without secrets, and cut where nobody reads on."""
    told = redacted(text[: 10 * limit])
    return told if len(told) <= limit and len(text) <= 10 * limit else f"{told[:limit]}... ({len(text):,} characters)"


def _hang(text: str, indent: int) -> str:
    return textwrap.indent(text, " " * indent).lstrip() if "\n" in text else text


class SpecError(RSEmbedError, ValueError):
    """A place, time, sensor or output that is invalid."""


class UnknownModelError(RSEmbedError, LookupError):
    """No card of that id or alias."""


class KnobError(RSEmbedError, ValueError):
    """A keyword or RS_EMBED_* variable that is unknown or has a bad value."""


class InputError(RSEmbedError, ValueError):
    """Pixels that the model cannot take."""


class BandMismatch(InputError):
    """Other bands than wanted, or axes in another order."""


class UnitMismatch(InputError):
    """Values in another unit than declared or wanted."""


class NoValidPixels(InputError):
    """Nothing but nodata where pixels were wanted."""


class ProviderError(RSEmbedError):
    """Imagery that could not be had."""


class NotConfigured(ProviderError):
    """The backend exists but is not set up."""


class SensorNotOffered(ProviderError):
    """The backend does not have that sensor, band or modality."""


class OutsideCoverage(ProviderError):
    """The place lies outside of what the backend holds."""


class NoImagery(ProviderError):
    """Nothing was acquired there in that window."""


class AccessRefused(ProviderError):
    """The service knows the account and says no, or does not know it."""


class NotRegistered(AccessRefused):
    """The cloud project is not registered for the service, or its interface is not enabled."""


class QuotaExceeded(ProviderError):
    """Too many requests, for longer than we wait."""


class RequestTooLarge(ProviderError):
    """More pixels, bands or memory than the service gives one request."""


class ComputationTimedOut(ProviderError):
    """The service gave up computing."""


class ServiceUnavailable(ProviderError):
    """No answer, or only server errors, for longer than we wait."""


class ReadError(ProviderError):
    """A file or an answer that cannot be read."""


class WeightsError(RSEmbedError):
    """Weights that could not be had."""


class WeightsNotFound(WeightsError):
    """No such file or repository, here or on the hub."""


class WeightsUnreachable(WeightsError):
    """The hub did not answer, or offline mode forbids asking."""


class WeightsCorrupt(WeightsError):
    """Empty, truncated, of another hash, not finite, or unsafe to load."""


class WeightsMismatch(WeightsError):
    """Keys or shapes of another model."""


class ReadoutError(RSEmbedError):
    """Tokens that cannot be laid out as asked, or numbers that are not finite though pixels were valid."""


class DeviceError(RSEmbedError):
    """No such device here."""


class OutOfMemory(DeviceError):
    """The imagery of one place, or its input of the network, does not fit."""


class StorageError(RSEmbedError):
    """An embedding that cannot be written or read back."""


class EngineError(RSEmbedError):
    """A cluster that cannot be used, or workers that died over their work."""


Stage = Literal["plan", "fetch", "prepare", "encode", "worker"]
"""Where an item failed. "plan": it is invalid for this model, for example too small for a pixel or too wide for a
zone. "worker": of a cluster, all who tried died."""


@dataclass(frozen=True)
class Failure:
    """An item that could not be done, and why. The others go on."""

    index: int
    """Place in the caller's list."""
    stage: Stage
    error: Exception

    def __str__(self) -> str:
        return redacted(f"{self.stage}: {type(self.error).__name__}: {self.error}")


class BatchError(RSEmbedError):
    """Some items of a batch failed; the others are here.

    Attributes:
        embeddings: In the caller's order, `None` where an item failed; of several models, by id.
        failures: Index, stage and error of each failed item.
    """

    embeddings: "Done | Mapping[str, Done]" = ()
    failures: Sequence[Failure] = ()

    @classmethod
    def of(cls, embeddings: "Done | Mapping[str, Done]", failures: Sequence[Failure], count: int) -> "BatchError":
        """The error of a batch of `count` items."""
        first = failures[0]
        error = cls(
            f"{len(failures)} of {count} items failed; the others are in `error.embeddings`.",
            fix="mend or drop the items in `error.failures` and run those again",
            first=f"item {first.index} at {first.stage}: {type(first.error).__name__}: {first.error}",
            items=", ".join(str(failure.index) for failure in failures[:20]),
        )
        error.embeddings, error.failures = embeddings, failures
        return error


class MissingDependency(RSEmbedError, ImportError):
    """An optional package is not installed."""


class RSEmbedWarning(UserWarning):
    """Root of every warning of rs_embed."""


class ScaleWarning(RSEmbedWarning):
    """The model sees another pixel size than the imagery has."""


class PixelWarning(RSEmbedWarning):
    """Pixels that are legal but look wrong."""


class ChoiceWarning(RSEmbedWarning):
    """A setting that overrides what the call says."""


class PluginWarning(RSEmbedWarning):
    """An installed package whose models cannot be used."""


class _Line(NamedTuple):
    """A line of the user's, as `warnings.warn_explicit` takes it."""

    file: str
    number: int
    module: str
    registry: dict[str | tuple[str, type[Warning], int], int]
    """The warnings that came from that module."""


_LINE: ContextVar[_Line] = ContextVar("line")
_PACKAGE = str(Path(__file__).parent)


def remember_line() -> None:
    """Let warnings of this context point at the line that is being run: a thread of ours has no user's line itself."""
    _LINE.set(_line())


def _line() -> _Line:
    """The first frame outside of this package; of a thread of ours, the line that its work was submitted from."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
    if frame.f_code.co_filename == threading.__file__ and (known := _LINE.get(None)) is not None:
        return known
    names = frame.f_globals
    registry = names.setdefault("__warningregistry__", {})
    return _Line(frame.f_code.co_filename, frame.f_lineno, names.get("__name__", "<string>"), registry)


def warn(message: str, category: type[RSEmbedWarning]) -> None:
    """Warn at the caller's own line; secrets are taken out."""
    warnings.warn_explicit(redacted(message), category, *_line())
