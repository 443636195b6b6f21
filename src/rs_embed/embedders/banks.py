"""Banks of filters in files: what `fit_mosaiks` writes, and the card that makes a model of it. No torch.

A safetensors file of four tensors (`weight`, `bias`, `mean`, `std`) and one entry of metadata: JSON with all that the
filters were made of and are for, and a sha256 of it and of the tensors.
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
"""Of the metadata; one only, as safetensors keeps several in no fixed order, and the bytes would differ."""
IMAGE = "image"
"""What a bank calls its only modality."""
METHOD = "MOSAIKS random convolutional features, empirical patches, ZCA-whitened (Rolf et al. 2021)"
_REFIT = "make it again with rs_embed.fit_mosaiks, or fetch the file again"
Facts = dict[str, JsonValue]
_Numbers = NDArray[np.generic]
Tensors = Mapping[str, _Numbers]


def draft(name: str, sensor: SensorSpec) -> ModelCard:
    """The card of a bank that is yet to be made: it says which imagery is wanted."""
    return _card(name, sensor, np.zeros(len(sensor.bands)), np.ones(len(sensor.bands)), filters=1)


def save_bank(path: Path, name: str, sensor: SensorSpec, filters: Filters, facts: Mapping[str, JsonValue]) -> None:
    """Write a bank in one step; the same imagery, seed and version give the same bytes.

    Args:
        path: A `.safetensors` file; one that is there is replaced.
        name: What the model is called.
        sensor: Which imagery it is for.
        filters: The bank.
        facts: What more there is to say of how it was made.

    Raises:
        StorageError: It cannot be written.
    """
    tensors, own = filters.tensors(), registered(sensor.collection)
    units = [str(band.unit) for band in bands_of(sensor.collection, sensor.bands)]
    said: Facts = {
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
    entry = json.dumps({"sha256": _digest(said, tensors), "bank": said})
    with storing(path.parent), replacing(path) as part:
        part.write_bytes(safetensors.numpy.save(dict(tensors), {ENTRY: entry}))


def load_mosaiks(path: str | Path) -> ModelCard:
    """The model of a bank of filters that `fit_mosaiks` wrote; the path itself is a model's id, too.

    A collection of the user's that it was made for is registered, unless it is already.

    Example:
        >>> register_model(load_mosaiks("planet.safetensors"))                    # doctest: +SKIP

    Raises:
        WeightsNotFound: There is no such file.
        WeightsCorrupt: It is truncated, or was changed since it was written.
        WeightsMismatch: It is no bank of filters.
        SpecError: Another collection, or unit, of that name is registered here.
    """
    path = Path(path).expanduser().absolute()
    said, tensors = _read(path)
    try:
        own = cast("Facts", said["bank"])
        if said["sha256"] != _digest(own, tensors):
            raise _damaged(path, "another content than when it was written")
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
    """What the metadata say, and the tensors."""
    if not path.is_file():
        raise WeightsNotFound(
            f"Expected a bank of filters at {str(path)!r}, got no file.", fix="rs_embed.fit_mosaiks makes one"
        )
    try:
        with safetensors.safe_open(path, framework="numpy") as opened:
            entry = (opened.metadata() or {}).get(ENTRY)
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  (it is no mapping)
        said = None if entry is None else json.loads(entry)
    except (safetensors.SafetensorError, ValueError, OSError) as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from error
    if not isinstance(said, dict) or not isinstance(said.get("bank"), dict) or said["bank"].get("format") != FORMAT:
        raise WeightsMismatch(
            f"Expected a bank of filters, got something else in {str(path)!r}.",
            tensors=", ".join(list(tensors)[:5]),
            fix="name a file that rs_embed.fit_mosaiks wrote; weights of other models are given as ckpt=",
        )
    return said, tensors


def _damaged(path: Path, found: str) -> WeightsCorrupt:
    return WeightsCorrupt(f"{str(path)!r} is not a bank of filters that can be read.", found=found, fix=_REFIT)


def _sensor(said: Facts) -> SensorSpec:
    """Which imagery the bank is for.

    Raises:
        SpecError: This process knows its collection by other units.
    """
    collection, units = cast("Facts | None", said["collection"]), _words(said["units"])
    if collection is not None and collection["id"] not in COLLECTIONS:
        register_collection(_collection(collection))
    sensor = SensorSpec(**cast("Facts", said["sensor"]))  # type: ignore[arg-type]
    known = tuple(str(band.unit) for band in bands_of(sensor.collection, sensor.bands))
    if known != units:
        raise SpecError(
            f"Expected {sensor.collection} in the units of the bank, got it registered in others.",
            bank=", ".join(units),
            registered=", ".join(known),
            fix="register_collection(..., replace=True) with those units, or give it an id of its own",
        )
    return sensor


def _stored(collection: Collection) -> JsonValue:
    """A collection as JSON; a unit by its name."""
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
    """What `_stored` has made JSON of."""
    bands = cast("list[Facts]", stored["bands"])
    made = tuple(Band(**{**band, "aliases": _words(band["aliases"])}) for band in bands)  # type: ignore[arg-type]
    return Collection(**{**stored, "bands": made, "cloud_masks": _words(stored["cloud_masks"])})  # type: ignore[arg-type]


def _words(value: JsonValue) -> tuple[str, ...]:
    return tuple(cast("list[str]", value))


def _plain(sensor: SensorSpec) -> JsonValue:
    found: JsonValue = json.loads(json.dumps(asdict(sensor)))
    return found


def _digest(said: Facts, tensors: Tensors) -> str:
    """sha256 of all that a bank says and holds."""
    total = hashlib.sha256(json_digest(said).encode())
    for name, values in sorted(tensors.items()):
        total.update(f"{name} {values.dtype.str} {values.shape}".encode())
        total.update(np.ascontiguousarray(values).tobytes())
    return total.hexdigest()
