"""A loopback Earth Engine that evaluates what it is asked, over a synthetic world.

    from gee_server import EarthEngineServer, connected, default_world

    with EarthEngineServer(default_world()) as server, connected(server):
        ...

What a pixel must be: `pixel(collection, band, lon, lat, day)` for clear ground, `Scene.pixels(band, x, y)` for one
scene with its clouds and edges, `World.scenes` for what there is.
"""

from gee_server import faults
from gee_server.client import connected, no_way_out
from gee_server.faults import Fault
from gee_server.fields import pixel
from gee_server.places import PLACES, default_world
from gee_server.scene import Scene
from gee_server.server import EarthEngineServer, Request
from gee_server.world import World

__all__ = [
    "PLACES", "EarthEngineServer", "Fault", "Request", "Scene", "World", "connected", "default_world", "faults",
    "no_way_out", "pixel",
]  # fmt: skip
