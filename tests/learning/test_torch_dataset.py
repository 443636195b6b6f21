"""Runs and maps as torch datasets: every row and token once, with its target, in any kind of worker."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from made_map import CELL_M, LEFT, TOP, MadeMap
from shapely.geometry import box
from torch.utils.data import DataLoader

from rs_embed import OutputSpec, RegionDataset, RunDataset, export_embeddings, open_region, open_run
from rs_embed.errors import ChoiceWarning, SpecError

pytestmark = pytest.mark.slow

TABLE = pd.DataFrame(
    {
        "id": [f"plot {row}" for row in range(6)],
        "lon": [12.935, 12.938, 0.0, 12.941, 12.944, 12.947],
        "lat": 47.77,
        "crop": ["rye", "oat", "oat", None, "rye", "maize"],
        "tonnes": [1.5, 2.0, 3.0, 4.0, 5.0, 6.5],
        "wet": [0, 1, 0, 1, 1, 0],
        "steep": [1, 1, 0, 0, 1, 0],
    }
)
"""Row 2 lies outside of the sample and fails; row 3 has no crop."""
PATIENCE_S = 60


def exported(folder, output):
    options = {"backend": "sample", "buffer_m": 160, "progress": False}
    export_embeddings("mosaiks_rcf", TABLE, folder, output=output, **options)
    return folder


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    return exported(tmp_path_factory.mktemp("vectors"), OutputSpec.pooled())


@pytest.fixture(scope="module")
def grids(tmp_path_factory):
    return exported(tmp_path_factory.mktemp("grids"), OutputSpec.grid())


def crops(run, **options):
    with pytest.warns(ChoiceWarning, match="1 of 5"):
        return RunDataset(run, "crop", **options)


def test_a_run_gives_each_row_that_did_not_fail_with_its_label(vectors):
    run = open_run(vectors)
    matrix = run.matrix()
    dataset = crops(run)
    assert (dataset.ids, dataset.classes) == (("plot 0", "plot 1", "plot 4", "plot 5"), ("maize", "oat", "rye"))
    assert dataset.rows.tolist() == [0, 1, 4, 5]
    for number, row in enumerate(dataset.rows):
        vector, target = dataset[number]
        np.testing.assert_array_equal(vector, matrix[row])
        assert dataset.classes[target] == TABLE["crop"][row]
    numbers = RunDataset(vectors, "tonnes")
    assert [float(target) for _, target in numbers] == [1.5, 2.0, 4.0, 5.0, 6.5]
    assert numbers[0][1].dtype == torch.float32
    several = RunDataset(run, ["wet", "steep"])
    assert torch.equal(several[1][1], torch.tensor([1.0, 1.0])) and several.classes == ("wet", "steep")
    assert len(RunDataset(run)) == 5 and torch.equal(RunDataset(run)[0], torch.from_numpy(matrix[0]))


def test_a_run_of_grids_is_read_grid_by_grid(grids):
    dataset, arrays = crops(grids), open_run(grids).grids()
    assert len(dataset) == 4
    grid, target = dataset[2]
    np.testing.assert_array_equal(grid, arrays["plot 4"])
    assert grid.shape == (1024, 4, 4) and dataset.classes[target] == "rye"


def region_of(tmp_path, **options):
    return open_region(MadeMap(**options).write(tmp_path))


@pytest.mark.parametrize("size", [None, 5])
def test_the_windows_of_a_map_hold_every_token_once(tmp_path, size):
    made = MadeMap(missing=((0, 1, 1),), nodata=((3, 3),))
    region = open_region(made.write(tmp_path))
    dataset = RegionDataset(region, size)
    side = size or made.block
    assert dataset.size == side
    found = np.full_like(made.expected(), np.nan)
    seen = np.zeros((2, made.rows, made.columns), int)
    for item in dataset:
        height, width = min(side, made.rows - item["row"]), min(side, made.columns - item["col"])
        at = (item["time"], ..., slice(item["row"], item["row"] + height), slice(item["col"], item["col"] + width))
        assert item["tokens"].shape == (4, side, side) and item["tokens"].dtype == torch.float32
        assert torch.isnan(item["tokens"][:, height:]).all() and torch.isnan(item["tokens"][:, :, width:]).all()
        found[at] = item["tokens"][:, :height, :width]
        seen[at] += 1
        np.testing.assert_array_equal(item["valid"][:height, :width] > 0, np.isfinite(found[at][0]))
    np.testing.assert_array_equal(found, made.expected())
    assert seen.max() == 1
    blocks = -(-made.rows // made.block) * -(-made.columns // made.block)
    assert size or len(dataset) == 2 * blocks - 1


def test_windows_overlap_if_asked_and_those_outside_of_the_region_are_left_out(tmp_path):
    corner = box(LEFT, TOP - 6 * CELL_M, LEFT + 6 * CELL_M, TOP)
    region = region_of(tmp_path, outline=corner)
    dataset = RegionDataset(region, 4, stride=2, time="2021")
    assert {window[1:] for window in dataset.windows} >= {(0, 0), (0, 2), (2, 4), (4, 4)}
    assert all(row <= 6 and col <= 6 for _, row, col in dataset.windows)
    assert {window[0] for window in dataset.windows} == {0}


def test_targets_are_cut_with_the_tokens(tmp_path):
    region = region_of(tmp_path)
    classes = (np.arange(22 * 29) % 251).astype(np.uint8).reshape(22, 29)  # as rasterio draws them
    item = RegionDataset(region, target=classes)[-1 + 12]
    row, col = item["row"], item["col"]
    assert (row, col) == (16, 24)
    assert item["target"].dtype == torch.int64
    np.testing.assert_array_equal(item["target"][:6, :5], classes[16:, 24:])
    assert (item["target"][6:] == -100).all() and (item["target"][:, 5:] == -100).all()
    assert torch.isnan(RegionDataset(region, target=classes / 2)[11]["target"][6:]).all()
    coarse = RegionDataset(region, 4, level=1)
    assert coarse[0]["tokens"].shape == (4, 4, 4)
    with pytest.raises(SpecError, match="on the grid of the map"):
        RegionDataset(region, target=classes[1:])


def require_same(dataset, how):
    options = {"num_workers": 1, "multiprocessing_context": how, "timeout": PATIENCE_S}
    for one, two in zip(DataLoader(dataset, 4, **options), DataLoader(dataset, 4), strict=True):
        assert all(torch.equal(one[name].nan_to_num(7), two[name].nan_to_num(7)) for name in two)


@pytest.mark.alone
def test_forked_workers_give_the_same(tmp_path):
    require_same(RegionDataset(region_of(tmp_path)), "fork")


def test_spawned_workers_give_the_same(tmp_path):
    require_same(RegionDataset(region_of(tmp_path)), "spawn")


def test_a_pickled_dataset_of_a_run_is_the_same(vectors, grids):
    for folder in (vectors, grids):
        dataset = crops(folder)
        again = pickle.loads(pickle.dumps(dataset))
        assert (again.ids, again.classes) == (dataset.ids, dataset.classes)
        assert all(torch.equal(again[i][0], dataset[i][0]) for i in range(4))


def test_a_map_without_blocks_is_refused(tmp_path):
    blocks = [(time, row, col) for time in (0, 1) for row in range(3) for col in range(4)]
    with pytest.raises(SpecError, match="window with tokens"):
        RegionDataset(region_of(tmp_path, missing=tuple(blocks)))
