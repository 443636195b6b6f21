"""The long job: a table of places to a folder of files.

`call` is the one call, `request` what it is asked for, `estimate` what it will cost, `status` a folder by itself: how
far it has come, and the same call once more. `rasters` makes a table of a folder of rasters. Names load on first use:
opening a run needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rs_embed.exports.call import ExportReport as ExportReport
    from rs_embed.exports.call import export_embeddings as export_embeddings
    from rs_embed.exports.estimate import ExportPlan as ExportPlan
    from rs_embed.exports.rasters import raster_places as raster_places
    from rs_embed.exports.status import ModelStatus as ModelStatus
    from rs_embed.exports.status import RunStatus as RunStatus
    from rs_embed.exports.status import retry_export as retry_export
    from rs_embed.exports.status import run_status as run_status
    from rs_embed.exports.status import stored_rows as stored_rows

_HOME = {
    **dict.fromkeys(("ExportReport", "export_embeddings"), "call"),
    "ExportPlan": "estimate",
    "raster_places": "rasters",
    **dict.fromkeys(("ModelStatus", "RunStatus", "retry_export", "run_status", "stored_rows"), "status"),
}


def __getattr__(name: str) -> object:
    """Load a name from its module on first use."""
    if name not in _HOME:
        raise AttributeError(f"module 'rs_embed.exports' has no attribute {name!r}")
    value: object = vars(import_module(f"rs_embed.exports.{_HOME[name]}"))[name]
    return value
