"""Who is asked for imagery where no model needs any."""

from odc.geo.geobox import GeoBox

from rs_embed.core.chip import Chip
from rs_embed.core.specs import SensorSpec
from rs_embed.errors import SensorNotOffered
from rs_embed.providers.base import Query


class Nobody:
    """A provider without imagery: needs no account, no file and no network."""

    name = "none"

    def identity(self) -> str:
        """Always the same."""
        return "none"

    def require(self, modality: str, sensor: SensorSpec) -> None:
        """It has none of it."""
        raise SensorNotOffered(f"Expected imagery for {modality}, got a backend without any.", fix='backend="auto"')

    def native_geobox(self, query: Query) -> GeoBox | None:
        """It holds nothing."""
        return None

    def fetch(self, query: Query) -> Chip:
        """There is nothing to fetch."""
        raise SensorNotOffered(f"Expected imagery for {query.modality}, got a backend without any.", fix="name another")
