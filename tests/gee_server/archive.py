"""A collection as the archive holds it: thousands of scenes, filtered by date and place without opening them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from gee_server.geometry import Geometry
from gee_server.image import Collection, Element, Image, image_of, properties_of
from gee_server.scene import Scene
from gee_server.values import Filter


class Archive(Collection):
    """Scenes of one collection that become images when they are looked at."""

    def __init__(self, scenes: Sequence[Scene], id: str, columns: dict[str, np.ndarray] | None = None) -> None:
        object.__setattr__(self, "scenes", scenes)
        object.__setattr__(self, "id", id)
        object.__setattr__(self, "properties", {})
        object.__setattr__(self, "columns", columns or _columns(scenes))

    @cached_property
    def _elements(self) -> list[Image]:
        return [image_of(scene) for scene in self.scenes]

    @property
    def elements(self) -> list[Image]:
        """The images."""
        return self._elements

    def of(self, elements: Sequence[Element]) -> Collection:
        """Other elements, no longer an archive."""
        return Collection(elements, self.id, self.properties)

    def kept(self, mask: np.ndarray, filter: Filter) -> Archive:
        """What a filter leaves of those that its mask lets through."""
        at = np.flatnonzero(mask)
        if not filter.exact and at.size:
            at = at[[filter.test(_Peek(self.scenes[i])) for i in at]]
        columns = {name: column[at] for name, column in self.columns.items()}
        return Archive([self.scenes[i] for i in at], self.id, columns)

    def near(self, shape: Geometry) -> np.ndarray:
        """Scenes whose bounds meet those of a shape."""
        west, south, east, north = shape.bounds
        found = np.zeros(len(self.scenes), bool)
        for shift in (-720.0, -360.0, 0.0, 360.0, 720.0):
            found |= (self.columns["west"] <= east + shift) & (self.columns["east"] >= west + shift)
        return found & (self.columns["south"] <= north) & (self.columns["north"] >= south)


class _Peek:
    """A scene's properties and footprint, without its bands."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene

    @property
    def properties(self) -> dict:
        return properties_of(self._scene)

    @property
    def footprint(self) -> Geometry:
        return self._scene.footprint


def _columns(scenes: Sequence[Scene]) -> dict[str, np.ndarray]:
    bounds = np.array([scene.footprint.bounds for scene in scenes], float).reshape(len(scenes), 4)
    columns = dict(zip(("west", "south", "east", "north"), bounds.T, strict=True))
    columns["time"] = np.array([scene.time_ms for scene in scenes], float)
    return columns
