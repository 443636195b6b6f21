"""Images and collections: bands with names, properties, a footprint."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from gee_server.errors import EarthEngineError
from gee_server.geometry import EARTH, Geometry
from gee_server.grid import Projection
from gee_server.pixels import Node, SceneNode
from gee_server.scene import Scene


@dataclass(frozen=True, eq=False)
class Band:
    """A name for a node."""

    name: str
    node: Node


@dataclass(frozen=True, eq=False)
class Element:
    """Whatever has properties and a place: a feature, or an image."""

    properties: dict
    footprint: Geometry | None = None

    def with_properties(self, properties: dict) -> Element:
        """The same with other properties."""
        return replace(self, properties=properties)


@dataclass(frozen=True, eq=False)
class Image(Element):
    """Bands that share properties."""

    bands: tuple[Band, ...] = ()
    id: str | None = None
    size: Callable[[str], tuple[int, int]] | None = None
    """Of a band of a stored image, pixels."""

    @property
    def names(self) -> list[str]:
        """Of its bands."""
        return [band.name for band in self.bands]

    def derived(self, bands: Sequence[Band], *, keep: bool = False) -> Image:
        """Other bands; the properties go too, unless kept, as with most operations of the real service."""
        properties = self.properties if keep else {}
        if "system:index" in self.properties:
            properties = {**properties, "system:index": self.properties["system:index"]}
        size = self.size if keep else None
        return Image(properties, self.footprint, tuple(bands), self.id if keep else None, size)

    def select(self, selectors: Sequence, names: Sequence[str] | None = None, asker: str = "Image.select") -> Image:
        """Bands by name, pattern or number."""
        chosen = [band for selector in selectors for band in self._matching(selector, asker)]
        if names is not None:
            if len(names) != len(chosen):
                raise EarthEngineError(
                    f"{asker}: The number of bandSelectors ({len(chosen)}) must match "
                    f"the number of newNames ({len(names)})."
                )
            chosen = [Band(name, band.node) for name, band in zip(names, chosen, strict=True)]
        _unique(chosen, asker)
        return self.derived(chosen, keep=True)

    def _matching(self, selector, asker: str) -> list[Band]:
        if isinstance(selector, int | float) and not isinstance(selector, bool):
            if not 0 <= selector < len(self.bands):
                raise EarthEngineError(f"{asker}: Band index {int(selector)} is out of range.")
            return [self.bands[int(selector)]]
        exact = [band for band in self.bands if band.name == selector]
        if not exact:
            exact = [band for band in self.bands if _fits(str(selector), band.name)]
        if not exact and not self.bands:
            raise EarthEngineError(
                f"{asker}: Band pattern '{selector}' was applied to an Image with no bands. "
                "See https://developers.google.com/earth-engine/guides/debugging#no-bands"
            )
        if not exact:
            available = ", ".join(self.names)
            raise EarthEngineError(
                f"{asker}: Band pattern '{selector}' did not match any bands. Available bands: [{available}]"
            )
        return exact


def _fits(pattern: str, name: str) -> bool:
    try:
        return re.fullmatch(pattern, name) is not None
    except re.error:
        return False


def _unique(bands: Sequence[Band], asker: str) -> None:
    names = [band.name for band in bands]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise EarthEngineError(
            f"{asker}: Can't add a band named '{twice}' to image because a band with this name already exists."
        )


@dataclass(frozen=True, eq=False)
class Collection:
    """Elements in order."""

    elements: Sequence[Element]
    id: str | None = None
    properties: dict = field(default_factory=dict)

    def of(self, elements: Sequence[Element]) -> Collection:
        """Other elements of the same kind."""
        return Collection(elements, self.id, self.properties)

    def matching(self, name: str, value) -> Element | None:
        """The first element whose property has that value."""
        kept = self.__dict__.setdefault("_matching", {})
        if name not in kept:
            kept[name] = {}
            for element in self.elements:
                kept[name].setdefault(repr(element.properties.get(name)), element)
        return kept[name].get(repr(value))

    @property
    def is_of_images(self) -> bool:
        """Whether every element is an image; true of an empty one."""
        return all(isinstance(element, Image) for element in self.elements)


def _once(make: Callable) -> Callable:
    """Keep what is made of a scene with the scene: both never change."""
    name = f"_{make.__name__}"

    def kept(scene: Scene):
        if name not in scene.__dict__:
            scene.__dict__[name] = make(scene)
        return scene.__dict__[name]

    return kept


@_once
def properties_of(scene: Scene) -> dict:
    """Of a scene, with those that the archive adds; not to be changed."""
    own = {"system:index": scene.index, "system:time_start": scene.time_ms, "system:footprint": scene.footprint}
    return {"system:time_end": scene.time_ms, **scene.properties, **own}


@_once
def image_of(scene: Scene) -> Image:
    """A scene as the archive hands it out."""
    bands = tuple(Band(spec.name, SceneNode(scene, spec)) for spec in scene.specs)

    def size(name: str) -> tuple[int, int]:
        step = scene.about.band(name).step
        return round(scene.width / step), round(scene.height / step)

    return Image(properties_of(scene), scene.footprint, bands, scene.id, size)


def projection_of(image: Image, asker: str) -> Projection:
    """Of its bands, if they agree.

    Raises:
        EarthEngineError: They do not, or there are none.
    """
    found = {band.node.proj for band in image.bands}
    if len(found) != 1:
        raise EarthEngineError(
            f"{asker}: The bands of the specified image contains different projections. "
            "Use only bands with the same projection."
        )
    return found.pop()


def footprint_of(element: Element) -> Geometry:
    """Where it lies; everywhere, if it does not say."""
    return element.footprint or EARTH
