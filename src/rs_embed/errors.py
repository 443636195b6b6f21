"""Every error and warning of rs_embed.

RSEmbedError
├── SpecError            a place, time, sensor or output is invalid             (also ValueError)
├── UnknownModelError    no model has that id                                   (also LookupError)
├── KnobError            a keyword or RS_EMBED_* variable is unknown or invalid (also ValueError)
├── InputError           the model cannot take these pixels                     (also ValueError)
│   ├── BandMismatch         the bands or the order of the axes are not those expected
│   ├── UnitMismatch         the values are not in the unit that was declared or expected
│   └── NoValidPixels        all pixels are nodata
├── ProviderError        the imagery could not be obtained
│   ├── NotConfigured        the backend is not set up
│   ├── SensorNotOffered     the backend does not have that sensor or band
│   ├── OutsideCoverage      the place lies outside what the backend covers
│   ├── NoImagery            nothing was acquired at that place in that window
│   ├── AccessRefused        the service rejected the credentials, or there are none
│   │   └── NotRegistered        the cloud project is not registered for the service
│   ├── QuotaExceeded        the service kept answering "too many requests" until the retries ran out
│   ├── RequestTooLarge      one request exceeds the service's limit on pixels, bands or memory
│   ├── ComputationTimedOut  the service gave up computing
│   ├── ServiceUnavailable   the service did not answer, or only with server errors, until the retries ran out
│   └── ReadError            a file or an answer cannot be read
├── WeightsError         the weights could not be loaded
│   ├── LicenceNotAccepted   their licence must be accepted first
│   ├── WeightsNotFound      no such file or repository, here or on the hub
│   ├── WeightsUnreachable   the hub did not answer, or offline mode forbids asking it
│   ├── WeightsCorrupt       the file is empty, truncated, unsafe, not finite or has the wrong hash
│   └── WeightsMismatch      the keys or shapes are those of another model
├── ReadoutError         the tokens cannot be arranged as requested, or are not finite
├── DeviceError          this machine has no such device
│   └── OutOfMemory          the imagery or input of one place does not fit into memory
├── StorageError         an embedding cannot be written or read back
├── EngineError          a cluster cannot be used, or its workers died
├── BatchError           some items of a batch failed; the error holds the others
└── MissingDependency    an optional package is not installed                   (also ImportError)

RSEmbedWarning           (UserWarning)
├── ScaleWarning         the model sees another pixel size than the imagery has
├── PixelWarning         pixels are valid but look suspicious
├── ChoiceWarning        a setting overrides what the call says
└── PluginWarning        the models of an installed package cannot be used
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
    """The base class of all errors: a headline, facts and a fix, one line each, without secrets.

    Args:
        headline: One sentence that says what was expected and what was found instead.
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
        """Pickle the error with all its lines; by default, exceptions lose their keyword arguments."""
        return _rebuild, (type(self), self.headline, self.fix, self.facts)


def _rebuild(kind: type[RSEmbedError], headline: str, fix: str | None, facts: dict[str, object]) -> RSEmbedError:
    return kind(headline, fix=fix, **facts)


def _fact(value: object) -> object:
    return value if isinstance(value, bool | float) else _told(str(value), _FACT_CHARS)


_LINE_CHARS, _FACT_CHARS = 1000, 2000
"""Messages are meant to be read, but a value that a user passed may be megabytes long."""


def _told(text: str, limit: int = _LINE_CHARS) -> str:
    """Take secrets out of a text, and cut it to `limit` characters."""
    told = redacted(text[: 10 * limit])
    return told if len(told) <= limit and len(text) <= 10 * limit else f"{told[:limit]}... ({len(text):,} characters)"


def _hang(text: str, indent: int) -> str:
    return textwrap.indent(text, " " * indent).lstrip() if "\n" in text else text


class SpecError(RSEmbedError, ValueError):
    """Raised when a place, time, sensor or output is invalid."""


class UnknownModelError(RSEmbedError, LookupError):
    """Raised when no model has the given id or alias."""


class KnobError(RSEmbedError, ValueError):
    """Raised when a keyword or `RS_EMBED_*` variable is unknown or has an invalid value."""


class InputError(RSEmbedError, ValueError):
    """Raised when the model cannot take the pixels it was given."""


class BandMismatch(InputError):
    """Raised when bands, or the order of axes, differ from what was expected."""


class UnitMismatch(InputError):
    """Raised when values are not in the unit that was declared or expected."""


class NoValidPixels(InputError):
    """Raised when every pixel is nodata."""


class ProviderError(RSEmbedError):
    """Raised when imagery could not be obtained."""


class NotConfigured(ProviderError):
    """Raised when the backend exists but is not set up."""


class SensorNotOffered(ProviderError):
    """Raised when the backend does not have the requested sensor, band or modality."""


class OutsideCoverage(ProviderError):
    """Raised when the place lies outside what the backend covers."""


class NoImagery(ProviderError):
    """Raised when nothing was acquired at the place in the requested window."""


class AccessRefused(ProviderError):
    """Raised when the service rejects the credentials, or there are none."""


