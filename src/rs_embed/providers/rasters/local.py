"""Raster files on disk as a provider."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from odc.geo.geobox import GeoBox

from rs_embed.core.bands import Unit, bands_of
from rs_embed.core.chip import Chip, Source
from rs_embed.core.geo import MAX_SIDE_PX, geobox_for
from rs_embed.core.specs import BBox, SensorSpec
from rs_embed.errors import (
    NoImagery,
    NoValidPixels,
    OutsideCoverage,
    ReadError,
    SensorNotOffered,
    SpecError,
    UnitMismatch,
)
from rs_embed.providers.base import Query
from rs_embed.providers.common.composite import composite, refuse_cloud_mask
from rs_embed.providers.common.grids import in_degrees
from rs_embed.providers.common.plausible import Pixels
from rs_embed.providers.common.series import frame_slots, mean_time
from rs_embed.providers.rasters.declared import Raster
from rs_embed.providers.rasters.frame import RasterFrame, read_frame
from rs_embed.providers.rasters.scene import Day, Layer, RasterSource, Scene, open_scenes

__all__ = ["LocalRasters", "Raster"]

_PIXEL_SIZE_TOLERANCE = 1e-3
"""A grid is read without resampling if its pixel size differs from `scale_m` by less than this share."""


class LocalRasters:
    """GeoTIFF, COG, VRT and Zarr on disk. Safe to call from several threads: every call opens its own datasets.

    Example:
        >>> LocalRasters("scene.tif")                                             # doctest: +SKIP
        >>> LocalRasters("scene.tif", bands=["B2", "B3", "B4"], offset=-1000)     # doctest: +SKIP
        >>> LocalRasters({"B2": "blue.tif", "B3": "green.tif"}, unit="dn")        # doctest: +SKIP
        >>> LocalRasters(["june.tif", "july.tif"], dates=["2022-06-03", "2022-07-08"])  # doctest: +SKIP
    """

    name = "local"

    def __init__(
        self,
        source: RasterSource,
        *,
        bands: Sequence[str] | None = None,
        unit: Unit | str | None = None,
        offset: float | None = None,
        nodata: float | None = None,
        dates: Day | Sequence[Day] | None = None,
        collection: str | None = None,
        allow_foreign: bool = False,
    ) -> None:
        """Read the headers of the files.

        Args:
            source: A file; a list of files, one per date (or one single-band file per name in `bands`); or a mapping
                from band to single-band file, for one date. Each may be a `Raster`, whose own values take precedence.
            bands: Names of the bands, in the order of the files; by default, those in the files.
            unit: Unit of the values: "dn", "reflectance", "byte" (a picture from 0 to 255), "db", "power", ...; by
                default, the unit that the files state, else recognised from the values.
            offset: Added to stored Sentinel-2 DN to make them 0-based (ESA's BOA_ADD_OFFSET, e.g. -1000).
            nodata: The stored number that means nodata; by default, what the files state.
            dates: One per date; by default, what the files state.
            collection: The only collection that the files represent; by default, any whose bands they have.
            allow_foreign: Whether the files may use more than rasters on this disk. A VRT can name URLs, or read the
                bytes of any file; by default, such a file is refused.

        Raises:
            ReadError: A file is missing, cannot be read, or is not georeferenced.
            BandMismatch: The number of names differs from the number of bands of a file.
            SpecError: An argument is invalid.
        """
        defaults = Raster("", bands, unit, offset, nodata, collection=collection, allow_foreign=allow_foreign)
        self._scenes = tuple(open_scenes(source, defaults, dates))

    def identity(self) -> str:
        """Return a hash of path, size, modification time and declarations of every file."""
        parts = [
            f"{_stamp(Path(layer.raster.path))} {layer.names} {replace(layer.raster, path='')!r}"
            for scene in self._scenes
            for layer in scene.layers
        ]
        return "local:" + hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def require(self, modality: str, sensor: SensorSpec) -> None:
        """See `Provider`; the headers were read when the object was made."""
        self._able(sensor)

    def native_geobox(self, query: Query) -> GeoBox:
        """Return the grid of the first matching raster if its pixels are squares of `scale_m`, else one over it.

        Raises:
            SpecError: The raster is too large for one chip.
        """
        sensor = query.sensor
        by_band = self._matching(query)[0].find(sensor.collection)
        grids = [by_band[name][0].header.grid for name in sensor.bands]
        for grid in grids:
            if _has_pixels_of(grid, sensor.scale_m):
                _require_one_chip(grid)
                return grid
        bounds = grids[0].boundingbox
        return geobox_for(BBox(*bounds.bbox, crs=str(grids[0].crs)), sensor.scale_m)

    def fetch(self, query: Query) -> Chip:
        """Return the chip, read from the files that have the bands, cover the place and are in the window.

        A file without a date is used for any window; a note says so.

        Raises:
            SensorNotOffered: No file has the bands.
            NoImagery: No file is in the window.
            OutsideCoverage: All files lie outside the grid.
            NoValidPixels: Every pixel on the grid is nodata.
            ReadError: A file cannot be read.
            UnitMismatch: The unit cannot be recognised, or the values cannot be in the declared unit.
        """
        geobox = query.geobox if query.geobox is not None else self.native_geobox(query)
        scenes = self._matching(query)
        made = list(_made(scenes, query, geobox))
        if not made:
            raise _outside(scenes, geobox)
        frames = [one for one in made if one.used]
        if not frames:
            raise NoValidPixels(
                f"Expected at least one valid pixel, got only nodata in {', '.join(scenes[0].ids)}.",
                where=in_degrees(geobox),
                fix="choose another place, or declare the right nodata value",
            )
        values = np.stack([one.values for one in frames])
        units = _same_units([one.units for one in frames], [one.used[0] for one in frames])
        bands = bands_of(query.sensor.collection, query.sensor.bands)
        bands = tuple(replace(band, unit=unit) for band, unit in zip(bands, units, strict=True))
        times = tuple(mean_time(one.times) for one in frames)
        source = _source(self.name, query, frames)
        if len(frames) < len(made):
            lost = f"{len(made) - len(frames)} of {len(made)} frames have no valid pixel and are left out."
            source = replace(source, notes=(*source.notes, lost))
        return Chip(values, bands, geobox, times, source)

    def _able(self, sensor: SensorSpec) -> list[Scene]:
        """Return the scenes that have every band, at least one."""
        refuse_cloud_mask(sensor)
        able = [scene for scene in self._scenes if set(sensor.bands) <= set(scene.find(sensor.collection))]
        if not able:
            raise _not_offered(self._scenes, sensor)
        return able

    def _matching(self, query: Query) -> list[Scene]:
        """Return the scenes with every band that are undated or in the window, at least one."""
        able = self._able(query.sensor)
        window = query.window
        if window is None:
            return able
        inside = [s for s in able if s.time is None or window.start <= s.time.date() < window.end]
        if not inside:
            days = sorted({scene.time.date() for scene in able if scene.time is not None})
            raise NoImagery(
                f"Expected imagery from {window.start} up to {window.end}, got none in the files.",
                dates=", ".join(str(day) for day in days[:10]) + (", ..." if len(days) > 10 else ""),
                fix=f'use TemporalSpec.range("{days[0]}", "{days[-1] + timedelta(days=1)}")',
            )
        return inside


def _read(
    scenes: Sequence[Scene], sensor: SensorSpec, geobox: GeoBox, *, first: bool
) -> Iterator[tuple[Scene, RasterFrame]]:
    """Yield the scenes that touch the grid; with `first`, stop after one with valid pixels."""
    for scene in scenes:
        frame = read_frame(scene, sensor, geobox)
        if frame is not None:
            yield scene, frame
            if first and frame.is_valid:
                return


@dataclass(frozen=True, eq=False)
class _Made:
    """One finished frame of the chip."""

    values: Pixels
    """`[C, H, W]`; empty if no scene had a valid pixel."""
    used: tuple[Scene, ...]
    units: tuple[Unit, ...]
    notes: tuple[str, ...]
    offsets: frozenset[float | None]

    @property
    def times(self) -> list[datetime]:
        """The known acquisition times of its scenes."""
        return [scene.time for scene in self.used if scene.time is not None]


def _made(scenes: Sequence[Scene], query: Query, geobox: GeoBox) -> Iterator[_Made]:
    """Yield the requested frames, as far as their scenes touch the grid."""
    single = query.series is not None and query.series.sampling == "scenes"
    for slot in [scenes] if query.series is None else _slots(scenes, query):
        read = list(_read(slot, query.sensor, geobox, first=query.sensor.composite == "first" and not single))
        valid = [(scene, frame) for scene, frame in read if frame.is_valid]
        if single:
            valid = sorted(valid, key=lambda one: -int(np.isfinite(one[1].values).sum()))[:1]
        if valid:
            values = composite([frame.values for _, frame in valid], query.sensor.composite)
            notes = tuple(note for _, frame in valid for note in frame.notes)
            offsets = frozenset(frame.offset_applied for _, frame in valid)
            units = _same_units([frame.units for _, frame in valid], [scene for scene, _ in valid])
            yield _Made(values, tuple(scene for scene, _ in valid), units, notes, offsets)
        elif read:
            yield _Made(np.empty(0, np.float32), (), (), (), frozenset())


def _same_units(units: Sequence[tuple[Unit, ...]], scenes: Sequence[Scene]) -> tuple[Unit, ...]:
    """Return the units that all scenes share: pictures and measurements are never mixed."""
    for one, scene in zip(units, scenes, strict=True):
        if one != units[0]:
            raise UnitMismatch(
                f"Expected files in one unit, got {units[0][0]} in {scenes[0].ids[0]} and {one[0]} in {scene.ids[0]}.",
                fix="use pictures and measurements in separate calls",
            )
    return units[0]


def _slots(scenes: Sequence[Scene], query: Query) -> list[list[Scene]]:
    """Return the scenes that each frame of a series may be made from."""
    undated = [scene.ids[0] for scene in scenes if scene.time is None]
    if undated or query.series is None:
        raise NoImagery(
            f"Expected dated scenes for a series, got no date for {', '.join(undated[:5])}.",
            fix='use LocalRasters(path, dates=["2022-06-01", ...])',
        )
    times = [scene.time for scene in scenes if scene.time is not None]
    return [[scenes[i] for i in slot] for slot in frame_slots(times, query.window, query.series)]


def _outside(scenes: Sequence[Scene], geobox: GeoBox) -> OutsideCoverage:
    return OutsideCoverage(
        f"Expected imagery at {in_degrees(geobox)}, got none in the files.",
        covered="\n".join(dict.fromkeys(in_degrees(scene.layers[0].header.grid) for scene in scenes[:5])),
        fix="choose a place inside, or leave the place out to use the whole raster",
    )


def _source(name: str, query: Query, frames: Sequence[_Made]) -> Source:
    notes = [note for one in frames for note in one.notes]
    used = [scene for one in frames for scene in one.used]
    if query.window is not None:
        notes += [f"{scene.ids[0]}: no date, the window was not checked." for scene in used if scene.time is None]
    if query.sensor.orbit_pass is not None:
        notes.append(f"Files do not state their orbit pass; taken as {query.sensor.orbit_pass.lower()}, as asked for.")
    offsets = {offset for one in frames for offset in one.offsets}
    if len(offsets) > 1:
        notes.append(f"Scenes differ in the offset applied: {', '.join(sorted(map(str, offsets)))}.")
    return Source(
        provider=name,
        collection=query.sensor.collection,
        scene_ids=tuple(scene_id for scene in used for scene_id in scene.ids),
        scene_times=tuple(scene.time for scene in used if scene.time is not None),
        scenes_per_frame=tuple(len(one.used) for one in frames),
        offset_applied=offsets.pop() if len(offsets) == 1 else None,
        notes=tuple(dict.fromkeys(notes)),
    )


def _has_pixels_of(grid: GeoBox, scale_m: float) -> bool:
    """Whether the grid is in metres and north-up, with square pixels of `scale_m`."""
    affine, crs = grid.affine, grid.crs
    if crs is None or not crs.projected or crs.units[0] not in ("metre", "meter", "m") or affine.b or affine.d:
        return False
    return max(abs(affine.a - scale_m), abs(affine.e + scale_m)) <= _PIXEL_SIZE_TOLERANCE * scale_m


def _require_one_chip(grid: GeoBox) -> None:
    height, width = grid.shape
    if max(height, width) > MAX_SIDE_PX:
        raise SpecError(
            f"Expected at most {MAX_SIDE_PX} pixels a side, got a raster of {height} x {width}.",
            fix="choose a place inside it",
        )


def _stamp(path: Path) -> str:
    """Return path, size and modification time of a file or store."""
    path = path.expanduser().resolve()
    try:
        stats = [file.stat() for file in sorted(path.rglob("*"))] if path.is_dir() else [path.stat()]
    except OSError as error:
        raise ReadError(f"Expected a raster, but {path} is gone: {error}", fix="check the path") from error
    return f"{path} {sum(stat.st_size for stat in stats)} {max(stat.st_mtime_ns for stat in stats)}"


def _not_offered(scenes: Sequence[Scene], sensor: SensorSpec) -> SensorNotOffered:
    layers = [layer for scene in scenes for layer in scene.layers]
    unnamed = [layer for layer in layers if not any(layer.names)]
    by_band = {band for scene in scenes for band in scene.find(sensor.collection)}
    wanted = [band for band in sensor.bands if band not in by_band] or sensor.bands
    fix = "use fewer bands, or name those of the file: LocalRasters(path, bands=[...])"
    if unnamed:
        fix = f"name the bands, in the order of the file: {_example(unnamed[0], sensor)}"
    return SensorNotOffered(
        f"Expected {', '.join(wanted)} of {sensor.collection}, got no file with them.",
        files="\n".join(_holds(layer) for layer in layers[:10]) + ("\n..." if len(layers) > 10 else ""),
        fix=fix,
    )


def _holds(layer: Layer) -> str:
    names = ", ".join(str(name) for name in layer.names) if any(layer.names) else "without names"
    only = f", only for {layer.raster.collection}" if layer.raster.collection else ""
    return f"{layer.header.path}: {layer.header.count} bands ({names}){only}"


def _example(layer: Layer, sensor: SensorSpec) -> str:
    names = [repr(name) for name in sensor.bands[: layer.header.count]]
    if len(names) < layer.header.count:
        names.append("...")
    return f"LocalRasters({str(layer.raster.path)!r}, bands=[{', '.join(names)}])"
