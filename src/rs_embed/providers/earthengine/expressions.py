"""Build the expressions that Earth Engine computes for a query; sends no request.

A chip is one image, with the bands (`f0_B2`, ...) and the number of clear observations (`f0_clear`) of each frame.
Pixels without a value hold a number that no value has (`SENTINEL`), as NPY has no mask.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from odc.geo.geobox import GeoBox

from rs_embed.core.bands import bands_of
from rs_embed.core.specs import Composite, SensorSpec, TemporalSpec
from rs_embed.providers.common.conditions import CLEAR_SCL, Condition
from rs_embed.providers.common.grids import bounds_deg, lonlat_border, utm_zone
from rs_embed.providers.common.passes import LOOK_PX, look_at
from rs_embed.providers.earthengine.archives import (
    CLOUD_SCORE,
    HIGHEST_OLCI_REFLECTANCE,
    LOWEST_COS_SUN,
    OLCI_SOLAR_FLUX,
    SENTINEL,
    UTM_ZONE,
    Archive,
    Resampling,
    Transport,
    conditions_of,
)
from rs_embed.providers.earthengine.client import ee
from rs_embed.providers.earthengine.scenes import ArchivedScene, FramePlan


@dataclass(frozen=True)
class PixelOptions:
    """The provider's settings for pixels."""

    cloud_score: float
    resampling: Resampling | None
    """`None` means the resampling of the archive."""


@dataclass(frozen=True)
class Recipe:
    """How the scenes of a query become pixels."""

    sensor: SensorSpec
    archive: Archive
    geobox: GeoBox
    options: PixelOptions

    @property
    def region(self) -> ee.Geometry:
        """The border of the grid; its edges are so short that their curvature does not matter."""
        return ee.Geometry.Polygon([lonlat_border(self.geobox)])

    @property
    def images(self) -> ee.ImageCollection:
        """All images of the archive."""
        asset = self.archive.asset
        return ee.ImageCollection([ee.Image(asset)] if self.archive.single else asset)

    @property
    def names(self) -> list[str]:
        """Earth Engine's names of the bands."""
        return [self.archive.name(band) for band in self.sensor.bands]

    def collection(self, window: TemporalSpec | None, conditions: Sequence[Condition]) -> ee.ImageCollection:
        """The scenes on the grid and in the window that meet the conditions."""
        found = self.images
        if window is not None and self.archive.dated:
            first = window.start.replace(day=1) if self.archive.monthly else window.start
            found = found.filterDate(first.isoformat(), window.end.isoformat())
        found = found.filterBounds(self.region)
        for condition in conditions:
            found = found.filter(_filter(condition))
        return found

    def masks(self, found: ee.ImageCollection) -> ee.ImageCollection:
        """The same scenes, with the bands that their cloud mask needs."""
        if self.sensor.cloud_mask == "cs+":
            return found.linkCollection(ee.ImageCollection(CLOUD_SCORE), ["cs_cdf"])
        return found


def _filter(condition: Condition) -> ee.Filter:
    if condition.relation == "at most":
        # Not `lte`: the client turns it into "not greater", which a scene without the property passes.
        return ee.Filter.lessThanOrEquals(condition.property, condition.value)
    if condition.relation == "holds":
        return ee.Filter.listContains(condition.property, condition.value)
    return ee.Filter.eq(condition.property, condition.value)


