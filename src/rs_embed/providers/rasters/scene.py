"""Scenes: the files of one date, and the bands they hold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from pathlib import Path

from rs_embed.errors import BandMismatch, SpecError
from rs_embed.providers.lexicon import canonical
from rs_embed.providers.rasters.declared import Raster, parse_time
from rs_embed.providers.rasters.raster import Header, read_headers

RasterLike = str | Path | Raster
RasterSource = RasterLike | Sequence[RasterLike] | Mapping[str, RasterLike]
Day = str | date | datetime
_TIME_TAGS = ("ACQUISITION_DATETIME", "TIFFTAG_DATETIME")


@dataclass(frozen=True)
class Layer:
    """One file of a scene."""

    raster: Raster
    header: Header

    def __post_init__(self) -> None:
        names = self.raster.bands
        if names is not None and len(names) != self.header.count:
            raise BandMismatch(
                f"Expected one name per band, got {len(names)} names for {self.header.count} bands.",
                file=self.header.path,
                names=", ".join(names),
                fix="name every band of the file, in its order; use any name for bands that are not needed",
            )

    @property
    def names(self) -> tuple[str | None, ...]:
        """The name of each band, from the user or the file."""
        if self.raster.bands is not None:
            return tuple(self.raster.bands)
        return self.header.colours if self.named_by_colour else self.header.descriptions

    @property
    def named_by_colour(self) -> bool:
        """Whether the file only says which of its bands are red, green and blue."""
        header = self.header
        return self.raster.bands is None and not any(header.descriptions) and any(header.colours)

    def indexes(self, collection: str) -> dict[str, int]:
        """Return shared band name -> band number in the file, from 1.

        Raises:
            BandMismatch: Two bands have names that mean the same.
        """
        found: dict[str, int] = {}
        if self.raster.collection not in (None, collection):
            return found
        for index, name in enumerate(self.names, start=1):
            band = canonical(name, collection) if name else None
            if band in found:
                raise BandMismatch(
                    f"Expected each band once, got {band} twice.",
                    file=self.header.path,
                    bands=", ".join(str(name) for name in self.names),
                    fix="name the bands: bands=[...]",
                )
            if band is not None:
                found[band] = index
        return found


@dataclass(frozen=True)
class Scene:
    """The files of one date."""

    layers: tuple[Layer, ...]

    @property
    def time(self) -> datetime | None:
        """Acquisition time, from the user or else from the files."""
        stated = [parse_time(layer.raster.time) for layer in self.layers if layer.raster.time is not None]
        tagged = (_tagged_time(layer.header.tags) for layer in self.layers)
        return stated[0] if stated else next((time for time in tagged if time is not None), None)

    @property
    def ids(self) -> tuple[str, ...]:
        """Scene ids from the user, or file names."""
        ids = (layer.raster.scene_id or Path(layer.raster.path).stem for layer in self.layers)
        return tuple(dict.fromkeys(ids))

    def find(self, collection: str) -> dict[str, tuple[Layer, int]]:
        """Return shared band name -> file and band number; if several files have a band, the first counts."""
        found: dict[str, tuple[Layer, int]] = {}
        for layer in self.layers:
            for band, index in layer.indexes(collection).items():
                found.setdefault(band, (layer, index))
        return found


def _tagged_time(tags: Mapping[str, str]) -> datetime | None:
    for tag in _TIME_TAGS:
        day, _, clock = tags.get(tag, "").partition(" ")
        try:  # TIFF writes 2022:06:01 10:10:31
            return parse_time(f"{day.replace(':', '-')}T{clock}" if clock else day)
        except SpecError:
            continue
    return None


def open_scenes(source: RasterSource, defaults: Raster, dates: Day | Sequence[Day] | None) -> list[Scene]:
    """Read the headers of the user's files, one scene per date.

    Args:
        source: See `LocalRasters`.
        defaults: Declarations for every file that does not have its own.
        dates: One per scene; a `Raster` with its own time keeps it.

    Raises:
        SpecError: The source, or the number of dates, is invalid.
        ReadError: A file cannot be read.
        BandMismatch: The number of names differs from the number of bands of a file.
    """
    if isinstance(source, Mapping):
        groups = [_by_band(source, defaults)]
    elif isinstance(source, Sequence) and not isinstance(source, str):
        groups = _by_date([_raster(one) for one in source], defaults)
    else:
        groups = [_open([_raster(source).completed(defaults)])]
    if not any(groups):
        raise SpecError(f"Expected at least one raster, got {source!r}.", fix='pass a path: LocalRasters("scene.tif")')
    return [Scene(tuple(layers)) for layers in _dated(groups, dates)]


def _raster(given: RasterLike) -> Raster:
    return given if isinstance(given, Raster) else Raster(given)


def _open(rasters: Sequence[Raster]) -> list[Layer]:
    return [Layer(raster, header) for raster in rasters for header in _headers(raster)]


def _headers(raster: Raster) -> tuple[Header, ...]:
    return read_headers(raster.path, foreign=raster.allow_foreign)


def _by_band(source: Mapping[str, RasterLike], defaults: Raster) -> list[Layer]:
    if defaults.bands is not None:
        raise SpecError("Expected band names once, got both a mapping and bands=[...].", fix="leave bands out")
    return _open([replace(_raster(one), bands=(band,)).completed(defaults) for band, one in source.items()])


def _by_date(rasters: Sequence[Raster], defaults: Raster) -> list[list[Layer]]:
    """Group rasters: one scene per raster, or one scene if `defaults.bands` names them as single bands."""
    names = () if defaults.bands is None else tuple(defaults.bands)
    if len(names) == len(rasters) > 1:
        headers = [_headers(raster.completed(defaults)) for raster in rasters]
        if all(len(found) == 1 and found[0].count == 1 for found in headers):
            single = [replace(one, bands=(name,)) for one, name in zip(rasters, names, strict=True)]
            return [_open([one.completed(defaults) for one in single])]
    return [_open([raster.completed(defaults)]) for raster in rasters]


def _dated(groups: list[list[Layer]], dates: Day | Sequence[Day] | None) -> list[list[Layer]]:
    if dates is None:
        return groups
    days = [dates] if isinstance(dates, str | date) else list(dates)
    if len(days) != len(groups):
        raise SpecError(
            f"Expected one date per scene, got {len(days)} dates for {len(groups)} scenes.",
            fix="pass as many dates as files (one for all files of a single date)",
        )
    return [
        [Layer(replace(one.raster, time=one.raster.time or parse_time(day)), one.header) for one in layers]
        for layers, day in zip(groups, days, strict=True)
    ]
