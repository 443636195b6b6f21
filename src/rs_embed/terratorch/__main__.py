"""`python -m rs_embed.terratorch fit --config ...`: TerraTorch's own command line, with the backbones registered.

The package itself, which Python imports first, has loaded TerraTorch and registered them.
"""

from terratorch.__main__ import main

if __name__ == "__main__":
    main()
