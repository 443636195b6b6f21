"""The long job: a table of places to a folder of files.

`exporting` is the one call, `request` what it is asked for, `estimate` what it will cost, `again` a folder by itself:
how far it has come, and the same call once more. `rasters` makes a table of a folder of rasters.
"""

from rs_embed.exports.call import ExportReport, export_embeddings
from rs_embed.exports.estimate import ExportPlan
from rs_embed.exports.rasters import raster_places
from rs_embed.exports.status import ModelStatus, RunStatus, retry_export, run_status, stored_rows

__all__ = [
    "ExportPlan",
    "ExportReport",
    "ModelStatus",
    "RunStatus",
    "export_embeddings",
    "raster_places",
    "retry_export",
    "run_status",
    "stored_rows",
]
