"""A loopback STAC API with the files it lists, over the same synthetic world as `gee_server`, in a process of its own.

    with serving() as server:
        site = server.site("earth-search", baseline="05.09", applied=True)
        Stac(site.catalog)
        assert site.count("range") == 3

What a pixel must be is told by `gee_server`: `Scene.pixels(band, x, y)`. Each site has URLs of its own, as GDAL keeps
what it knows of a URL for the life of the process.
"""

from stac_server.client import Site, StacServer, serving
from stac_server.flavours import Quirks

__all__ = ["Quirks", "Site", "StacServer", "serving"]
