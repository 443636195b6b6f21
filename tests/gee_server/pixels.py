"""Lazy pixels: a node gives the values and the validity of one band on any grid that is asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gee_server.catalogue import BandSpec
from gee_server.grid import COMPOSITE, Grid, Lattice, Lattices, Projection, Sampled
from gee_server.scene import Scene

Plane = tuple[np.ndarray, "np.ndarray | bool"]
"""Values, and where they are valid; either may be a scalar that stands for every pixel."""


@dataclass(frozen=True)
class PixelType:
    """What a band can hold."""

    precision: str
    low: float | None = None
    high: float | None = None

    @property
    def dtype(self) -> np.dtype:
        """The smallest numpy type that holds it, as NPY answers use."""
        if self.precision == "float":
            return np.dtype("<f4")
        if self.precision == "double" or self.low is None or self.high is None:
            return np.dtype("<f8") if self.precision == "double" else np.dtype("<i8")
        for name in ("u1", "i1", "<u2", "<i2", "<u4", "<i4"):
            limits = np.iinfo(name)
            if limits.min <= self.low and self.high <= limits.max:
                return np.dtype(name)
        return np.dtype("<i8")

    def info(self) -> dict:
        """As `getInfo` gives it."""
        known = {"min": self.low, "max": self.high} if self.low is not None else {}
        return {"type": "PixelType", "precision": self.precision, **known}


FLOAT, DOUBLE, BOOLEAN = PixelType("float"), PixelType("double"), PixelType("int", 0, 1)
BYTE = PixelType("int", 0, 255)


class Node:
    """One band's recipe."""

    def __init__(self, type: PixelType, proj: Projection, parents: Sequence[Node] = ()) -> None:
        self.type = type
        self.proj = proj
        self.parents = tuple(parents)

    def compute(self, look: Look, grid: Grid) -> Plane:
        """Values and validity on the grid."""
        raise NotImplementedError


class Look:
    """One request's view of the world: what is needed twice is computed once and then forgotten."""

    def __init__(self, lattices: Lattices, roots: Sequence[Node]) -> None:
        self._lattices = lattices
        self._sampled: dict[tuple[Grid, Lattice], _Kept] = {}
        self._planes: dict[tuple[Node, Grid], Plane] = {}
        self._uses: Counter[Node] = Counter()
        self._shared = _shared(roots)

    def plane(self, node: Node, grid: Grid) -> Plane:
        """A node's values and validity, kept while another node still wants them."""
        if node not in self._shared:
            return node.compute(self, grid)
        key = (node, grid)
        if key not in self._planes:
            self._planes[key] = node.compute(self, grid)
        plane = self._planes[key]
        self._uses[node] += 1
        if self._uses[node] >= self._shared[node]:
            del self._planes[key]
        return plane

    def sampled(self, grid: Grid, lattice: Lattice) -> _Kept:
        """Native pixels under a grid."""
        key = (grid, lattice)
        if key not in self._sampled:
            self._sampled[key] = _Kept(self._lattices.get(grid, lattice))
        return self._sampled[key]


class _Kept:
    """Sampled pixels with what this request has computed on them; the waves outlive the request."""

    def __init__(self, sampled: Sampled) -> None:
        self._sampled = sampled
        self._own: dict = {}
        self.x, self.y = sampled.x, sampled.y

    def keep(self, name, make: Callable):
        if name == "waves":
            return self._sampled.keep(name, make)
        if name not in self._own:
            self._own[name] = make(*self._sampled.lonlat)
        return self._own[name]


def _shared(roots: Sequence[Node]) -> dict[Node, int]:
    """Nodes that more than one other wants, and how many do."""
    uses: Counter[Node] = Counter(roots)
    waiting, seen = list(dict.fromkeys(roots)), set(roots)
    while waiting:
        for parent in waiting.pop().parents:
            uses[parent] += 1
            if parent not in seen:
                seen.add(parent)
                waiting.append(parent)
    return {node: count for node, count in uses.items() if count > 1}


class SceneNode(Node):
    """A band as the archive holds it: the nearest native pixel, or a mean of them on a coarse grid."""

    def __init__(self, scene: Scene, spec: BandSpec) -> None:
        super().__init__(PixelType(*spec.type), scene.projection(spec))
        self.scene = scene
        self.spec = spec

    def compute(self, look: Look, grid: Grid) -> Plane:
        level = self._level(grid)
        if level > 0:
            return self._pyramid(look, grid, 2**level)
        sampled = look.sampled(grid, self.scene.lattice(self.spec))
        return self.scene.values(self.spec, sampled)

    def _level(self, grid: Grid) -> int:
        """Of the pyramid: the coarsest that is not coarser than the grid."""
        ratio = grid.step_in(self.scene.crs) / self.spec.step
        return min(int(np.floor(np.log2(max(ratio, 1.0)) + 1e-3)), 5)

    def _pyramid(self, look: Look, grid: Grid, factor: int) -> Plane:
        lattice = self.scene.lattice(self.spec, factor)
        parts = [(i + 0.5 - factor / 2) * self.spec.step for i in range(factor)]
        sampled_only = self.spec.kind in ("class", "cloud_class", "qa", "masked")
        places = [(parts[0], parts[-1])] if sampled_only else [(dx, dy) for dx in parts for dy in parts]
        total, count = np.zeros((grid.height, grid.width)), np.zeros((grid.height, grid.width), int)
        for dx, dy in places:
            sampled = look.sampled(grid, replace(lattice, shift_x=dx, shift_y=dy))
            values, valid = self.scene.values(self.spec, sampled)
            total += np.where(valid, values, 0)
            count += valid
        mean = total / np.maximum(count, 1)
        return (np.rint(mean) if self.spec.type[0] == "int" else mean), count > 0


class ConstantNode(Node):
    """The same number everywhere."""

    def __init__(self, value: float, type: PixelType) -> None:
        super().__init__(type, COMPOSITE)
        self._plane = np.float64(value), True

    def compute(self, look: Look, grid: Grid) -> Plane:
        return self._plane


class OpNode(Node):
    """A function of the planes of its parents."""

    def __init__(
        self, make: Callable[..., Plane], type: PixelType, parents: Sequence[Node], proj: Projection | None = None
    ) -> None:
        super().__init__(type, proj or _own(parents), parents)
        self._make = make

    def compute(self, look: Look, grid: Grid) -> Plane:
        return self._make(*(look.plane(parent, grid) for parent in self.parents))


def _own(parents: Sequence[Node]) -> Projection:
    """Of the first parent that has one."""
    return next((parent.proj for parent in parents if not parent.proj.is_composite), COMPOSITE)


def both(one: np.ndarray | bool, other: np.ndarray | bool) -> np.ndarray | bool:
    """Where both are valid."""
    if one is True:
        return other
    return one if other is True else one & other


def full(plane: Plane, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """With a number for every pixel."""
    shape = (grid.height, grid.width)
    return np.broadcast_to(plane[0], shape), np.broadcast_to(plane[1], shape)


def cast(values: np.ndarray, type: PixelType) -> np.ndarray:
    """Cut to what the type can hold: integers lose their decimals and stop at the ends of the range."""
    if type.precision == "float":
        return np.asarray(values, np.float32)
    if type.precision == "double":
        return np.asarray(values, np.float64)
    whole = np.trunc(np.nan_to_num(values, nan=0.0, posinf=np.inf, neginf=-np.inf))
    return np.clip(whole, type.low, type.high) if type.low is not None else whole
