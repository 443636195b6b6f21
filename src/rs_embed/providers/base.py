"""The interface between the pipeline and imagery: a query goes in, a chip comes out."""

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
    """The model's name for this input."""
    sensor: SensorSpec
    geobox: GeoBox | None
    """The exact grid of the chip; `None` only if the provider holds arrays without a place."""
    window: TemporalSpec | None
    """Half-open window of days; `None` takes whatever the provider holds, if it holds a fixed set."""
    series: Series | None = None
    """`None` asks for one frame, made as `sensor.composite` says; a `Series` for several dated ones."""

    @property
    def nbytes(self) -> int:
        """The largest size of the chip's pixels, bytes; 0 if the grid is unknown."""
        if self.geobox is None:
            return 0
        frames = 1 if self.series is None else self.series.most(self.window)
        height, width = int(self.geobox.shape[0]), int(self.geobox.shape[1])
        return 4 * frames * len(self.sensor.bands) * height * width


def pixels_of(query: Query) -> Query:
    """Return the part of a query that a provider depends on: equal for all models that share a chip."""
    return replace(query, modality="", sensor=replace(query.sensor, fill_value=0.0))


class Provider(Protocol):
    """A source of chips. Implementations must be safe to call from several threads."""

    @property
    def name(self) -> str:
        """The name that users pass, as in `backend="sample"`."""
        ...

    def identity(self) -> str:
        """Identify the data for fingerprints: equal across processes, different if the data differ."""
        ...

    def require(self, modality: str, sensor: SensorSpec) -> None:
        """Check, without reading pixels, that the requested bands exist; called once per call and modality.

        Raises:
            SensorNotOffered: The provider does not have the collection or one of the bands.
        """
        ...

    def native_geobox(self, query: Query) -> GeoBox | None:
        """Return the grid of everything it holds for `query.sensor`, for requests without a place.

        Raises:
            SpecError: The provider covers the Earth, so a place must be given.
        """
        ...

    def fetch(self, query: Query) -> Chip:
        """Return the chip on exactly `query.geobox`, bands in the order of `query.sensor.bands`, NaN for nodata.

        Values are float32, finite or NaN, in the units of `core.bands.COLLECTIONS`. Without `query.series`, there is
        one frame, made as `query.sensor.composite` says. With it, there are the frames of the series in order of time,
        at most one from each of its `windows`. Leave out frames without a valid pixel; they are added later if the
        series keeps them. `Chip.times` holds when each frame was acquired (the mean, for several scenes).

        All of this is checked (`common/checked.py`). The method is called from threads that are abandoned when the
        user stops the job.

        Raises:
            SensorNotOffered: The provider does not have the collection or one of the bands.
            OutsideCoverage: The grid lies wholly outside what it covers.
            NoImagery: Nothing was acquired in the window.
            ReadError: A file or answer could not be read.
        """
        ...


class Rebuilt:
    """Base class of providers with locks and open connections: pickling one makes a new one in the other process.

    It is made from the same arguments, and so reads the variables of that process.
    """

    _built_with: tuple[tuple[object, ...], dict[str, object]]

    def __new__(cls, *given: object, **named: object) -> Self:
        """Store the arguments."""
        made = super().__new__(cls)
        made._built_with = given, named
        return made

    def __reduce__(self) -> "tuple[Callable[..., Rebuilt], tuple[object, ...]]":
        """Pickle the arguments only."""
        given, named = self._built_with
        return partial(type(self), *given, **named), ()


class Wrapped(ABC):
    """Base class of wrappers, which pass everything except `fetch` to another provider."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self.name: str = provider.name

    def identity(self) -> str:
        """Return the wrapped provider's identity."""
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
