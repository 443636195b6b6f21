"""Patch sizes are chosen as the strategy says, and a geometry that cannot be laid says what would work."""

import re

import pytest
import torch

from rs_embed.encoders.thor.patchify import Strategy, plan_geometry, resize_kernel
from rs_embed.errors import BandMismatch, SpecError

TWO_GROUPS = ["S2:RE1", "S2:Red"]


@pytest.mark.parametrize(
    ("strategy", "patches_px", "sides"),
    [
        ("min", [4, 4], [24, 12]),
        ("max", [16, 16], [6, 3]),
        ("equal-min", [8, 4], [12, 12]),
        ("equal-max", [16, 8], [6, 6]),
    ],
)
def test_a_strategy_takes_its_patch_sizes(strategy: Strategy, patches_px: list[int], sides: list[int]) -> None:
    groups = plan_geometry(TWO_GROUPS, 960, [8, 4, 16, 7], strategy).groups
    assert [group.patch_px for group in groups] == patches_px
    assert [group.side for group in groups] == sides


def test_a_geometry_is_a_key_and_tells_its_layout() -> None:
    geometry = plan_geometry(TWO_GROUPS, 2880, [16])
    assert {geometry: 1}[plan_geometry(list(TWO_GROUPS), 2880, (16,))] == 1
    assert geometry.layout.length == 18**2 + 9**2
    assert [(grid.name, grid.height, grid.width) for grid in geometry.layout.grids] == [
        ("group0", 18, 18),
        ("group1", 9, 9),
    ]


def test_channels_follow_the_order_of_the_input() -> None:
    groups = plan_geometry(["S2:SWIR2", "S2:Blue", "S2:RE4", "S2:Red"], 960, [8]).groups
    assert [(group.bands, group.channels) for group in groups] == [
        (("S2:Red", "S2:Blue"), (3, 1)),
        (("S2:RE4", "S2:SWIR2"), (2, 0)),
    ]


@pytest.mark.parametrize("ground_cover_m", [100, 950, 1000, 2890])
@pytest.mark.parametrize("patch_sizes_px", [[7], [32, 11]])
def test_a_ground_cover_that_no_patch_divides_is_refused_with_one_that_works(
    ground_cover_m: int, patch_sizes_px: list[int]
) -> None:
    with pytest.raises(SpecError, match=f"{ground_cover_m} m") as caught:
        plan_geometry(TWO_GROUPS, ground_cover_m, patch_sizes_px)
    text = str(caught.value)
    assert re.search(r"group\d", text)
    assert ", ".join(map(str, patch_sizes_px)) + " px" in text
    advised_m = int(re.search(r"ground_cover_m=(\d+)", text)[1])
    plan_geometry(TWO_GROUPS, advised_m, patch_sizes_px)
    if advised_px := re.search(r"patch size of (\d+) px", text):
        plan_geometry(TWO_GROUPS, ground_cover_m, [int(advised_px[1])])


def test_patches_that_cannot_be_equal_are_refused_with_a_strategy_that_works() -> None:
    with pytest.raises(SpecError, match="the same size in all band groups") as caught:
        plan_geometry(TWO_GROUPS, 960, [8], "equal-min")
    assert 'strategy="min"' in str(caught.value)
    plan_geometry(TWO_GROUPS, 960, [8], "min")


@pytest.mark.parametrize("lengths", [(0, [8]), (960, [0]), (-960, [8, 16])])
def test_lengths_below_one_are_refused(lengths: tuple[int, list[int]]) -> None:
    with pytest.raises(SpecError, match="at least 1"):
        plan_geometry(TWO_GROUPS, *lengths)


def test_no_patch_size_at_all_is_refused() -> None:
    with pytest.raises(SpecError, match="one or more patch sizes"):
        plan_geometry(TWO_GROUPS, 960, [])


@pytest.mark.parametrize("bands", [[], ["S2:Red", "S2:Red"]])
def test_no_band_and_a_band_twice_are_refused(bands: list[str]) -> None:
    with pytest.raises(BandMismatch, match="each once"):
        plan_geometry(bands, 960, [8])


def test_an_unknown_thor_band_is_answered_with_the_nearest() -> None:
    with pytest.raises(BandMismatch, match="S2:CoastAerosol") as caught:
        plan_geometry(["S2:CoastAerosol"], 960, [8])
    assert "did you mean S2:CoastAerosal?" in str(caught.value)


def test_an_enlarged_kernel_embeds_the_enlarged_image_the_same() -> None:
    generator = torch.Generator().manual_seed(0)
    kernel = torch.randn(3, 2, 16, 16, generator=generator)
    image = torch.randn(1, 2, 16, 16, generator=generator)
    larger = torch.nn.functional.interpolate(image, size=(32, 32), mode="bicubic", antialias=True)
    embedded = (kernel * image).sum(dim=(1, 2, 3))
    torch.testing.assert_close((resize_kernel(kernel, 32) * larger).sum(dim=(1, 2, 3)), embedded)
