"""Draw `overview.png`: the sample scene, Galileo's tokens, and where it looks like the river.

Run it by hand, with `RS_EMBED_GALILEO_CKPT` or a network.
"""

from pathlib import Path

from PIL import Image, ImageOps

from rs_embed import OutputSpec, get_embedding, inspect_chip
from rs_embed.cli.demo import ATTRIBUTION, RIVER, TRAINED
from rs_embed.embedding.plot import alike, principal_components, save_figure, side_by_side, true_colour

OUT = Path(__file__).with_name("overview.png")

chip = inspect_chip("mosaiks_rcf", backend="sample").chips["s2_12"]
grid = get_embedding(TRAINED, output=OutputSpec.grid(), backend="sample", patch_size=4)
panels = [true_colour(chip), principal_components(grid), alike(grid, *RIVER, "the river")]
save_figure(side_by_side(panels, f"{ATTRIBUTION}. Galileo: NASA Harvest, MIT."), OUT)
with Image.open(OUT) as image:  # 32 steps a channel: half the size, and hardly an eye sees it
    ImageOps.posterize(image.convert("RGB"), bits=5).save(OUT, optimize=True)
