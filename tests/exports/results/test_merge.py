"""Tables of one run become one table, although a GPU or a knob without a say in the numbers was another."""

from dataclasses import replace

import numpy as np
import pytest
from made_rows import HEADER, row

from rs_embed.errors import StorageError
from rs_embed.exports.results.merge import merge_tables
from rs_embed.exports.unit_tables import RUN
from rs_embed.formats.reading import TableFile
from rs_embed.formats.table import write_table


def table(path, index, **extra):
    write_table(path, [row(index)], replace(HEADER, extra=extra))
    return TableFile(path)


def test_a_unit_of_another_gpu_and_with_a_knob_that_is_gone_is_of_the_same_run(tmp_path):
    old = table(tmp_path / "a", 0, **{RUN: "1", "knobs": {"pool_px": 8, "compile": False}, "device": "cuda:0"})
    new = table(tmp_path / "b", 1, **{RUN: "1", "knobs": {"pool_px": 8}, "device": "cuda:1"})
    assert merge_tables([old, new], tmp_path / "both", tmp_path) == 2
    np.testing.assert_array_equal(TableFile(tmp_path / "both").matrix(), np.concatenate([old.matrix(), new.matrix()]))


def test_a_unit_of_another_run_is_refused(tmp_path):
    with pytest.raises(StorageError, match="tables of one run"):
        merge_tables(
            [table(tmp_path / "a", 0, **{RUN: "1"}), table(tmp_path / "b", 1, **{RUN: "2"})],
            tmp_path / "both",
            tmp_path,
        )
