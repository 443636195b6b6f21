"""The seam between the pipeline and imagery: a query goes in, a chip comes out."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, Self

from odc.geo.geobox import GeoBox

from rs_embed.core.chip import Chip
from rs_embed.core.specs import SensorSpec, Series, TemporalSpec


@dataclass(frozen=True)
class Query:
    """One chip: which pixels, on which grid, from which days."""

    modality: str
    """What the model calls this input."""
    sensor: SensorSpec
    geobox: GeoBox | None
    """The exact grid wanted; `None` only where the provider holds arrays without a place."""
    window: TemporalSpec | None
    """Half-open days; `None`: whatever the provider holds, if it holds a fixed set."""
    series: Series | None = None
    """`None`: one frame, as `sensor.composite` says. Else several, each dated."""

    @property
    def nbytes(self) -> int:
        """Size of the chip's pixels at most; 0 where the grid is not known."""
        if self.geobox is None:
            return 0
        frames = 1 if self.series is None else self.series.most(self.window)
        height, width = int(self.geobox.shape[0]), int(self.geobox.shape[1])
        return 4 * frames * len(self.sensor.bands) * height * width


def pixels_of(query: Query) -> Query:
    """The query as far as a provider sees it: equal for all models that share a chip."""
    return replace(query, modality="", sensor=replace(query.sensor, fill_value=0.0))


class Provider(Protocol):
    """Brings chips. Implementations must be safe to call from several threads."""

    @property
    def name(self) -> str:
        """What users call it, as in `backend="sample"`."""
        ...

    def identity(self) -> str:
        """What it would fetch from, for the fingerprint: equal across processes, other when the data are other."""
        ...

    def require(self, modality: str, sensor: SensorSpec) -> None:
        """Check, without reading pixels, that it has what will be asked for; called once per call and modality.

        Raises:
            SensorNotOffered: It does not have that collection or a band of it.
        """
        ...

    def native_geobox(self, query: Query) -> GeoBox | None:
        """The grid of everything it holds for `query.sensor`, for requests without a place.

        Raises:
            SpecError: The provider covers the Earth, so a place must be given.
        """
        ...

    def fetch(self, query: Query) -> Chip:
        """The chip on exactly `query.geobox`, bands in the order of `query.sensor.bands`, NaN where nodata.

        Bands are in the units of `core.bands.COLLECTIONS`. One frame, made as `query.sensor.composite` says, or
        the frames of `query.series` in order of time, one of each of its `windows` at most, those without a valid pixel
        left out (they are put in later, where the series keeps them); `Chip.times` then tells
        when each was really acquired (the mean, if it is of several scenes). Values are float32, and finite or NaN.
        All of this is checked (`common/checked.py`). It is asked from threads that are abandoned when the user stops.

        Raises:
            SensorNotOffered: It does not have that collection or a band of it.
            OutsideCoverage: The grid lies wholly outside of what it holds.
            NoImagery: Nothing was acquired in the window.
            ReadError: A file or answer could not be read.
        """
        ...


class Rebuilt:
    """A provider with locks and open connections that can be sent to another process: there it is rebuilt.

    It is built by the same arguments, and so by the variables of the process that it comes to.
    """

    _built_with: tuple[tuple[object, ...], dict[str, object]]

    def __new__(cls, *given: object, **named: object) -> Self:
        """Remember what it is built with."""
        made = super().__new__(cls)
        made._built_with = given, named
        return made

    def __reduce__(self) -> "tuple[Callable[..., Rebuilt], tuple[object, ...]]":
        """How pickle builds it."""
        given, named = self._built_with
        return partial(type(self), *given, **named), ()


class Wrapped(ABC):
    """A provider around another, which it asks for everything but chips."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self.name: str = provider.name

    def identity(self) -> str:
        """That of the provider."""
        return self._provider.identity()

    def require(self, modality: str, sensor: SensorSpec) -> None:
        """See `Provider`."""
        self._provider.require(modality, sensor)

    def native_geobox(self, query: Query) -> GeoBox | None:
        """See `Provider`."""
        return self._provider.native_geobox(query)

    @abstractmethod
    def fetch(self, query: Query) -> Chip:
        """See `Provider`."""
