"""The provider for models that need no imagery."""

from odc.geo.geobox import GeoBox

from rs_embed.core.chip import Chip
from rs_embed.core.specs import SensorSpec
from rs_embed.errors import SensorNotOffered
from rs_embed.providers.base import Query


class Nobody:
    """A provider without imagery: needs no account, no file and no network."""

    name = "none"

    def identity(self) -> str:
        """Return a constant."""
        return "none"

    def require(self, modality: str, sensor: SensorSpec) -> None:
        """Raise `SensorNotOffered`: it has no imagery."""
        raise SensorNotOffered(f"Expected imagery for {modality}, got a backend without any.", fix='use backend="auto"')

    def native_geobox(self, query: Query) -> GeoBox | None:
        """Return `None`: there is no grid."""
        return None

    def fetch(self, query: Query) -> Chip:
        """Raise `SensorNotOffered`: there is nothing to fetch."""
        raise SensorNotOffered(
            f"Expected imagery for {query.modality}, got a backend without any.", fix="name another backend"
        )
