"""What users of STAC set in the environment."""

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from rs_embed.core.settings import Knobs

_TOKEN_SERVICE = "https://planetarycomputer.microsoft.com/api/sas/v1/token"


class StacSettings(Knobs):
    """Settings of the STAC backend."""

    prefix = checked = "RS_EMBED_STAC_"

    catalog: Annotated[str, Field(description="earth-search, earth-search-c1 or planetary-computer")] = "earth-search"
    max_scenes: Annotated[int, Field(ge=1, description="clear views after which a median or mean reads no more")] = 12
    offset: Annotated[
        float | None, Field(ge=-10_000, le=10_000, description="Sentinel-2 DN added, whatever is told")
    ] = None
    concurrency: Annotated[int, Field(ge=1, le=256, description="files read at the same time, at most")] = 24
    timeout_s: Annotated[float, Field(gt=0, le=3600, description="seconds that one request may take")] = 30.0
    total_s: Annotated[float, Field(gt=0, description="seconds after which a request is not tried again")] = 300.0
    max_items: Annotated[int, Field(ge=1, le=100_000, description="items of one window, at most")] = 2000
    cache_mb: Annotated[int, Field(ge=16, description="memory for what was read, megabytes, per process")] = 256
    on_missing: Annotated[
        Literal["skip", "raise"],
        Field(description="a scene without a readable file: left out, with a note, or an error"),
    ] = "skip"


def planetary_computer() -> tuple[str, str | None]:
    """Address of the Planetary Computer's token service, and the user's key: as its own package reads them."""
    found: dict[str, str] = {}
    try:
        lines = Path("~/.planetarycomputer/settings.env").expanduser().read_text("utf-8").splitlines()
    except (OSError, RuntimeError, UnicodeDecodeError):  # no such file, or no home
        lines = []
    for line in lines:
        name, _, value = line.strip().removeprefix("export ").partition("=")
        found[name.strip()] = value.strip().strip("\"'")
    service, key = (os.environ.get(name) or found.get(name) for name in ("PC_SDK_SAS_URL", "PC_SDK_SUBSCRIPTION_KEY"))
    return (service or _TOKEN_SERVICE).rstrip("/"), key or None
