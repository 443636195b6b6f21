"""The environment variables of the STAC backend."""

import os
from configparser import ConfigParser
from configparser import Error as ConfigParserError
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from rs_embed.core.settings import Knobs

_TOKEN_SERVICE = "https://planetarycomputer.microsoft.com/api/sas/v1/token"


class StacSettings(Knobs):
    """Settings of the STAC backend."""

    prefix = checked = "RS_EMBED_STAC_"

    catalog: Annotated[
        str, Field(description="earth-search, earth-search-c1, planetary-computer or copernicus-dataspace")
    ] = "earth-search"
    max_scenes: Annotated[int, Field(ge=1, description="clear views after which a median or mean stops reading")] = 12
    offset: Annotated[
        float | None, Field(ge=-10_000, le=10_000, description="added to Sentinel-2 DN, whatever the catalogue states")
    ] = None
    concurrency: Annotated[int, Field(ge=1, le=256, description="most files read at the same time")] = 24
    timeout_s: Annotated[float, Field(gt=0, le=3600, description="time limit of one request, seconds")] = 30.0
    total_s: Annotated[float, Field(gt=0, description="time after which a request is not tried again, seconds")] = 300.0
    max_items: Annotated[int, Field(ge=1, le=100_000, description="most items in one window")] = 2000
    cache_mb: Annotated[int, Field(ge=16, description="memory for file contents, MB per process")] = 256
    on_missing: Annotated[
        Literal["skip", "raise"],
        Field(description="a scene without a readable file: skip it with a note, or raise an error"),
    ] = "skip"


def planetary_computer() -> tuple[str, str | None]:
    """Address of the Planetary Computer's token service, and the user's key, read as its own package reads them."""
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


def aws_keys(profile: str | None = None) -> tuple[str, str, str] | None:
    """Key, secret and session token of an S3 service, read as Amazon's tools read them; `None` if there are none."""
    key, secret = (os.environ.get(name, "") for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"))
    if profile is None and key and secret:
        return key, secret, os.environ.get("AWS_SESSION_TOKEN", "")
    file, found = ConfigParser(interpolation=None), profile or os.environ.get("AWS_PROFILE") or "default"
    try:
        file.read(Path(os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials").expanduser(), "utf-8")
    except (ConfigParserError, OSError, RuntimeError, UnicodeDecodeError):  # no such file, no home, or something else
        return None
    of_profile = file[found] if file.has_section(found) else {}
    key, secret = (of_profile.get(name, "") for name in ("aws_access_key_id", "aws_secret_access_key"))
    return (key, secret, of_profile.get("aws_session_token", "")) if key and secret else None