def scene_list(recipe: Recipe, window: TemporalSpec | None, *, measured: bool) -> ee.FeatureCollection:
    """The expression for the list of scenes.

    Args:
        recipe: Collection, place and masks.
        window: Days.
        measured: List only scenes that meet the conditions of the sensor, and measure which share of the chip each one
            shows. Otherwise all scenes are listed, so that an error can report how many each condition left.
    """
    archive = recipe.archive
    names = ["system:time_start", *archive.properties]
    names += [archive.cloud_property] if archive.cloud_property else []
    look, region = look_at(recipe.geobox), recipe.region

    def described(image: ee.Image) -> ee.Feature:
        scene = ee.Feature(None).copyProperties(image, names).set("scene", image.get("system:index"))
        if not measured:
            return scene
        shown = _masked(image, recipe).select([recipe.names[0]]).mask().rename(["clear"]).unmask(0, False)
        mean = shown.reduceRegion(
            reducer=ee.Reducer.mean(),
            geometry=region,
            crs=str(look.crs),
            crsTransform=list(look.affine)[:6],
            maxPixels=4 * LOOK_PX * LOOK_PX,
        )
        return scene.set("clear", mean.get("clear"))

    if measured:
        found = recipe.masks(recipe.collection(window, conditions_of(recipe.sensor)))
    else:
        found = recipe.collection(window, ())
    return ee.FeatureCollection(found.map(described))


def pixel_grid(geobox: GeoBox) -> dict[str, object]:
    """A grid as `computePixels` describes it; the translation is the outer corner of the first pixel."""
    a, b, c, d, e, f = tuple(geobox.affine)[:6]
    height, width = geobox.shape
    return {
        "dimensions": {"width": width, "height": height},
        "affineTransform": {"scaleX": a, "shearX": b, "translateX": c, "shearY": d, "scaleY": e, "translateY": f},
        "crsCode": str(geobox.crs),
    }


def frames_image(recipe: Recipe, frames: Sequence[FramePlan], first_index: int = 0) -> ee.Image:
    """Return all bands of all frames as one image, frame by frame."""
    return ee.Image.cat([_frame(recipe, frame, f"f{i}") for i, frame in enumerate(frames, start=first_index)])


def band_names(recipe: Recipe, index: int) -> list[str]:
    """The names of one frame's bands in that image, the clear count last."""
    return [f"f{index}_{band}" for band in (*recipe.sensor.bands, "clear")]


def _frame(recipe: Recipe, frame: FramePlan, prefix: str) -> ee.Image:
    collection = recipe.collection(frame.window, conditions_of(recipe.sensor))
    ids = None if frame.ids is None else ee.List(list(frame.ids))
    if ids is not None:
        collection = collection.filter(ee.Filter.inList("system:index", ids))
        collection = collection.map(lambda image: image.set("rank", ids.indexOf(image.get("system:index"))))
        collection = collection.sort("rank")
    if recipe.archive.annual:
        zone = utm_zone(recipe.geobox) or "none"
        own = ee.List([zone, zone.zfill(3)])  # the spelling of zones 1 to 9 is not documented
        collection = collection.map(lambda image: image.set("own", own.indexOf(image.get(UTM_ZONE)))).sort("own")
    averaged = frame.how in ("median", "mean")
    sun = _sun_factors(recipe, frame.scenes) if recipe.archive.radiance else None
    prepared = recipe.masks(collection).map(lambda image: _prepared(image, recipe, sun, averaged=averaged))
    pixels = _reduced(prepared, frame.how)
    if averaged and recipe.archive.linear:
        pixels = pixels.log10().multiply(10)
    clear = prepared.select([recipe.names[0]]).count()
    clear = (clear.min(1) if frame.how == "first" else clear).toUint16().unmask(0, False)
    stored = _stored(pixels, recipe.archive.transport)
    return stored.addBands(clear).rename([f"{prefix}_{band}" for band in (*recipe.sensor.bands, "clear")])


def _prepared(image: ee.Image, recipe: Recipe, sun: "_SunFactors | None", *, averaged: bool) -> ee.Image:
    """One scene, masked, in the values that are composited."""
    pixels = _masked(image, recipe)
    if sun is not None:
        pixels = sun.reflectance(pixels, image)
    if averaged and recipe.archive.linear:
        pixels = ee.Image.constant(10).pow(pixels.divide(10)).rename(recipe.names)
    return pixels


