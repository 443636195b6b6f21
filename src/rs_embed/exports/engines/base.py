"""The seam between an export and who does it: an order goes in, units come out as files."""

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
    """What all files of a run say of it."""

    created: str
    """ISO 8601, UTC: when the export was first started."""
    fingerprint: str
    """Of the run's request."""


class Setup(Protocol):
    """The models of an order, ready in one process."""

    def facts(self) -> dict[str, JsonValue]:
        """All that decides the numbers, but for places and units; loads the networks to know their weights."""
        ...

    def work(self, stamp: RunStamp, folder: Path) -> Work:
        """What units are done with, in a folder of this machine."""
        ...


class Order(Protocol):
    """What is asked for. It can travel, and every process makes the same models of it."""

    @property
    def where(self) -> Path | Remote:
        """Where the run lies."""
        ...

    @property
    def request(self) -> ExportRequest:
        """What is asked of the models."""
        ...

    @property
    def fetch_workers(self) -> int:
        """Chips fetched at the same time by one process."""
        ...

    def set_up(self, device: str) -> Setup:
        """The models on a device of this process."""
        ...


class Crew(Protocol):
    """Who does the units."""

    def facts(self) -> dict[str, JsonValue]:
        """Those of the setup; equal for all of the crew."""
        ...

    def run(self, stamp: RunStamp, tasks: Iterable[Task], advance: Advance) -> None:
        """Do what is missing of every unit.

        Raises:
            StorageError: The disk refuses.
            EngineError: There is nobody left to do it.
            RSEmbedError: That of the first failed row, where the order says so.
        """
        ...
