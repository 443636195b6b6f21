"""`python -m rs_embed.terratorch fit --config ...`: TerraTorch's own command line, with the backbones registered."""

from terratorch.__main__ import main

from rs_embed import terratorch as _registered  # noqa: F401

if __name__ == "__main__":
    main()
