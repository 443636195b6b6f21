"""The long job: a table of places to a folder of files.

`exporting` is the one call, `request` what it is asked for, `estimate` what it will cost, `again` a folder by itself:
how far it has come, and the same call once more.
"""

from rs_embed.exports.again import ModelStatus, RunStatus, retry_export, run_status
from rs_embed.exports.estimate import ExportPlan
from rs_embed.exports.exporting import ExportReport, export_embeddings

__all__ = [
    "ExportPlan",
    "ExportReport",
    "ModelStatus",
    "RunStatus",
    "export_embeddings",
    "retry_export",
    "run_status",
]
