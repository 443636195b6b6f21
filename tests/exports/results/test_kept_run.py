"""A run that an earlier version wrote opens, is whole, and goes on where it was."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from rs_embed import export_embeddings, open_run, verify_run
from rs_embed.exports.status import retry_export

KEPT = Path(__file__).parents[2] / "data" / "run_kept"
PLACES = KEPT.with_name("run_kept_places.csv")


@pytest.fixture
def run(tmp_path):
    return Path(shutil.copytree(KEPT, tmp_path / "run"))


def vectors(run: Path) -> dict[str, np.ndarray]:
    frame = open_run(run).to_frame()
    return {row.id: np.asarray(row.embedding) for row in frame.itertuples() if row.status == "ok"}


def test_it_opens_and_every_file_is_whole(run):
    assert verify_run(run).ok
    assert {name: vector.shape for name, vector in vectors(run).items()} == dict.fromkeys("abce", (1024,))


@pytest.mark.slow
@pytest.mark.parametrize("how", ["call", "retry"])
def test_it_goes_on_where_it_was_and_leaves_what_was_done(run, how):
    before, units = vectors(run), run / "mosaiks_rcf" / "units"
    (units / "u000002.parquet").unlink()
    done = (units / "u000000.parquet").stat().st_mtime_ns
    if how == "call":
        report = export_embeddings(
            "mosaiks_rcf", PLACES, run, buffer_m=320, backend="sample", unit_rows=2, progress=False, device="cpu"
        )
    else:
        report = retry_export(run, progress=False)
    assert "4 embeddings" in str(report) and "1 failed" in str(report)
    assert (units / "u000000.parquet").stat().st_mtime_ns == done
    for name, vector in vectors(run).items():
        np.testing.assert_allclose(vector, before[name], rtol=1e-5, atol=1e-6)
