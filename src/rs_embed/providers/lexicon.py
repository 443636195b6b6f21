"""Map the band names of files and archives to the shared names of `rs_embed.core.bands`."""

import re

from rs_embed.core.bands import COLLECTIONS, Collection

_SENTINEL_2_COMMON = {
    "coastal": "B1", "blue": "B2", "green": "B3", "red": "B4",
    "rededge1": "B5", "rededge2": "B6", "rededge3": "B7",
    "nir": "B8", "nir08": "B8A", "nirnarrow": "B8A", "rededge4": "B8A", "nir09": "B9", "watervapour": "B9",
    "cirrus": "B10", "swir16": "B11", "swir1": "B11", "swir22": "B12", "swir2": "B12",
}  # fmt: skip
"""STAC common names, and the usual variants. Source: STAC eo extension 1.1, common band names."""
_SENTINEL_2 = re.compile(r"B0?(?P<number>\d{1,2})(?P<narrow>A?)(?:[ ,(].*|_(?:median|mean|mosaic|first))?", re.I)
"""Also "B2, central wavelength 490 nm" (GDAL's reader of SAFE) and "B2_median" (an Earth Engine reducer)."""
_POLARISATION = re.compile(r"(?:VV|VH|HH|HV)", re.I)


def canonical(name: str, collection: str) -> str | None:
    """Return the shared name of a band, or `None` if the collection has no such band.

    Example:
        >>> canonical("B02", "COPERNICUS/S2_SR_HARMONIZED"), canonical("Sigma0_vv", "COPERNICUS/S1_GRD")
        ('B2', 'VV')
    """
    known = COLLECTIONS[collection]
    found = _by_alias(name.strip().casefold(), known)
    if found is None and collection.startswith("COPERNICUS/S2_"):
        found = _sentinel_2(name.strip())
    elif found is None and collection.startswith("COPERNICUS/S1_"):
        found = _sentinel_1(name)
    return found if found in known else None


def names_a_band(name: str) -> bool:
    """Whether any known collection has a band of that name (so that an array in a store counts as a band)."""
    return any(canonical(name, collection) is not None for collection in COLLECTIONS)


def _sentinel_2(name: str) -> str | None:
    code = _SENTINEL_2.fullmatch(name)
    if code is not None:
        return f"B{int(code['number'])}{code['narrow'].upper()}"
    return _SENTINEL_2_COMMON.get(re.sub(r"[\s_-]", "", name).casefold())


def _sentinel_1(name: str) -> str | None:
    parts = [part.upper() for part in re.split(r"[\s_-]", name) if _POLARISATION.fullmatch(part)]
    return parts[0] if len(parts) == 1 else None  # "VV_VH" is a ratio or a sum, not a band


def _by_alias(word: str, collection: Collection) -> str | None:
    for band in collection.bands:
        if word in (band.name.casefold(), *(alias.casefold() for alias in band.aliases)):
            return band.name
    return None
