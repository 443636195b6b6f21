"""Filter banks in files: written by `fit_mosaiks`, and read as the card of a model. This module does not import torch.

A filter bank is a safetensors file of four tensors (`weight`, `bias`, `mean`, `std`) and one entry of metadata: JSON
that describes the source and purpose of the filters, with a sha256 of this record and of the tensors.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import cast

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray
from pydantic import JsonValue

from rs_embed.core.atomic import replacing, storing
from rs_embed.core.bands import COLLECTIONS, Band, Collection, bands_of, register_collection, registered
from rs_embed.core.hashing import json_digest, sha256_of
from rs_embed.core.specs import SensorSpec
from rs_embed.embedders.card import BandStats, LocalWeights, Modality, ModelCard
from rs_embed.embedders.cards import mosaiks
from rs_embed.embedders.whitening import KERNEL_PX, ZCA_EPSILON, Filters
from rs_embed.errors import SpecError, WeightsCorrupt, WeightsMismatch, WeightsNotFound

FORMAT = "rs_embed bank of filters 1"
ENTRY = "rs_embed_bank"
"""Key of the only metadata entry. safetensors keeps several entries in no fixed order, so that the bytes would
differ."""
IMAGE = "image"
"""Name of a bank's only modality."""
METHOD = "MOSAIKS random convolutional features, empirical patches, ZCA-whitened (Rolf et al. 2021)"
_REFIT = "create it again with rs_embed.fit_mosaiks, or copy the file again"
Facts = dict[str, JsonValue]
_Numbers = NDArray[np.generic]
Tensors = Mapping[str, _Numbers]


def draft(name: str, sensor: SensorSpec) -> ModelCard:
    """Return the card of a bank that does not exist yet, to plan the imagery for it."""
    return _card(name, sensor, np.zeros(len(sensor.bands)), np.ones(len(sensor.bands)), filters=1)


def save_bank(path: Path, name: str, sensor: SensorSpec, filters: Filters, facts: Mapping[str, JsonValue]) -> None:
    """Write a bank atomically. The same imagery, seed and version give the same bytes.

    Args:
        path: A `.safetensors` file; an existing one is replaced.
        name: Name of the model.
        sensor: The imagery that the bank is for.
        filters: The bank.
        facts: Further facts to record.

    Raises:
        StorageError: The file cannot be written.
    """
    tensors, own = filters.tensors(), registered(sensor.collection)
    units = [str(band.unit) for band in bands_of(sensor.collection, sensor.bands)]
    record: Facts = {
        "format": FORMAT,
        "name": name,
        "method": METHOD,
        "sensor": _plain(sensor),
        "units": cast("JsonValue", units),
        "collection": None if own is None else _stored(own),
        "filters": len(filters.weight),
        "kernel_px": KERNEL_PX,
        "zca_epsilon": ZCA_EPSILON,
        "pixels": filters.pixels,
        "pieces": filters.pieces,
        "rs_embed": version("eo-rs-embed"),
        **facts,
    }
    entry = json.dumps({"sha256": _digest(record, tensors), "bank": record})
    with storing(path.parent), replacing(path) as part:
        part.write_bytes(safetensors.numpy.save(dict(tensors), {ENTRY: entry}))


