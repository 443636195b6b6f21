"""Draw `labels.png`: 60 labels on the sample scene, the map that a head makes of them, and how sure it is.

It runs the cells of notebook 07 up to the map. Run it by hand, with `RS_EMBED_GALILEO_CKPT` or a network.
"""

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import rasterio
from matplotlib.patches import Patch
from PIL import Image, ImageOps

HERE = Path(__file__).resolve().parent
OUT = HERE / "labels.png"

mpl.use("agg")
cells = json.loads((HERE.parents[1] / "notebooks" / "07_from_labels_to_a_map.ipynb").read_text("utf-8"))["cells"]
known: dict[str, Any] = {}
for cell in cells:
    code = "".join(line for line in cell["source"] if not line.startswith("%"))
    if cell["cell_type"] == "code":
        exec(code, known)  # noqa: S102  (a notebook of ours)
    if "head.map(" in code:
        break
plt.close("all")

cover, here, colours = known["cover"], known["here"], known["COLOURS"]
box = cover.geobox.boundingbox
extent = (box.left, box.right, box.bottom, box.top)
figure, (first, second, third) = plt.subplots(1, 3, figsize=(10, 5.2), layout="constrained")
(known["scene"].sel(band=["B4", "B3", "B2"]) / 1800).clip(0, 1).plot.imshow(rgb="band", ax=first)
first.scatter(here.geometry.x, here.geometry.y, c=here["cover"].map(colours), edgecolors="white", s=35)
codes = cover.to_xarray().where(lambda code: code > 0)
palette = mpl.colors.ListedColormap([colours[name] for name in cover.classes])
second.imshow(codes, cmap=palette, extent=extent, vmin=0.5, vmax=len(cover.classes) + 0.5, interpolation="none")
with rasterio.open("probabilities.tif") as file:
    sure = third.imshow(file.read().max(axis=0), cmap="cividis", extent=extent, vmin=0.3, vmax=1)
figure.colorbar(sure, ax=third, shrink=0.6)
titles = ("60 points labelled by eye", "map of classes", "probability of the class")
for axis, title in zip((first, second, third), titles, strict=True):
    axis.set(title=title, xlabel="", ylabel="", aspect="equal", xticks=[], yticks=[])
    axis.set(xlim=first.get_xlim(), ylim=first.get_ylim())
legend = [Patch(color=colours[name], label=name) for name in cover.classes]
figure.legend(handles=legend, loc="outside lower center", ncols=5, frameon=False)
figure.savefig(OUT, dpi=110)
with Image.open(OUT) as image:
    ImageOps.posterize(image.convert("RGB"), bits=6).save(OUT, optimize=True)
