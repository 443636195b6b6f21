import pytest
from asking import L1C, S1, S2

from rs_embed.core.bands import COLLECTIONS
from rs_embed.providers.lexicon import canonical, names_a_band


@pytest.mark.parametrize(
    ("name", "band"),
    [
        ("B2", "B2"), ("b02", "B2"), ("B8a", "B8A"), ("B08A", "B8A"), ("B12", "B12"), (" B11 ", "B11"),
        ("B2, central wavelength 490 nm", "B2"), ("B04 (665 nm)", "B4"), ("B8_median", "B8"),
        ("Blue", "B2"), ("nir", "B8"), ("nir08", "B8A"), ("rededge1", "B5"), ("red_edge_3", "B7"), ("Red Edge 2", "B6"),
        ("swir16", "B11"), ("SWIR22", "B12"), ("coastal", "B1"),
        ("SCL", None), ("SR_B2", None), ("B22", None), ("B10", None), ("red edge", None), ("B2_B3", None), ("", None),
    ],
)  # fmt: skip
def test_sentinel_2_bands_go_by_many_names(name, band):
    assert canonical(name, S2) == band


def test_only_level_1c_has_a_cirrus_band():
    assert canonical("B10", L1C) == canonical("cirrus", L1C) == "B10"


@pytest.mark.parametrize(
    ("name", "band"),
    [("vv", "VV"), ("Sigma0_VH", "VH"), ("VH_db", "VH"), ("VV/VH", None), ("VV_VH", None), ("angle", None)],
)
def test_polarisations_go_by_many_names_but_a_ratio_is_no_band(name, band):
    assert canonical(name, S1) == band


def test_radiance_is_not_taken_for_reflectance():
    assert canonical("oa01", "COPERNICUS/S3/OLCI") == "Oa01_reflectance"
    assert canonical("Oa01_radiance", "COPERNICUS/S3/OLCI") is None


def test_every_shared_name_is_its_own_spelling():
    for collection, bands in COLLECTIONS.items():
        assert [canonical(band, collection) for band in bands] == list(bands)


def test_coordinates_of_a_store_are_not_bands():
    assert names_a_band("B2")
    assert not names_a_band("x")
    assert not names_a_band("spatial_ref")
