"""One generated modality: a georeferenced raster in its own unit, to look at, to keep, to open in QGIS."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from rs_embed.core.atomic import replacing
from rs_embed.core.bands import Band, Unit
from rs_embed.core.geo import with_coordinates
from rs_embed.core.resources import require_room
from rs_embed.embedders.cards.terramind_tokens import LULC_CLASSES
from rs_embed.errors import InputError, StorageError
from rs_embed.formats.geotiff import COG_BLOCK_PX
from rs_embed.formats.parts import META_TAG

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True)
class RoundTripError:
    """How far pixels are from what they were before they became tokens."""

    bands: tuple[str, ...]
    unit: Unit
    rmse: tuple[float, ...]
    """Per band, in the unit. Of classes: the share of pixels that changed."""
    bias: tuple[float, ...]
    """Mean of what came out less what went in. Of classes: 0."""
    valid_fraction: float
    """Share of the pixels that could be compared."""

    def __str__(self) -> str:
        """One line a band."""
        if self.unit == Unit.CLASS:
            return f"{self.bands[0]}: {self.rmse[0]:.1%} of the pixels changed their class"
        rows = zip(self.bands, self.rmse, self.bias, strict=True)
        return "\n".join(f"{band}: RMSE {rmse:.4g} {self.unit}, bias {bias:+.4g}" for band, rmse, bias in rows)


@dataclass(frozen=True, eq=False)
class GeneratedRaster:
    """Pixels that a model made up."""

    modality: str
    values: NDArray[np.float32] | NDArray[np.uint8]
    """`[C, H, W]`, row 0 is the north: float32 in the unit of the bands, NaN is nodata; or uint8 class codes, 0 is
    nodata."""
    bands: tuple[Band, ...]
    geobox: GeoBox | None
    """`None` for arrays without a place."""
    meta_json: str
    """Where it comes from; every file keeps it."""
    note: str | None = None
    """A warning that must travel with the pixels."""
    error: RoundTripError | None = None
    """Of pixels that were tokens in between: how far they are from those that went in, where these are known."""

    @property
    def unit(self) -> Unit:
        """Of the values."""
        return self.bands[0].unit

    @property
    def classes(self) -> Mapping[int, str] | None:
        """Code -> name, of a map of classes."""
        return dict(enumerate(LULC_CLASSES)) if self.unit == Unit.CLASS else None

    def __repr__(self) -> str:
        place = "no place" if self.geobox is None else str(self.geobox.crs)
        note = f", {self.note}" if self.note else ""
        return f"GeneratedRaster({self.modality}, {self.values.shape} {self.unit}, {place}{note})"

    def to_xarray(self) -> "xr.DataArray":
        """Dimensions `band, y, x` with CRS, transform and pixel-centre coordinates where the place is known."""
        import xarray as xr  # slow to import, and only people need it

        attrs: dict[str, object] = {"units": str(self.unit), "long_name": f"{self.modality}, generated"}
        attrs |= {META_TAG: self.meta_json}
        if self.note:
            attrs["note"] = self.note
        if self.classes:
            attrs |= {"flag_values": list(self.classes), "flag_meanings": " ".join(_words(self.classes))}
        coords = {"band": [band.name for band in self.bands]}
        array = xr.DataArray(self.values, dims=("band", "y", "x"), coords=coords, name=self.modality, attrs=attrs)
        return array if self.geobox is None else with_coordinates(array, self.geobox)

    def to_geotiff(self, path: str | Path) -> Path:
        """Write a Cloud Optimized GeoTIFF with names of bands, units and metadata.

        Raises:
            StorageError: No place, another suffix, or a path that cannot be written.
        """
        path = Path(path)
        if self.geobox is None or path.suffix != ".tif" or not path.parent.is_dir():
            found = "no place" if self.geobox is None else f"{str(path)!r}"
            raise StorageError(
                f"Expected a place and a .tif in a folder that exists, got {found}.",
                fix="generate from imagery that has a place, and make the folder first",
            )
        try:
            require_room(path.parent, 2 * self.values.nbytes)
            with replacing(path, durable=False) as part:
                self._write(part, self.geobox)
        except OSError as error:
            raise StorageError(
                f"Expected to write {str(path)!r}, got: {error}.", fix="check the folder, and that the disk has room"
            ) from error
        return path

    def _write(self, path: Path, geobox: GeoBox) -> None:
        import rasterio

        channels, height, width = self.values.shape
        whole = self.unit == Unit.CLASS
        with rasterio.open(
            path,
            "w",
            driver="COG",
            dtype=str(self.values.dtype),
            count=channels,
            height=height,
            width=width,
            crs=str(geobox.crs),
            transform=geobox.affine,
            nodata=0 if whole else math.nan,
            compress="ZSTD",
            predictor="YES",
            blocksize=min(COG_BLOCK_PX, 16 * math.ceil(max(height, width) / 16)),
            overview_resampling="mode" if whole else "average",
        ) as file:
            file.write(self.values)
            file.descriptions = [band.name for band in self.bands]
            file.units = [str(band.unit) for band in self.bands]
            file.update_tags(**{META_TAG: self.meta_json}, **_tags(self))


def require_classes(values: NDArray[np.float32]) -> None:
    """Refuse what are no codes of land cover; NaN is nodata.

    Raises:
        InputError: Other numbers.
    """
    valid = values[np.isfinite(values)]
    if ((valid != np.rint(valid)) | (valid < 0) | (valid >= len(LULC_CLASSES))).any():
        raise InputError(
            f"Expected class codes 0 to {len(LULC_CLASSES) - 1} for LULC, got {valid.min():g} to {valid.max():g}.",
            codes=", ".join(f"{code} {name}" for code, name in enumerate(LULC_CLASSES)),
            fix="translate your classes into these",
        )


def _words(classes: Mapping[int, str]) -> list[str]:
    return [name.replace(" ", "_") for name in classes.values()]


def _tags(raster: GeneratedRaster) -> dict[str, str]:
    tags = {"NOTE": raster.note} if raster.note else {}
    return tags | {f"CLASS_{code}": name for code, name in (raster.classes or {}).items()}
