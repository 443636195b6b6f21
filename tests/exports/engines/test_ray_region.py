"""A map of a region, made by a cluster."""

import numpy as np
import pytest
import xarray as xr
from export_worker import asked, export

from rs_embed import verify_run

pytestmark = pytest.mark.slow

SIDE_M = 2400


def test_a_cluster_makes_the_map_that_this_process_makes(nodes, tmp_path):
    for name, options in (("here", {}), ("there", {"engine": "ray"})):
        export(tmp_path / name, tmp_path / f"{name}.log", map_of_m=SIDE_M, **options)
    here, there = (
        xr.open_zarr(next((tmp_path / name).glob("*/map.zarr")), consolidated=False, chunks=None)
        for name in ("here", "there")
    )
    np.testing.assert_array_equal(there.embedding.values, here.embedding.values)
    assert np.isfinite(here.embedding.values).any()
    assert sorted(asked(tmp_path / "here.log")) == sorted(asked(tmp_path / "there.log"))
    assert verify_run(tmp_path / "there", progress=False).ok
