"""Draw `region.png`: a map of a polygon, made block by block.

Run it by hand, with `RS_EMBED_GALILEO_CKPT` or a network.
"""

import tempfile
from pathlib import Path

from PIL import Image

from rs_embed import Region, embed_region
from rs_embed.cli.demo import TRAINED

OUT = Path(__file__).with_name("region.png")
RING = [(12.925, 47.762), (12.944, 47.759), (12.949, 47.770), (12.940, 47.782), (12.927, 47.778), (12.925, 47.762)]

with tempfile.TemporaryDirectory() as folder:
    embed_region(TRAINED, Region([RING]), None, folder, backend="sample", patch_size=2).open().plot(OUT)
with Image.open(OUT) as image:
    image.convert("RGB").save(OUT, optimize=True)
