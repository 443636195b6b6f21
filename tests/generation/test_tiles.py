"""A region in tiles: what needs no network."""

import pytest
import torch
from torch import nn

from rs_embed.embedders.base import Network
from rs_embed.embedders.cards.terramind_tokens import TOKENS
from rs_embed.embedders.imagining.tokenizers import Tokenizer
from rs_embed.embedders.prepare.framing import InputGeometry, frame_chip
from rs_embed.errors import ReadoutError
from rs_embed.generation.tiles import Diffusion, decode_tiles, region_noise, stitch_ids, tile_seed, to_pixels


def test_ids_of_an_overlap_come_from_the_nearer_window():
    frame = frame_chip((64, 96), "tile", InputGeometry(64, lattice_px=32, square=True, patch_px=16))
    assert [window.col for window in frame.windows] == [0, 32]
    left, right = torch.full((4, 4), 1), torch.full((4, 4), 2)
    assert stitch_ids([left, right], frame)[0].tolist() == [1, 1, 1, 2, 2, 2]


def test_windows_that_overlap_see_the_same_noise_and_noise_is_normal():
    frame = frame_chip((64, 96), "tile", InputGeometry(64, lattice_px=32, square=True, patch_px=16))
    first, second = (region_noise(TOKENS["S1GRD"], window, 5) for window in frame.windows)
    assert torch.equal(first[:, :, 32:], second[:, :, :32])
    assert not torch.equal(first[:, :, :32], first[:, :, 32:])
    assert abs(first.mean()) < 0.05 and abs(first.std() - 1) < 0.05
    assert not torch.equal(first, region_noise(TOKENS["S1RTC"], frame.windows[0], 5))


class Painted(nn.Module):
    """A decoder that paints a window in the colour of its first id."""

    def decode_quant(self, codes):
        scores = torch.zeros(1, 10, codes.shape[-2] * 16, codes.shape[-1] * 16)
        scores[:, int(codes.flatten()[0]) % 10] = 1
        return scores

    def tokens_to_embedding(self, ids):
        return ids

    def parameters(self, recurse=True):
        return iter([torch.zeros(1)])


def test_classes_are_voted_for_and_never_mixed():
    frame = frame_chip((64, 96), "tile", InputGeometry(64, lattice_px=32, square=True, patch_px=16))
    ids = torch.tensor([[2, 2, 7, 7, 7, 7]] * 4)
    whole = decode_tiles(Tokenizer(TOKENS["LULC"], Network(Painted(), "painted")), ids, frame, Diffusion())
    assert whole[0, 0, :48].tolist() == [2] * 48, "the left window's vote weighs more up to the middle"
    assert whole[0, 0, 48:].tolist() == [7] * 48
    assert set(whole.unique().tolist()) == {2, 7}, "a mean would be 4 or 5"


def test_standardised_values_become_those_of_the_unit():
    assert to_pixels(TOKENS["S1GRD"], torch.ones(2, 1, 1)).flatten().tolist() == [
        torch.tensor(-12.599).add(5.195).item(),
        torch.tensor(-20.293).add(5.890).item(),
    ]
    assert to_pixels(TOKENS["LULC"], torch.full((1, 1, 1), 9)).tolist() == [[[9]]]


def test_the_first_tile_has_the_seed_of_the_call_and_steps_of_tiles_do_not_meet():
    assert tile_seed(7, 0) == 7
    seeds = {tile_seed(7, tile) + step for tile in range(5) for step in range(6 * 196)}
    assert len(seeds) == 5 * 6 * 196


@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
def test_pixels_that_are_not_finite_are_an_error(broken):
    found = torch.zeros(2, 4, 4)
    found[1, 2, 3] = broken
    with pytest.raises(ReadoutError, match="finite pixels of S1GRD, got 1 of 32 NaN or infinite"):
        to_pixels(TOKENS["S1GRD"], found)
