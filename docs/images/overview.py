"""Draw `overview.png`: the sample scene, its embedding, and where it looks like one place. Run it by hand."""

from pathlib import Path

import numpy as np
from matplotlib import colormaps
from PIL import Image, ImageOps

from rs_embed import OutputSpec, get_embedding, inspect_chip
from rs_embed.embedding.plot import Panel, pca_rgb, save_figure, side_by_side, true_colour

OUT = Path(__file__).with_name("overview.png")
MOTORWAY_TOKEN = (22, 6)
"""Row and column of the token grid."""

chip = inspect_chip("mosaiks_rcf", backend="sample").chips["s2_12"]
grid = get_embedding("mosaiks_rcf", output=OutputSpec.grid(), backend="sample")
tokens = grid.data - grid.data.mean(axis=(1, 2), keepdims=True)
tokens /= np.linalg.norm(tokens, axis=0)
row, col = MOTORWAY_TOKEN
similarity = np.einsum("dhw,d->hw", tokens, tokens[:, row, col])
likeness = colormaps["magma"](np.clip(similarity, 0, 1))[..., :3].astype(np.float32)
panels = [
    true_colour(chip),
    Panel("Token grid, 3 of 1024\ncomponents as colour", pca_rgb(grid.data), grid.geobox),
    Panel("Cosine to a motorway token, means taken\naway: black 0 or less, light 1", likeness, grid.geobox),
]
save_figure(side_by_side(panels, "Contains modified Copernicus Sentinel data 2017; BigEarthNet v2.0"), OUT)
with Image.open(OUT) as image:  # 32 steps a channel: half the size, and hardly an eye sees it
    ImageOps.posterize(image.convert("RGB"), bits=5).save(OUT, optimize=True)
