"""`python -m rs_embed.terratorch fit --config ...`: TerraTorch's command line, with the backbones registered.

Python imports the package first, which loads TerraTorch and registers the backbones.
"""

from terratorch.__main__ import main

if __name__ == "__main__":
    main()
