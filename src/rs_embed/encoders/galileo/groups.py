"""Galileo's channel groups: the channels of a group share one embedding and form one token.

Source: nasaharvest/galileo 0f0b5b9, single_file_galileo.py.
"""

from collections.abc import Mapping

Groups = Mapping[str, tuple[str, ...]]
"""Name of a group -> its channels, in order."""

SPACE_TIME: Groups = {
    "S1": ("VV", "VH"),
    "S2_RGB": ("B2", "B3", "B4"),
    "S2_Red_Edge": ("B5", "B6", "B7"),
    "S2_NIR_10m": ("B8",),
    "S2_NIR_20m": ("B8A",),
    "S2_SWIR": ("B11", "B12"),
    "NDVI": ("NDVI",),
}
"""Images, one per date."""
_LAND_COVER = (
    "water", "trees", "grass", "flooded_vegetation", "crops", "shrub_and_scrub", "built", "bare", "snow_and_ice",
)  # fmt: skip
_CEREALS = ("temporarycrops", "maize", "wintercereals", "springcereals", "irrigation")
SPACE: Groups = {"SRTM": ("elevation", "slope"), "DW": _LAND_COVER, "WC": _CEREALS}
"""Maps without a date."""
TIME: Groups = {
    "ERA5": ("temperature_2m", "total_precipitation_sum"),
    "TC": ("def", "soil", "aet"),
    "VIIRS": ("avg_rad",),
}
"""One value per date for the whole place."""
STATIC: Groups = {"LS": ("b1",), "location": ("x", "y", "z"), "DW_static": _LAND_COVER, "WC_static": _CEREALS}
"""One value for the whole place."""
GROUPS: Groups = {**SPACE_TIME, **SPACE, **TIME, **STATIC}
"""All groups."""
