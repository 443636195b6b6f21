"""The environment variables of the backend for published embeddings."""

from typing import Annotated

from pydantic import Field

from rs_embed.core.settings import Knobs

_URL = r"^https?://[^\s?#]+$"


class PublishedSettings(Knobs):
    """Settings of the backend for published embeddings."""

    prefix = checked = "RS_EMBED_PUBLISHED_"

    alphaearth: Annotated[str, Field(pattern=_URL, description="address of AlphaEarth's mosaic, or of a copy")] = (
        "https://data.source.coop/tge-labs/aef-mosaic"
    )
    tessera: Annotated[str, Field(pattern=_URL, description="address of TESSERA v1.1's store, or of a copy")] = (
        "https://data.source.coop/tessera/tessera/zarr/v1.1-dclimate"
    )
    concurrency: Annotated[int, Field(ge=1, le=256, description="most requests at the same time")] = 16
    timeout_s: Annotated[float, Field(gt=0, le=3600, description="time limit of one request, seconds")] = 60.0
    total_s: Annotated[float, Field(gt=0, description="time after which a request is not tried again, seconds")] = 300.0
    cache_mb: Annotated[int, Field(ge=16, description="memory for chunks read last, MB per product")] = 512
