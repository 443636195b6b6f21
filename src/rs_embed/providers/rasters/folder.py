"""A folder of rasters as a provider, where each file is a place of its own: files are never combined."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from glob import glob
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from rs_embed.core.bands import Unit
from rs_embed.core.chip import Chip
from rs_embed.core.geo import densified, project
from rs_embed.core.specs import SensorSpec
from rs_embed.errors import NoImagery, OutsideCoverage, ReadError, SensorNotOffered, SpecError
from rs_embed.providers.base import Query
from rs_embed.providers.common.grids import in_degrees
from rs_embed.providers.rasters.local import LocalRasters, Raster
from rs_embed.providers.rasters.raster import read_headers

WILD = "*?["
"""Characters that make a path a pattern."""
SHOWN = 20
"""Largest number of files that an error names."""
COVERED = 0.5
"""Smallest share of a chip's area that its file must cover."""


class RasterFolder:
    """Every raster that a pattern matches. Each chip comes from one of them.

    It is the file that covers most of the chip's area; among equals, the one whose own area is most like the chip's.

    Example:
        >>> RasterFolder("tiles/*.tif")                                           # doctest: +SKIP
        >>> RasterFolder("tiles/*.tif", bands=["B2", "B3", "B4"], offset=-1000)   # doctest: +SKIP
    """

    name = "local"

    def __init__(
        self,
        pattern: str | Path,
        *,
        bands: Sequence[str] | None = None,
        unit: Unit | str | None = None,
        offset: float | None = None,
        nodata: float | None = None,
        collection: str | None = None,
        allow_foreign: bool = False,
    ) -> None:
        """Read the headers of the files. The other arguments are those of `LocalRasters`, and apply to all files.

        Args:
            pattern: A shell-style pattern; `**` matches nested folders.
            bands: Names of the bands, in the order of the files.
            unit: Unit of the values.
            offset: Added to stored Sentinel-2 DN to make them 0-based.
            nodata: The stored number that means nodata.
            collection: The only collection that the files represent.
            allow_foreign: Whether the files may use more than rasters on this disk.

        Raises:
            ReadError: No file matches, or some cannot be read; the error names them all.
            BandMismatch: The number of names differs from the number of bands of a file.
            SpecError: An argument is invalid.
        """
        paths = matching(pattern)
        self._boxes = np.array([_box(grid) for grid in grids_of(paths, foreign=allow_foreign)])
        declared = Raster("", bands, unit, offset, nodata, collection=collection, allow_foreign=allow_foreign)
        self._files = tuple(LocalRasters(replace(declared, path=path)) for path in paths)

    def identity(self) -> str:
        """Return a hash of the identities of all files."""
        identities = "\n".join(one.identity() for one in self._files)
        return "folder:" + hashlib.sha256(identities.encode()).hexdigest()

    def require(self, modality: str, sensor: SensorSpec) -> None:
        """See `Provider`; one file that has the bands is enough.

        Raises:
            SensorNotOffered: No file has the bands.
        """
        for one in self._files[:-1]:
            try:
                return one.require(modality, sensor)
            except SensorNotOffered:
                continue
        return self._files[-1].require(modality, sensor)

    def native_geobox(self, query: Query) -> GeoBox:
        """Return the grid of the file, if there is only one.

        Raises:
            SpecError: There are several files.
        """
        if len(self._files) > 1:
            raise SpecError(
                f"Expected a place in one of {len(self._files)} rasters, got none.",
                fix="embed them one by one: export_embeddings(model, raster_places(pattern), out, backend=pattern)",
            )
        return self._files[0].native_geobox(query)

    def fetch(self, query: Query) -> Chip:
        """Return the chip, from the file in the window that covers it best.

        Raises:
            OutsideCoverage: No file covers the place.
            NoImagery: No file that covers it is in the window.
        """
        if query.geobox is None:
            return self._files[0].fetch(query)
        covered, alike = _shared(_box(query.geobox), self._boxes)
        ranked: list[int] = np.lexsort((-alike, -covered)).tolist()
        order = [index for index in ranked if covered[index] >= COVERED]
        if not order:
            raise OutsideCoverage(
                f"Expected a raster that covers {in_degrees(query.geobox)}, got none in the folder.",
                fix="take the places from the same pattern: raster_places(pattern)",
            )
        for index in order[:-1]:
            try:
                return self._files[index].fetch(query)
            except NoImagery:  # it is of another day
                continue
        return self._files[order[-1]].fetch(query)


def is_pattern(path: str | Path) -> bool:
    """Whether a path is a pattern of files."""
    return any(mark in str(path) for mark in WILD) and not Path(path).exists()


def matching(pattern: str | Path) -> list[str]:
    """Return the files that a pattern matches, sorted; `**` matches nested folders.

    Raises:
        ReadError: No file matches.
    """
    found: Sequence[str] = sorted(glob(str(Path(pattern).expanduser()), recursive=True))
    if not found:
        raise ReadError(
            f"Expected rasters that match {str(pattern)!r}, got none.", fix="check the folder and the file suffix"
        )
    return list(found)


def grids_of(paths: Sequence[str], *, foreign: bool = False) -> list[GeoBox]:
    """Return the grid of each file; `foreign` is as for `read_headers`.

    Raises:
        ReadError: Some files cannot be read or are not georeferenced; the error names up to 20 of them.
    """
    grids, wrong = [], []
    for path in paths:
        try:
            grids.append(read_headers(path, foreign=foreign)[0].grid)
        except ReadError as error:
            wrong.append(error)
    if len(wrong) > 1:
        raise ReadError(
            f"Expected {len(paths)} rasters, got {len(wrong)} that cannot be read.",
            files="\n".join(error.headline for error in wrong[:SHOWN]),
            fix="repair them or move them away, then make the same call again",
        )
    if wrong:
        raise wrong[0]
    return grids


def _box(grid: GeoBox) -> NDArray[np.float64]:
    """Return west, south, east, north of a grid, degrees."""
    left, bottom, right, top = grid.boundingbox.bbox
    ring = ((left, bottom), (left, top), (right, top), (right, bottom), (left, bottom))
    lons, lats = project(*densified(ring), str(grid.crs), "EPSG:4326")
    return np.array([lons.min(), lats.min(), lons.max(), lats.max()])


def _shared(box: NDArray[np.float64], boxes: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return, `[N]` each, the share of `box` that each of `boxes` covers, to 0.001, and intersection over union."""
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    both = np.prod(np.clip(high - low, 0, None), axis=1)
    own = np.prod(box[2:] - box[:2])
    either = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) + own - both
    return np.round(both / own, 3), both / either
