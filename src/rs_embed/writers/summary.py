"""Rows as CSV without vectors: what a spreadsheet or a look with `less` needs."""

import csv
from collections.abc import Sequence
from pathlib import Path

from rs_embed.writers.base import Row, RunHeader
from rs_embed.writers.footprint import center
from rs_embed.writers.table import middle_time, window_utc

COLUMNS = (
    "row",
    "id",
    "status",
    "stage",
    "error",
    "center_lon",
    "center_lat",
    "start_datetime",
    "end_datetime",
    "datetime",
    "model_id",
    "valid_fraction",
    "source_ids",
    "fingerprint",
)
_SCENES_APART = ";"


def write_summary(path: Path, rows: Sequence[Row], header: RunHeader) -> None:
    """Write one line a row, UTF-8, to exactly this path; line breaks within an error become " | "."""
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        table.writerows(_line(row, header) for row in rows)


def _line(row: Row, header: RunHeader) -> list[object]:
    lon, lat = center(row) or ("", "")
    first, last = ("", "") if row.window is None else (moment.isoformat() for moment in window_utc(row.window))
    error = " | ".join(line.strip() for line in (row.error or "").splitlines())
    known = [row.index, row.id, row.status, row.stage or "", error, lon, lat, first, last]
    if row.embedding is None:
        return [*known, "", header.model_id, "", "", ""]
    meta, middle = row.embedding.meta, middle_time(row.embedding)
    scenes = _SCENES_APART.join(scene for one in meta.inputs for scene in one.scene_ids)
    moment = "" if middle is None else middle.isoformat()
    return [*known, moment, header.model_id, meta.valid_fraction, scenes, meta.fingerprint]
