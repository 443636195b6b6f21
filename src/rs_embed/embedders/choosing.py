"""Which models of the catalog fit: by sensor, licence, extra and size of the download."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import get_args

from rs_embed.core.bands import did_you_mean
from rs_embed.core.checks import require_choice, require_number
from rs_embed.core.specs import ModelOrder
from rs_embed.embedders.card import LocalWeights, ModelCard, PackagedWeights, Weights
from rs_embed.embedders.licences import LICENCES, LicenceClass, strictest
from rs_embed.errors import SpecError

SENSORS: Mapping[str, str] = {
    "COPERNICUS/S2": "S2",
    "COPERNICUS/S1": "S1",
    "COPERNICUS/S3": "S3",
    "COPERNICUS/S5P": "S5P",
    "COPERNICUS/DEM": "DEM",
    "USGS/SRTM": "DEM",
    "LANDSAT/LC08": "L8",
    "LANDSAT/LC09": "L9",
    "LANDSAT/LE07": "L7",
    "MODIS/": "MODIS",
    "JAXA/ALOS": "ALOS",
    "IGN/": "aerial",
    "LINZ/": "aerial",
    "CNSA/GF2": "GF2",
    "AIRBUS/SPOT": "SPOT",
    "USDA/NAIP": "NAIP",
    "ECMWF/ERA5": "ERA5",
    "GOOGLE/SATELLITE_EMBEDDING": "AlphaEarth",
    "TESSERA/": "TESSERA",
}
"""How the name of a collection starts -> what a list of models calls it."""
OTHER, LOCATION = "more", "location"
_SAME: Mapping[str, tuple[str, ...]] = {
    "sentinel1": ("S1",),
    "sentinel2": ("S2",),
    "sentinel3": ("S3",),
    "landsat": ("L7", "L8", "L9"),
    "elevation": ("DEM",),
}
"""Other words for a sensor."""
_BYTES_PER_PARAMETER = 4
"""Of a checkpoint in float32: for files whose size the card does not state."""


def sensors_of(card: ModelCard) -> tuple[str, ...]:
    """Return the short names of a model's sensors, in the order of its inputs.

    `OTHER` stands for collections without a short name, `LOCATION` for a model that takes only the location.
    """
    names = [modality.sensor.collection for modality in card.modalities]
    found = (next((short for start, short in SENSORS.items() if name.startswith(start)), OTHER) for name in names)
    return tuple(dict.fromkeys(found)) or (LOCATION,)


def download_mb(card: ModelCard) -> tuple[float, bool]:
    """Return the size of the download, MB, and whether it is known.

    If the card does not state it, the size is that of the encoder in float32; the file may hold more than the encoder.
    """
    if card.weights is None or isinstance(card.weights, LocalWeights | PackagedWeights):
        return 0.0, True
    if card.weights.size_bytes is not None:
        return card.weights.size_bytes / 1e6, True
    return card.parameters_m * _BYTES_PER_PARAMETER, False


def download_text(card: ModelCard) -> str:
    """Return the download for a table: "4.2 MB", "~380 MB" if estimated, "bundled", "package" or "none"."""
    if not isinstance(card.weights, Weights):
        if card.kind == "precomputed":
            return "none"
        return {PackagedWeights: "package", LocalWeights: "file"}.get(type(card.weights), "bundled")
    size_mb, known = download_mb(card)
    size, unit = (size_mb / 1000, "GB") if size_mb >= 1000 else (size_mb, "MB")
    digits = 1 if size < 10 else 0
    return f"{'' if known else '~'}{size:.{digits}f} {unit}"


def selected(
    cards: Iterable[ModelCard],
    *,
    sensor: str | None = None,
    licence: str | None = None,
    no_extra: bool = False,
    max_mb: float | None = None,
    sort: ModelOrder = "catalogue",
) -> list[ModelCard]:
    """Return the cards that fit, in the given order.

    Args:
        cards: The cards to choose from.
        sensor: A sensor that the model can take: "s2", "Sentinel-2", "landsat", "location", ...
        licence: A class ("permissive", "conditions", "non-commercial", "gated", "unknown") or the id of a licence.
        no_extra: Whether to leave out models that need an extra of this package.
        max_mb: Largest download, MB, known or estimated.
        sort: "catalogue", "id", "params", "dim", "licence" or "size" (of the download); numbers ascend.

    Raises:
        SpecError: A sensor, licence or order is unknown, or `max_mb` is no positive number.
    """
    require_choice("sort", sort, get_args(ModelOrder))
    found = list(cards)
    if sensor is not None:
        wanted = _sensors_named(sensor)
        found = [card for card in found if wanted & set(sensors_of(card))]
    if licence is not None:
        _require_licence(licence)
        found = [card for card in found if licence in (strictest(card).kind, strictest(card).id)]
    if no_extra:
        found = [card for card in found if card.extra is None]
    if max_mb is not None:
        largest = require_number("max_mb", max_mb, 1e-6, 1e9)
        found = [card for card in found if download_mb(card)[0] <= largest]
    keys = {
        "id": lambda card: card.id,
        "params": lambda card: card.parameters_m,
        "dim": lambda card: card.dim,
        "licence": lambda card: strictest(card).id,
        "size": lambda card: download_mb(card)[0],
    }
    return sorted(found, key=keys[sort]) if sort in keys else found


def megabytes(text: str) -> float:
    """Read a size: "100M", "1.5 GB", "800k", or a plain number of MB.

    Raises:
        SpecError: The text is no size.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmg]?)b?\s*", text.lower())
    if match is None:
        raise SpecError(f"Expected a size, got {text!r}.", fix="for example 100M or 1.5G")
    return float(match[1]) * {"k": 1e-3, "g": 1e3}.get(match[2], 1.0)


def _sensors_named(text: str) -> set[str]:
    names = [*dict.fromkeys(SENSORS.values()), LOCATION]
    word = re.sub(r"[\s_-]", "", text.lower())
    found = {name for name in names if name.lower() == word} | set(_SAME.get(word, ()))
    if not found:
        raise SpecError(
            f"Expected a sensor, got {text!r}.", known=", ".join([*names, *_SAME]), fix=did_you_mean(text, names)
        )
    return found


def _require_licence(name: str) -> None:
    known: Sequence[str] = (*get_args(LicenceClass), *LICENCES)
    if name not in known:
        raise SpecError(
            f"Expected a class or the id of a licence, got {name!r}.",
            known=", ".join(known),
            fix=did_you_mean(name, known),
        )
