"""Tokens are read out where the layout says they lie."""

from collections.abc import Callable

import pytest
import torch
from jaxtyping import install_import_hook

with install_import_hook(["rs_embed.encoders.tokens", "rs_embed.embedders._vit_mae_utils"], "beartype.beartype"):
    from rs_embed.embedders._vit_mae_utils import pool, to_grid
    from rs_embed.encoders.tokens import TokenGrid, TokenLayout
from rs_embed.errors import ReadoutError

TWO_GRIDS = TokenLayout(grids=(TokenGrid("20m", 2, 3), TokenGrid("10m", 4, 6)), prefix=2)


def two_grid_tokens() -> torch.Tensor:
    """Prefix tokens of 100, coarse tokens of 1, fine tokens that count up from 0."""
    fine = torch.arange(24.0)
    return torch.cat([torch.full((2,), 100.0), torch.ones(6), fine]).view(1, 32, 1)


def test_a_50_token_grid_keeps_its_north_west_token() -> None:
    layout = TokenLayout(grids=(TokenGrid("10m", height=5, width=10),))
    tokens = torch.zeros(1, 50, 1)
    tokens[0, 0] = 50.0  # 49 is a square: guessing from the length would call this one CLS
    assert pool(tokens, layout).item() == 1.0
    assert to_grid(tokens, layout)[0, 0, 0, 0].item() == 50.0


def test_prefix_tokens_are_in_neither_read_out() -> None:
    tokens = two_grid_tokens()
    assert to_grid(tokens, TWO_GRIDS, "concat").max() == 23
    assert pool(tokens, TWO_GRIDS, "max").item() == 23
    assert pool(tokens, TWO_GRIDS).item() == pytest.approx((6 + 276) / 30)


def test_grids_are_merged_at_the_size_of_the_finest() -> None:
    fine = torch.arange(24.0).view(1, 1, 4, 6)
    torch.testing.assert_close(to_grid(two_grid_tokens(), TWO_GRIDS, "sum"), fine + 1)
    torch.testing.assert_close(to_grid(two_grid_tokens(), TWO_GRIDS, "mean"), (fine + 1) / 2)
    torch.testing.assert_close(to_grid(two_grid_tokens(), TWO_GRIDS, "max"), fine.clamp(min=1))
    concat = torch.cat([torch.ones_like(fine), fine], dim=1)
    torch.testing.assert_close(to_grid(two_grid_tokens(), TWO_GRIDS, "concat"), concat)


def test_a_coarse_grid_is_enlarged_about_pixel_centres() -> None:
    layout = TokenLayout((TokenGrid("20m", 1, 2), TokenGrid("10m", 2, 4)))
    tokens = torch.tensor([0.0, 4.0] + 8 * [0.0]).view(1, 10, 1)
    assert to_grid(tokens, layout, "concat")[0, 0].tolist() == 2 * [[0.0, 1.0, 3.0, 4.0]]


def test_channels_of_a_concatenation_follow_the_grids() -> None:
    layout = TokenLayout((TokenGrid("10m", 18, 18), TokenGrid("20m", 9, 9)))
    assert to_grid(torch.zeros(1, 405, 768), layout, "concat").shape == (1, 1536, 18, 18)


@pytest.mark.parametrize("read_out", [pool, to_grid])
def test_tokens_of_another_length_than_the_layout_are_refused(read_out: Callable[..., torch.Tensor]) -> None:
    with pytest.raises(ReadoutError, match="Expected 32 tokens by their layout, got 31") as caught:
        read_out(torch.zeros(1, 31, 4), TWO_GRIDS)
    assert "20m 2 x 3, 10m 4 x 6" in str(caught.value)


@pytest.mark.parametrize("read_out", [pool, to_grid])
def test_a_layout_without_a_grid_is_refused(read_out: Callable[..., torch.Tensor]) -> None:
    with pytest.raises(ReadoutError, match="without a grid"):
        read_out(torch.zeros(1, 1, 4), TokenLayout(grids=(), prefix=1))
