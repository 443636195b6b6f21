"""The backend of who names none: Earth Engine where it is set up, else STAC where that is installed."""

import logging
from dataclasses import replace
from importlib.util import find_spec

from odc.geo.geobox import GeoBox

from rs_embed.chip import Chip
from rs_embed.errors import NotConfigured
from rs_embed.providers.base import Provider, Query
from rs_embed.providers.earthengine import EarthEngine
from rs_embed.specs import SensorSpec

LOG = logging.getLogger("rs_embed.providers")


class Chosen:
    """A provider that was chosen for the user, and says so with every chip."""

    def __init__(self, provider: Provider, why: str) -> None:
        self._provider, self._why = provider, why
        self.name = provider.name

    def identity(self) -> str:
        """That of the provider: why it was chosen does not change a pixel."""
        return self._provider.identity()

    def require(self, modality: str, sensor: SensorSpec) -> None:
        """See `Provider`."""
        self._provider.require(modality, sensor)

    def native_geobox(self, query: Query) -> GeoBox | None:
        """See `Provider`."""
        return self._provider.native_geobox(query)

    def fetch(self, query: Query) -> Chip:
        """See `Provider`."""
        chip = self._provider.fetch(query)
        return replace(chip, source=replace(chip.source, notes=(self._why, *chip.source.notes)))


def chosen(choices: str) -> Provider:
    """Earth Engine if there are credentials and a project, else STAC; asks nothing of either.

    Args:
        choices: For the message: what can be named instead.

    Raises:
        NotConfigured: Neither can be used.
        KnobError: A setting of theirs has a bad value.
    """
    earth_engine = EarthEngine()
    try:
        account = earth_engine.account()
    except NotConfigured as error:
        if find_spec("pystac_client") is None:
            raise NotConfigured(
                "Wanted a backend to fetch imagery from, found none chosen and none set up.",
                earth_engine=error.headline,
                stac="the extra is not installed: pip install 'eo-rs-embed[stac]'",
                fix=choices,
            ) from None
        from rs_embed.providers.stac import Stac

        stac = Stac()
        why = f"backend='auto' took STAC ({stac.described()}): Earth Engine is not set up."
        LOG.info(why)
        return Chosen(stac, why)
    why = f"backend='auto' took Earth Engine ({account})."
    LOG.info(why)
    return Chosen(earth_engine, why)
