"""The bands with which THOR was trained: their groups, pixel sizes, kernels and public names."""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from rs_embed.errors import BandMismatch


@dataclass(frozen=True)
class BandGroup:
    """Bands of one sensor and pixel size whose patches become one token."""

    name: str
    """Key of the group's band embedding in the checkpoint."""
    bands: tuple[str, ...]
    """THOR's band names. The bands are averaged, so their order has no effect."""
    gsd_m: int
    """Pixel size that the model assumes, metres, unless overridden."""


GROUPS = (
    BandGroup("group0", ("S2:Red", "S2:Green", "S2:Blue", "S2:NIR"), 10),
    BandGroup("group1", ("S2:RE1", "S2:RE2", "S2:RE3", "S2:RE4", "S2:SWIR1", "S2:SWIR2"), 20),
    BandGroup("group2", ("S2:CoastAerosal", "S2:WaterVapor"), 60),  # sic: the checkpoint's spelling
    BandGroup("group3", ("S1:IW-VH", "S1:IW-VV", "S1:EW-VH", "S1:EW-VV"), 10),
    BandGroup("group4", ("S1:IW-HV", "S1:IW-HH", "S1:EW-HV", "S1:EW-HH"), 10),
    BandGroup("group5", tuple(f"S3:Oa{n:02}_reflectance" for n in range(1, 8)), 240),
    BandGroup("group6", tuple(f"S3:Oa{n:02}_reflectance" for n in range(8, 15)), 240),
    BandGroup("group7", tuple(f"S3:Oa{n:02}_reflectance" for n in range(15, 22)), 240),
    BandGroup("group8", tuple(f"S3:S{n}_reflectance_an" for n in range(1, 7)), 480),
    BandGroup("group9", tuple(f"S3:S{n}_BT_in" for n in range(7, 10)), 960),
)
"""The band groups, in token order.

Source: FM4CS/thor_terratorch_ext 7e822dd, models/backbones/thor_vit.py, default input params.
"""

GROUP_OF_BAND = {band: group.name for group in GROUPS for band in group.bands}
"""THOR's band name -> name of its group."""


def kernel_name(band: str) -> str:
    """Return the name of a band's patch kernel; Sentinel-1 modes share theirs (`S1:EW-VV` has `S1:VV`)."""
    return re.sub(r"^S1:(IW|EW)-", "S1:", band)


KERNELS = tuple(dict.fromkeys(kernel_name(band) for band in GROUP_OF_BAND))
"""The 46 kernels of a checkpoint."""

_SAR_NAMES = {
    f"{prefix}{polarisation}": f"S1:{'EW' if prefix == 'EW_' else 'IW'}-{polarisation}"
    for polarisation, prefixes in {
        "VV": ("", "ASC_", "DSC_", "IW_", "EW_"),
        "VH": ("", "ASC_", "DSC_", "IW_", "EW_"),
        "HH": ("IW_", "EW_"),
        "HV": ("IW_", "EW_"),
    }.items()
    for prefix in prefixes
}

PUBLIC_NAMES = {
    "COASTAL_AEROSOL": "S2:CoastAerosal",
    "BLUE": "S2:Blue",
    "GREEN": "S2:Green",
    "RED": "S2:Red",
    "RED_EDGE_1": "S2:RE1",
    "RED_EDGE_2": "S2:RE2",
    "RED_EDGE_3": "S2:RE3",
    "NIR_BROAD": "S2:NIR",
    "NIR_NARROW": "S2:RE4",
    "WATER_VAPOR": "S2:WaterVapor",
    "SWIR_1": "S2:SWIR1",
    "SWIR_2": "S2:SWIR2",
    **_SAR_NAMES,
    **{band.removeprefix("S3:").upper(): band for band in GROUP_OF_BAND if band.startswith("S3:")},
}
"""Public band name -> THOR's band name. A SAR name may also end in a pixel size in metres, as in `VV_60`."""


def resolve_bands(names: Sequence[str]) -> tuple[tuple[str, ...], dict[str, int]]:
    """Translate public band names to THOR's.

    Args:
        names: Public names such as "RED", "NIR_NARROW", "ASC_VV", "VV_60", "OA01_REFLECTANCE".

    Returns:
        THOR's band names in the same order, and the pixel size in metres of each group for which a name such as `VV_60`
        sets one.

    Raises:
        BandMismatch: A name is unknown, two names mean the same band, or two set different sizes for one group.
    """
    name_of: dict[str, str] = {}
    sizes: dict[str, int] = {}
    for name in names:
        band, gsd_m = _resolve(name)
        if band in name_of:
            raise BandMismatch(
                f"Expected each band once, got {name_of[band]} and {name}, which are the same band of THOR ({band}).",
                bands=", ".join(names),
                fix="keep one of the two",
            )
        name_of[band] = name
        if gsd_m is None:
            continue
        group = GROUP_OF_BAND[band]
        if sizes.setdefault(group, gsd_m) != gsd_m:
            raise BandMismatch(
                f"Expected one pixel size for {group} of THOR, got {sizes[group]} m and {gsd_m} m.",
                bands=", ".join(names),
                fix="end all SAR names in the same number, or in none",
            )
    return tuple(name_of), sizes


def _resolve(name: str) -> tuple[str, int | None]:
    if name in PUBLIC_NAMES:
        return PUBLIC_NAMES[name], None
    sized = re.fullmatch(r"(\w+)_([1-9]\d*)", name)
    if sized and sized[1] in _SAR_NAMES:
        return _SAR_NAMES[sized[1]], int(sized[2])
    raise unknown_band(name, tuple(PUBLIC_NAMES))


def unknown_band(name: str, known: Sequence[str]) -> BandMismatch:
    """Return the error for an unknown band, which suggests the closest known one."""
    by_upper = {band.upper(): band for band in known}
    close = difflib.get_close_matches(name.upper(), by_upper, n=1, cutoff=0.5)
    fix = f"did you mean {by_upper[close[0]]}?" if close else f"choose from {', '.join(known)}"
    return BandMismatch(f"THOR has no band {name!r}.", fix=fix)
