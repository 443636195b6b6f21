"""How an export is run this time."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from rs_embed.exports.engines import EngineName


class Running(BaseModel):
    """How an export is run this time; nothing of it changes a number."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: Annotated[EngineName, Field(description="this machine alone, or a cluster")] = "local"
    address: Annotated[
        str | None,
        Field(description="of the cluster: host:port, or auto for the one that runs here; left out, one is started"),
    ] = None
    progress: bool = True
    verify: Annotated[
        bool, Field(description="compare every byte of what is there, and make again what is damaged")
    ] = False
