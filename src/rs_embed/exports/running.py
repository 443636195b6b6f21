"""How to run an export this time; none of it changes a number."""

from dataclasses import dataclass

from rs_embed.exports.engines import EngineName
from rs_embed.exports.sharding import ALL, Shard


@dataclass(frozen=True)
class Running:
    """See `export_embeddings`."""

    engine: EngineName = "local"
    address: str | None = None
    progress: bool = True
    verify: bool = False
    shard: Shard = ALL