def _masked(image: ee.Image, recipe: Recipe) -> ee.Image:
    """The requested bands of one scene, without the cloud and shadow that the sensor masks."""
    pixels = image.select(recipe.names)
    if _resampling(recipe) == "bilinear":
        pixels = pixels.resample("bilinear").unmask(pixels)  # no interpolation across the seam of two tiles
    if recipe.sensor.cloud_mask == "scl":
        scl = image.select(["SCL"])
        clear = scl.eq(CLEAR_SCL[0])
        for code in CLEAR_SCL[1:]:
            clear = clear.Or(scl.eq(code))
        return pixels.updateMask(clear)
    if recipe.sensor.cloud_mask == "cs+":
        return pixels.updateMask(image.select(["cs_cdf"]).gte(recipe.options.cloud_score))
    return pixels


def _resampling(recipe: Recipe) -> Resampling:
    if any(band.unit.kept_whole for band in bands_of(recipe.sensor.collection, recipe.sensor.bands)):
        return "nearest"
    return recipe.options.resampling or recipe.archive.resampling


def _reduced(prepared: ee.ImageCollection, how: Composite) -> ee.Image:
    """Composite images. Earth Engine's own mosaic goes band by band; here all bands of a pixel come from one scene."""
    if how == "median":
        return prepared.median()
    if how == "mean":
        return prepared.mean()
    if how == "first":  # granules of one pass are equal where they overlap
        return prepared.mosaic()
    whole = prepared.map(lambda image: image.updateMask(image.mask().reduce(ee.Reducer.min())))
    return whole.mosaic()


def _stored(pixels: ee.Image, transport: Transport) -> ee.Image:
    """Convert to the type in transit, with nodata as `SENTINEL`, also outside of every footprint."""
    if transport == "uint16":
        return pixels.max(0).min(SENTINEL["uint16"] - 1).round().toUint16().unmask(SENTINEL["uint16"], False)
    return pixels.toFloat().unmask(SENTINEL["float"], False)


@dataclass(frozen=True)
class _SunFactors:
    """Convert radiance to reflectance with one sun per scene: pi L / (F0 cos of the solar zenith angle)."""

    ids: ee.List
    factors: ee.List
    """pi / cos, scene by scene."""
    flux: ee.Image

    def reflectance(self, radiance: ee.Image, image: ee.Image) -> ee.Image:
        factor = ee.Number(self.factors.get(self.ids.indexOf(image.get("system:index"))))
        scaled = radiance.multiply(ee.Image.constant(factor)).divide(self.flux)
        return scaled.max(0).min(HIGHEST_OLCI_REFLECTANCE)


def _sun_factors(recipe: Recipe, scenes: Sequence[ArchivedScene]) -> _SunFactors:
    west, south, east, north = bounds_deg(recipe.geobox)
    lon, lat = (west + east) / 2, (south + north) / 2
    factors = [math.pi / max(LOWEST_COS_SUN, cos_sun(lon, lat, scene.time)) for scene in scenes]
    flux = [OLCI_SOLAR_FLUX[int(band[2:4]) - 1] for band in recipe.sensor.bands]
    return _SunFactors(ee.List([scene.id for scene in scenes]), ee.List(factors), ee.Image.constant(flux))


def cos_sun(lon: float, lat: float, time: datetime) -> float:
    """Cosine of the solar zenith angle, good to about half a degree.

    Source: the low-precision formulas of the Astronomical Almanac (mean longitude, mean anomaly, sidereal time).
    """
    days = time.timestamp() / 86_400 - 10_957.5  # since 2000-01-01 12:00 UTC
    anomaly = math.radians(357.528 + 0.985_600_3 * days)
    longitude = math.radians(280.460 + 0.985_647_4 * days + 1.915 * math.sin(anomaly) + 0.020 * math.sin(2 * anomaly))
    tilt = math.radians(23.439)
    declination = math.asin(math.sin(tilt) * math.sin(longitude))
    ascension = math.atan2(math.cos(tilt) * math.sin(longitude), math.cos(longitude))
    hour = math.radians(280.460_618_37 + 360.985_647_366 * days + lon) - ascension
    phi = math.radians(lat)
    return math.sin(phi) * math.sin(declination) + math.cos(phi) * math.cos(declination) * math.cos(hour)
