"""Whatever is rebuilt inside, the same calls give the same numbers."""

import numpy as np
import pytest
import torch
from same_calls import CALLS, KEPT, kept, machine


@pytest.fixture(scope="module")
def before():
    with np.load(KEPT) as values:
        return dict(values)


@pytest.mark.filterwarnings("ignore::rs_embed.errors.RSEmbedWarning")  # random weights, and frames that repeat
@pytest.mark.parametrize("name", CALLS)
def test_a_call_gives_the_numbers_that_it_gave_before(name, before):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        values = kept(CALLS[name]())
    finally:
        torch.set_num_threads(threads)
    if machine() == str(before["machine"]):
        np.testing.assert_array_equal(values, before[name])
    else:  # another processor rounds products otherwise
        np.testing.assert_allclose(values, before[name], rtol=1e-4, atol=2e-5 * np.nanmax(np.abs(before[name])))


def test_every_call_is_kept(before):
    assert set(before) == {"machine", *CALLS}