def load_mosaiks(path: str | Path) -> ModelCard:
    """Return the model of a filter bank that `fit_mosaiks` wrote. The path itself is also valid as a model id.

    If the bank was made for a registered collection of your own, the collection is registered here too.

    Args:
        path: A `.safetensors` file.

    Returns:
        The card of the model, for `get_embedding` or `register_model`.

    Raises:
        WeightsNotFound: The file does not exist.
        WeightsCorrupt: The file is truncated or was modified.
        WeightsMismatch: The file is not a filter bank.
        SpecError: A different collection or unit of the same name is registered.

    Example:
        >>> register_model(load_mosaiks("planet.safetensors"))                    # doctest: +SKIP
    """
    path = Path(path).expanduser().absolute()
    record, tensors = _read(path)
    try:
        own = cast("Facts", record["bank"])
        if record["sha256"] != _digest(own, tensors):
            raise _damaged(path, "its content was modified after it was written")
        sensor = _sensor(own)
        name, mean, std = str(own["name"]), tensors["mean"], tensors["std"]
    except (KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from error
    card = _card(name, sensor, mean, std, filters=len(tensors["weight"]))
    weights = LocalWeights(str(path), card.licence, sha256_of(path))
    return replace(card, weights=weights)


def _card(name: str, sensor: SensorSpec, mean: _Numbers, std: _Numbers, filters: int) -> ModelCard:
    bands = bands_of(sensor.collection, sensor.bands)
    stats = {
        band.name: BandStats(band.name, band.unit, float(m), float(s))
        for band, m, s in zip(bands, mean, std, strict=True)
    }
    (bundled,) = mosaiks.CARDS
    (modality,) = bundled.modalities
    image = Modality(IMAGE, replace(sensor, fill_value="mean"), stats, modality.image_px, modality.patch_px, fixed=True)
    return replace(
        bundled,
        id=name,
        revision=1,
        title=f"{bundled.title}, filters of {sensor.collection}",
        arch={"filters": filters, "bands": len(bands)},
        dim=2 * filters,
        parameters_m=round(filters * (len(bands) * KERNEL_PX**2 + 1) / 1e6, 4),
        modalities=(image,),
        licence="that of the imagery which the filters were taken from",
        model_key=name,
        aliases=(),
    )


def _read(path: Path) -> tuple[Facts, Tensors]:
    """Read the metadata and the tensors."""
    if not path.is_file():
        raise WeightsNotFound(
            f"Expected a filter bank at {str(path)!r}, got no file.", fix="create one with rs_embed.fit_mosaiks"
        )
    try:
        with safetensors.safe_open(path, framework="numpy") as opened:
            entry = (opened.metadata() or {}).get(ENTRY)
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  (it is no mapping)
        found = None if entry is None else json.loads(entry)
    except (safetensors.SafetensorError, ValueError, OSError) as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from error
    if not isinstance(found, dict) or not isinstance(found.get("bank"), dict) or found["bank"].get("format") != FORMAT:
        raise WeightsMismatch(
            f"Expected a filter bank, got another file: {str(path)!r}.",
            tensors=", ".join(list(tensors)[:5]),
            fix="pass a file that rs_embed.fit_mosaiks wrote; pass weights of other models as ckpt=",
        )
    return found, tensors


def _damaged(path: Path, found: str) -> WeightsCorrupt:
    return WeightsCorrupt(f"{str(path)!r} is not a readable filter bank.", found=found, fix=_REFIT)


def _sensor(record: Facts) -> SensorSpec:
    """Return the imagery that a bank is for.

    Raises:
        SpecError: The collection is registered in this process with other units.
    """
    collection, units = cast("Facts | None", record["collection"]), _words(record["units"])
    if collection is not None and collection["id"] not in COLLECTIONS:
        register_collection(_collection(collection))
    sensor = SensorSpec(**cast("Facts", record["sensor"]))  # type: ignore[arg-type]
    known = tuple(str(band.unit) for band in bands_of(sensor.collection, sensor.bands))
    if known != units:
        raise SpecError(
            f"Expected {sensor.collection} registered in the units of the bank, got other units.",
            bank=", ".join(units),
            registered=", ".join(known),
            fix="call register_collection(..., replace=True) with the bank's units, or use another collection id",
        )
    return sensor


def _stored(collection: Collection) -> JsonValue:
    """Convert a collection to JSON, with units by name."""
    bands: list[JsonValue] = [
        {
            "name": band.name,
            "unit": str(band.unit),
            "gsd_m": band.gsd_m,
            "scale": band.scale,
            "offset": band.offset,
            "aliases": list(band.aliases),
        }
        for band in collection.bands
    ]
    return {
        "id": collection.id,
        "bands": bands,
        "dated": collection.dated,
        "cloud_property": collection.cloud_property,
        "cloud_masks": list(collection.cloud_masks),
    }


def _collection(stored: Facts) -> Collection:
    """Convert the JSON of `_stored` back to a collection."""
    bands = cast("list[Facts]", stored["bands"])
    made = tuple(Band(**{**band, "aliases": _words(band["aliases"])}) for band in bands)  # type: ignore[arg-type]
    return Collection(**{**stored, "bands": made, "cloud_masks": _words(stored["cloud_masks"])})  # type: ignore[arg-type]


def _words(value: JsonValue) -> tuple[str, ...]:
    return tuple(cast("list[str]", value))


def _plain(sensor: SensorSpec) -> JsonValue:
    found: JsonValue = json.loads(json.dumps(asdict(sensor)))
    return found


def _digest(record: Facts, tensors: Tensors) -> str:
    """Return the sha256 of a bank's record and tensors."""
    total = hashlib.sha256(json_digest(record).encode())
    for name, values in sorted(tensors.items()):
        total.update(f"{name} {values.dtype.str} {values.shape}".encode())
        total.update(np.ascontiguousarray(values).tobytes())
    return total.hexdigest()
