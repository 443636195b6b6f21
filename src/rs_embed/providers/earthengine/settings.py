"""The environment variables of the Earth Engine backend."""

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from rs_embed.core.settings import Knobs


class EarthEngineSettings(Knobs):
    """Settings of the Earth Engine backend."""

    prefix = checked = "RS_EMBED_GEE_"  # read on its own, without the variables of models

    project: Annotated[str | None, Field(description="Cloud project that requests are billed to")] = None
    host: Annotated[str, Field(description="highvolume, standard, or a URL")] = "highvolume"
    service_account: Annotated[Path | None, Field(description="key file (.json) of a service account")] = None
    concurrency: Annotated[int, Field(ge=1, le=1000, description="most requests at the same time")] = 20
    qps: Annotated[float | None, Field(gt=0, description="most requests started per second")] = None
    timeout_s: Annotated[float, Field(gt=0, le=3600, description="time limit of one request, seconds")] = 180.0
    total_s: Annotated[float, Field(gt=0, description="time after which a request is not tried again, seconds")] = 600.0
    provenance: Annotated[bool, Field(description="0: skip the list of scenes if pixels do not need it")] = True
    cloud_score: Annotated[float, Field(gt=0, le=1, description="lowest Cloud Score+ (cs_cdf) of a clear pixel")] = 0.6
    resampling: Annotated[
        Literal["auto", "nearest", "bilinear"], Field(description="resampling of coarser bands; auto: by sensor")
    ] = "auto"


def google_key_file() -> Path | None:
    """Return the key file that google-auth's variable names."""
    named = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
    return Path(named) if named else None
