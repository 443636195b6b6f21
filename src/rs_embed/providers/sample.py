"""The sample scene that comes with the package: a first embedding needs no account and no network."""

import hashlib
from dataclasses import replace
from datetime import datetime
from functools import cache
from importlib.resources import files
from pathlib import Path

from odc.geo.geobox import GeoBox

from rs_embed.core.bands import Unit
from rs_embed.core.chip import Chip
from rs_embed.core.specs import OrbitPass, SensorSpec, TemporalSpec
from rs_embed.errors import OutsideCoverage, SensorNotOffered
from rs_embed.providers.base import Query
from rs_embed.providers.common.grids import bounds_deg, in_degrees
from rs_embed.providers.rasters.local import LocalRasters, Raster

_FOLDER = Path(str(files("rs_embed") / "data" / "sample"))
_RASTERS = {
    "COPERNICUS/S2_SR_HARMONIZED": Raster(
        _FOLDER / "s2_l2a_12band_10m.tif",
        unit=Unit.DN,
        offset=0.0,
        time="2017-06-13T10:10:31Z",
        scene_id="S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP",
        collection="COPERNICUS/S2_SR_HARMONIZED",
    ),
    "COPERNICUS/S1_GRD": Raster(
        _FOLDER / "s1_vv_vh_10m.tif",
        unit=Unit.DB,
        time="2017-06-12T16:58:09Z",
        scene_id="S1B_IW_GRDH_1SDV_20170612T165809",
        collection="COPERNICUS/S1_GRD",
    ),
}
"""Collection -> file. Dates and ids are in `scene.json`."""
_ORBIT: OrbitPass = "ASCENDING"
"""The orbit pass of the Sentinel-1 scene: acquired at 17 h UTC at 13 degrees east, on the evening side."""
_EXAMPLE = "PointBuffer(lon=12.9394, lat=47.7682, buffer_m=1000)"
"""A place around the middle of the scene."""


class SampleScene:
    """2.4 x 3.6 km of the Saalach valley in June 2017: Sentinel-2 L2A and Sentinel-1 GRD, both at 10 m."""

    name = "sample"

    def __init__(self) -> None:
        self._rasters = LocalRasters(list(_RASTERS.values()))

    def identity(self) -> str:
        """Return a hash of the bundled files."""
        return f"{self.name}:{_digest()}"

    def require(self, modality: str, sensor: SensorSpec) -> None:
        """See `Provider`; Sentinel-1 in another mode or orbit pass counts as another sensor."""
        _require_offered(sensor)
        self._rasters.require(modality, sensor)

    def native_geobox(self, query: Query) -> GeoBox:
        """Return the grid of the whole scene at 10 m (or as close as another `scale_m` allows).

        Raises:
            SensorNotOffered: The sample does not have this sensor.
        """
        _require_offered(query.sensor)
        return self._rasters.native_geobox(replace(query, window=None))

    def fetch(self, query: Query) -> Chip:
        """Return the chip with the scene's own date, whatever the window; a note says so if they differ.

        Raises:
            SensorNotOffered: The sample does not have this sensor or one of the bands.
            OutsideCoverage: The grid lies wholly outside the scene.
        """
        _require_offered(query.sensor)
        whole = replace(query, window=None)
        try:
            chip = self._rasters.fetch(whole)
        except OutsideCoverage as error:
            raise _outside(self.native_geobox(replace(whole, geobox=None)), error) from None
        kept = tuple(note for note in chip.source.notes if "orbit pass" not in note)  # the scene's pass is known
        notes = kept + _window_note(query.window, chip.times[0])
        return replace(chip, source=replace(chip.source, provider=self.name, notes=notes))


def _window_note(window: TemporalSpec | None, time: datetime | None) -> tuple[str, ...]:
    if window is None or time is None or window.start <= time.date() < window.end:
        return ()
    return (f"The sample scene is of {time:%Y-%m-%d}, outside of {window.start} to {window.end}; it was used anyway.",)


def _require_offered(sensor: SensorSpec) -> None:
    if sensor.collection not in _RASTERS:
        raise SensorNotOffered(
            f"The sample scene does not have {sensor.collection}.",
            has=", ".join(_RASTERS),
            fix="choose a model that takes one of these, or use your own imagery: backend=<path>",
        )
    mode, orbit_pass = sensor.instrument_mode, sensor.orbit_pass or _ORBIT
    if sensor.collection == "COPERNICUS/S1_GRD" and (mode, orbit_pass) != ("IW", _ORBIT):
        raise SensorNotOffered(
            f"Expected Sentinel-1 in mode {mode}, {orbit_pass.lower()}; the sample scene is in mode IW, ascending.",
            fix='use a modality in mode IW, ascending, such as "s1"',
        )


def _outside(grid: GeoBox, error: OutsideCoverage) -> OutsideCoverage:
    west, south, east, north = bounds_deg(grid)
    return OutsideCoverage(
        error.headline.replace("in the files", "in the sample scene"),
        covered=in_degrees(grid),
        centre=f"lon {(west + east) / 2:.4f}, lat {(south + north) / 2:.4f}",
        fix=f"{_EXAMPLE} works with the sample; for other places, use your own imagery: backend=<path>",
    )


@cache
def _digest() -> str:
    digest = hashlib.sha256()
    for raster in _RASTERS.values():
        digest.update(Path(raster.path).read_bytes())
    return digest.hexdigest()
