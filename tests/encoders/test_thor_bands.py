"""Public band names become THOR's, or the error says what was meant."""

import pytest

from rs_embed.encoders.thor.bands import GROUPS, KERNELS, PUBLIC_NAMES, kernel_name, resolve_bands
from rs_embed.errors import BandMismatch


def test_every_public_name_leads_to_a_band_with_a_kernel() -> None:
    bands = {band for group in GROUPS for band in group.bands}
    assert set(PUBLIC_NAMES.values()) == bands
    assert {kernel_name(band) for band in bands} == set(KERNELS)
    assert len(KERNELS) == 46


def test_names_are_translated_in_their_order() -> None:
    names = [
        "NIR_NARROW",
        "COASTAL_AEROSOL",
        "ASC_VV",
        "EW_HH",
        "OA01_REFLECTANCE",
        "S1_REFLECTANCE_AN",
        "S7_BT_IN",
    ]
    bands, gsd_m = resolve_bands(names)
    assert bands == (
        "S2:RE4",
        "S2:CoastAerosal",
        "S1:IW-VV",
        "S1:EW-HH",
        "S3:Oa01_reflectance",
        "S3:S1_reflectance_an",
        "S3:S7_BT_in",
    )
    assert gsd_m == {}


def test_a_number_after_a_sar_name_sets_the_pixel_size_of_its_group() -> None:
    assert resolve_bands(["VV_60", "VH", "IW_HH_30"]) == (
        ("S1:IW-VV", "S1:IW-VH", "S1:IW-HH"),
        {"group3": 60, "group4": 30},
    )


def test_the_modes_of_sentinel_1_share_their_kernels() -> None:
    assert kernel_name("S1:IW-VV") == kernel_name("S1:EW-VV") == "S1:VV"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("red_edge_1", "RED_EDGE_1"),
        ("NIR", "NIR_BROAD"),
        ("SWIR1", "SWIR_1"),
        ("S1_REFLECTANCE", "S1_REFLECTANCE_AN"),
        ("IW_VW", "IW_VV"),
        ("RED_60", "RED"),
        ("VV_0", "VV"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(name: str, meant: str) -> None:
    with pytest.raises(BandMismatch, match=name) as caught:
        resolve_bands(["BLUE", name])
    assert f"did you mean {meant}?" in str(caught.value)


def test_a_name_like_no_other_is_answered_with_the_list() -> None:
    with pytest.raises(BandMismatch) as caught:
        resolve_bands(["B04"])
    assert "choose from COASTAL_AEROSOL, BLUE" in str(caught.value)


def test_two_names_of_one_band_are_refused() -> None:
    with pytest.raises(BandMismatch, match="VV and ASC_VV, which are the same band"):
        resolve_bands(["VV", "VH", "ASC_VV"])


def test_two_pixel_sizes_in_one_group_are_refused() -> None:
    with pytest.raises(BandMismatch, match="group3 of THOR, got 60 m and 30 m"):
        resolve_bands(["VV_60", "VH_30"])
