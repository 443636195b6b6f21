"""What users of Earth Engine set in the environment."""

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from rs_embed.core.settings import Knobs


class EarthEngineSettings(Knobs):
    """Settings of the Earth Engine backend."""

    prefix = checked = "RS_EMBED_GEE_"  # built by itself, it knows no model's variables

    project: Annotated[str | None, Field(description="Cloud project that requests are counted on")] = None
    host: Annotated[str, Field(description="highvolume, standard, or a URL")] = "highvolume"
    service_account: Annotated[Path | None, Field(description="key file (.json) of a service account")] = None
    concurrency: Annotated[int, Field(ge=1, le=1000, description="requests at the same time, at most")] = 20
    qps: Annotated[float | None, Field(gt=0, description="requests started per second, at most")] = None
    timeout_s: Annotated[float, Field(gt=0, le=3600, description="seconds that one request may take")] = 180.0
    total_s: Annotated[float, Field(gt=0, description="seconds after which a request is not tried again")] = 600.0
    provenance: Annotated[bool, Field(description="0: skip the list of scenes where pixels need none")] = True
    cloud_score: Annotated[float, Field(gt=0, le=1, description="clear from this Cloud Score+ on (cs_cdf)")] = 0.6
    resampling: Annotated[
        Literal["auto", "nearest", "bilinear"], Field(description="of coarser bands; auto: as each sensor needs")
    ] = "auto"


def google_key_file() -> Path | None:
    """The key file that google-auth is pointed to."""
    named = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
    return Path(named) if named else None
