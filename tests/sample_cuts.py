"""Parts of the bundled scene, as rasters of their own."""

from importlib.resources import files

import rasterio
from rasterio.windows import Window

SAMPLE = str(files("rs_embed") / "data/sample/s2_l2a_12band_10m.tif")


def cut(path, col, row, *, size=(96, 80), day=None, bands=None, plus=0):
    """A part of the sample scene, in a file of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(SAMPLE) as scene:
        window = Window(col, row, *size)
        indexes = bands or list(scene.indexes)
        profile = {"driver": "GTiff", "crs": scene.crs, "dtype": scene.dtypes[0], "count": len(indexes)}
        profile |= {"width": size[0], "height": size[1], "transform": scene.window_transform(window)}
        with rasterio.open(path, "w", **profile) as tile:
            tile.write(scene.read(indexes, window=window) + plus)
            tile.descriptions = [scene.descriptions[index - 1] for index in indexes]
            if day is not None:
                tile.update_tags(TIFFTAG_DATETIME=f"{day.replace('-', ':')} 10:10:31")
