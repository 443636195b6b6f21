"""Exports need packages that the base install does not bring: they say which, and nothing else needs them."""

import subprocess
import sys

import pytest

GONE = """
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name in {gone!r} else find(name, *rest)
sys.modules.update(dict.fromkeys({gone!r}))
from pathlib import Path
from made_rows import HEADER, row
from rs_embed.errors import MissingDependency
from rs_embed.formats.table import write_table
from rs_embed.exports.results.run import read
row(grid=True).embedding.save(Path({folder!r}, "g.tif"))
try:
    {use}
except MissingDependency as error:
    print(error.fix)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("gone", "use"),
    [
        ("pyarrow", 'write_table(Path("t.parquet"), [row()], HEADER)'),
        ("pyarrow", 'read("t.parquet")'),
        ("zarr", 'row(grid=True).embedding.save("g.zarr")'),
    ],
)
def test_what_is_missing_is_named(tmp_path, gone, use):
    code = GONE.format(gone=[gone], use=use, folder=str(tmp_path))
    result = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, cwd=tmp_path,
                            env={"PYTHONPATH": ":".join(sys.path)}, check=True)  # fmt: skip
    assert result.stdout.strip() == "pip install 'eo-rs-embed[export]'"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["g.tif"]


@pytest.mark.slow
def test_opening_a_run_loads_neither_torch_nor_what_only_frames_need():
    heavy = {"torch", "geopandas", "zarr", "rasterio"}
    code = f"import sys, rs_embed.exports.results.run; print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                            env={"PYTHONPATH": ":".join(sys.path)})  # fmt: skip
    assert result.stdout.strip() == "[]"