class NotRegistered(AccessRefused):
    """Raised when the cloud project is not registered for the service, or its API is not enabled."""


class QuotaExceeded(ProviderError):
    """Raised when the service still answers "too many requests" after the last retry."""


class RequestTooLarge(ProviderError):
    """Raised when one request exceeds the service's limit on pixels, bands or memory."""


class ComputationTimedOut(ProviderError):
    """Raised when the service gave up computing."""


class ServiceUnavailable(ProviderError):
    """Raised when the service still gives no answer, or a server error, after the last retry."""


class ReadError(ProviderError):
    """Raised when a file or an answer cannot be read."""


class WeightsError(RSEmbedError):
    """Raised when weights could not be obtained or loaded."""


class LicenceNotAccepted(WeightsError):
    """Raised when the licence of a model must be accepted before its weights are loaded."""


class WeightsNotFound(WeightsError):
    """Raised when the file or repository of weights does not exist, here or on the hub."""


class WeightsUnreachable(WeightsError):
    """Raised when the hub did not answer, or offline mode forbids asking it."""


class WeightsCorrupt(WeightsError):
    """Raised when a file of weights is empty, truncated, not finite, unsafe to load or has the wrong hash."""


class WeightsMismatch(WeightsError):
    """Raised when the keys or shapes of the weights are those of another model."""


class ReadoutError(RSEmbedError):
    """Raised when tokens cannot be arranged as requested, or are not finite although the pixels were valid."""


class DeviceError(RSEmbedError):
    """Raised when this machine does not have the requested device."""


class OutOfMemory(DeviceError):
    """Raised when the imagery of one place, or the network's input made from it, does not fit into memory."""


class StorageError(RSEmbedError):
    """Raised when an embedding cannot be written or read back."""


class EngineError(RSEmbedError):
    """Raised when a cluster cannot be used, or its workers died."""


Stage = Literal["plan", "fetch", "prepare", "encode", "worker"]
"""Where an item failed. "plan": the item is invalid for this model, for example smaller than a pixel or wider than a
UTM zone. "worker": on a cluster, every worker that tried the item died."""


@dataclass(frozen=True)
class Failure:
    """An item of a batch that failed, and why. The other items are not affected."""

    index: int
    """Position in the caller's list, from 0."""
    stage: Stage
    error: Exception

    def __str__(self) -> str:
        return redacted(f"{self.stage}: {type(self.error).__name__}: {self.error}")


class BatchError(RSEmbedError):
    """Raised when some items of a batch failed. It holds the results of the others.

    Attributes:
        embeddings: Results in the caller's order, with `None` where an item failed. For several models, a dictionary
            of such lists by model id.
        failures: Index, stage and error of each failed item.
    """

    embeddings: "Done | Mapping[str, Done]" = ()
    failures: Sequence[Failure] = ()

    @classmethod
    def of(cls, embeddings: "Done | Mapping[str, Done]", failures: Sequence[Failure], count: int) -> "BatchError":
        """Make the error for a batch of `count` items."""
        first = failures[0]
        error = cls(
            f"{len(failures)} of {count} items failed; the others are in `error.embeddings`.",
            fix="correct or remove the items in `error.failures`, then run them again",
            first=f"item {first.index} at {first.stage}: {type(first.error).__name__}: {first.error}",
            items=", ".join(str(failure.index) for failure in failures[:20]),
        )
        error.embeddings, error.failures = embeddings, failures
        return error


class MissingDependency(RSEmbedError, ImportError):
    """Raised when an optional package is not installed."""


class RSEmbedWarning(UserWarning):
    """The base class of all warnings."""


class ScaleWarning(RSEmbedWarning):
    """Warns that the model sees another pixel size than the imagery has."""


class PixelWarning(RSEmbedWarning):
    """Warns of pixels that are valid but look suspicious."""


class ChoiceWarning(RSEmbedWarning):
    """Warns that a setting overrides what the call says."""


class PluginWarning(RSEmbedWarning):
    """Warns that the models of an installed package cannot be used."""


class _Line(NamedTuple):
    """A line of the user's code, in the form that `warnings.warn_explicit` takes."""

    file: str
    number: int
    module: str
    registry: dict[str | tuple[str, type[Warning], int], int]
    """The warnings already issued from that module."""


_LINE: ContextVar[_Line] = ContextVar("line")
_PACKAGE = str(Path(__file__).parent)


def remember_line() -> None:
    """Make warnings in this context point at the current line; needed because our own threads have no user code."""
    _LINE.set(_line())


def _line() -> _Line:
    """Return the first frame outside this package; in a thread of ours, the line that submitted its work."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
    if frame.f_code.co_filename == threading.__file__ and (known := _LINE.get(None)) is not None:
        return known
    names = frame.f_globals
    registry = names.setdefault("__warningregistry__", {})
    return _Line(frame.f_code.co_filename, frame.f_lineno, names.get("__name__", "<string>"), registry)


def warn(message: str, category: type[RSEmbedWarning]) -> None:
    """Issue a warning at the line of the user's code, without secrets."""
    warnings.warn_explicit(redacted(message), category, *_line())
