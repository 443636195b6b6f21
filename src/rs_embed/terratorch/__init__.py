"""THOR and AnySat as TerraTorch backbones. Importing this package registers them.

`BACKBONE_REGISTRY.build("thor_v1_base", ...)` then returns a trainable encoder of `rs_embed.encoders`. The options are
those of `build_thor` and `build_anysat`. On the command line, `python -m rs_embed.terratorch` runs `terratorch` with
the backbones registered. Alternatively, pass `--custom_modules_path` a folder whose `__init__.py` imports this package.
"""

from rs_embed.terratorch.anysat import AnySatBackbone, build_anysat
from rs_embed.terratorch.registry import register
from rs_embed.terratorch.thor import ThorBackbone, build_thor

__all__ = ["AnySatBackbone", "ThorBackbone", "build_anysat", "build_thor"]

register()
