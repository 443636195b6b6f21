"""Draw `windows.png`: tokens of a network that sees windows, as they are and without their place in the window.

Run it by hand, with `RS_EMBED_GALILEO_CKPT` or a network.
"""

from pathlib import Path

from PIL import Image, ImageOps

from rs_embed import OutputSpec, get_embedding
from rs_embed.cli.demo import ATTRIBUTION, TRAINED
from rs_embed.embedding.plot import principal_components, save_figure, side_by_side

OUT = Path(__file__).with_name("windows.png")

raw, without = (
    get_embedding(TRAINED, output=output, backend="sample", patch_size=4, window_patches=12)
    for output in (OutputSpec.grid(), OutputSpec.grid(debias="position"))
)
panels = [principal_components(raw, raw=True), principal_components(without)]
save_figure(side_by_side(panels, f"{ATTRIBUTION}. Galileo: NASA Harvest, MIT."), OUT)
with Image.open(OUT) as image:
    ImageOps.posterize(image.convert("RGB"), bits=5).save(OUT, optimize=True)
