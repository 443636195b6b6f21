"""Providers that fail, or give large chips. Processes that only fetch import this file, so it loads nothing heavy."""

import numpy as np
from canary import LINK

from rs_embed.core.bands import bands_of
from rs_embed.core.chip import Chip, Source
from rs_embed.errors import NoImagery
from rs_embed.testing import FieldProvider


class Picky(FieldProvider):
    """Has nothing for some places, and says so in an error of the library."""

    def fetch(self, query):
        x, _ = query.geobox.affine @ (0, 0)
        if int(x) % 7 == 0:
            raise NoImagery("Expected scenes, got none.", fix="widen the window", where=f"{x:.0f}")
        return super().fetch(query)


class Careless(Picky):
    """Fails also with a signed link in its words."""

    def fetch(self, query):
        x, _ = query.geobox.affine @ (0, 0)
        if int(x) % 7 == 1:
            raise OSError(f"cannot open {LINK}")
        return super().fetch(query)


def every_other_at_first(key, times):
    return times == 1 and int(key.split()[1]) // 100 % 2 == 0


class Bulk(FieldProvider):
    """Large chips, made in no time."""

    def fetch(self, query):
        bands = bands_of(query.sensor.collection, query.sensor.bands)
        values = np.ones((1, len(bands), *query.geobox.shape), np.float32)
        return Chip(values, bands, query.geobox, (None,), Source(self.name, query.sensor.collection))
