"""The interface between an export and its engine: an order goes in, units come out as files."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydantic import JsonValue

from rs_embed.exports.object_store import Remote
from rs_embed.exports.request import ExportRequest
from rs_embed.exports.work import Advance, Task, Work


@dataclass(frozen=True)
class RunStamp:
    """The facts about a run that all of its files record."""

    created: str
    """ISO 8601, UTC: when the export was started first."""
    fingerprint: str
    """sha256 of the run's request."""


class Setup(Protocol):
    """The models of an order, set up in one process."""

    def facts(self) -> dict[str, JsonValue]:
        """Return what determines the numbers, except places and units. Loads the networks to hash their weights."""
        ...

    def work(self, stamp: RunStamp, folder: Path) -> Work:
        """Return what is needed to run units in a folder on this machine."""
        ...


class Order(Protocol):
    """An export request that can be sent to other processes, each of which makes the same models from it."""

    @property
    def where(self) -> Path | Remote:
        """The location of the run."""
        ...

    @property
    def request(self) -> ExportRequest:
        """What the models are to compute."""
        ...

    @property
    def fetch_workers(self) -> int:
        """Number of chips that one process fetches at the same time."""
        ...

    def set_up(self, device: str) -> Setup:
        """Set up the models on a device of this process."""
        ...


class Executor(Protocol):
    """Runs units."""

    def facts(self) -> dict[str, JsonValue]:
        """Return the facts of the setup; they are the same for all workers."""
        ...

    def run(self, stamp: RunStamp, tasks: Iterable[Task], advance: Advance) -> None:
        """Do the part of every unit that is not finished yet.

        Raises:
            StorageError: The disk fails.
            EngineError: No worker is left.
            RSEmbedError: The first failed row, if the order says on_error="raise".
        """
        ...
