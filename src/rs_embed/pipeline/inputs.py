"""Resolve a request into the model's inputs, and check them before anything is fetched or loaded."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from rs_embed.core.bands import bands_of, did_you_mean
from rs_embed.core.settings import ModelKnobs
from rs_embed.core.specs import SensorSpec, WorkingPrecision
from rs_embed.embedders.base import ModelRequest
from rs_embed.embedders.card import Modality, ModelCard
from rs_embed.errors import BandMismatch, SpecError
from rs_embed.pipeline.request import Bands, EmbeddingRequest, Modalities, Sensors


def resolve_request(
    card: ModelCard, knobs: ModelKnobs, request: EmbeddingRequest, precision: WorkingPrecision
) -> ModelRequest:
    """Determine the inputs of the model and the imagery to fetch for each.

    Args:
        card: The card of the model that runs, which the request may name by an alias.
        knobs: The knobs in force.
        request: The user's request.
        precision: The precision in force.

    Raises:
        SpecError: A modality is unknown, a sensor fits no modality, or a dense grid is requested from a model without
            tokens finer than a patch.
        BandMismatch: The model does not know a band.
    """
    if not card.modalities:
        return _location_request(card, knobs, request, precision)
    modality, sensor, bands = request.modality, request.sensor, request.bands
    if modality is None and sensor is None:
        modality = tuple(bands) if isinstance(bands, Mapping) else knobs.modality
    best_effort = modality is None and not sensor
    all_names = _modality_names(card, modality, sensor)
    places = tuple(name for name in all_names if name in card.place_modalities)
    names = tuple(name for name in all_names if name not in places)
    if not names:
        raise SpecError(
            f"Expected imagery for {card.id}, got {', '.join(places)} alone, which defines no grid.",
            fix=f"set modality={'+'.join((card.modality_names[0], *places))!r}",
        )
    if isinstance(sensor, SensorSpec) and len(names) > 1:
        raise SpecError(
            f"Expected one sensor per modality ({', '.join(names)}), got a single one.",
            fix=f"pass sensor={{{names[0]!r}: SensorSpec(...), ...}}, or leave it out for the card's own",
        )
    by_name = {names[0]: sensor} if isinstance(sensor, SensorSpec) else dict(sensor or {})
    unused = [name for name in by_name if name not in names]
    if unused:
        raise SpecError(
            f"Expected sensors for {', '.join(names)}, got one for {', '.join(unused)}.",
            fix="name that modality too, or remove its sensor",
        )
    by_name |= _sensors_of_bands(card, names, bands, by_name)
    inputs = tuple((card.modality(name), by_name.get(name, card.modality(name).sensor)) for name in names)
    for one, its_sensor in inputs:
        _check_sensor(card, one, its_sensor)
    model = ModelRequest(card, knobs, inputs, precision, places, request.output, best_effort)
    if model.dense and not card.dense:
        raise SpecError(f"{card.id} has no tokens finer than a patch.", fix="request OutputSpec.grid()")
    return model


def _location_request(
    card: ModelCard, knobs: ModelKnobs, request: EmbeddingRequest, precision: WorkingPrecision
) -> ModelRequest:
    """Resolve a request to a model that takes only a location: it has no imagery."""
    given = {"sensor": request.sensor, "bands": request.bands}
    unused = [word for word, value in given.items() if value is not None]
    if unused:
        raise SpecError(
            f"Expected only a place for {card.id}, got {' and '.join(unused)}.", fix=f"leave {' and '.join(unused)} out"
        )
    names = knobs.modality if request.modality is None else request.modality
    model = ModelRequest(card, knobs, (), precision, _modality_names(card, names, None), request.output)
    if model.dense:
        raise SpecError(
            f"{card.id} has no dense grid.", fix="request OutputSpec.grid(), with cell_m=<side of a cell, metres>"
        )
    return model


def _modality_names(card: ModelCard, modality: Modalities, sensor: Sensors) -> tuple[str, ...]:
    known = (*card.modality_names, *card.place_modalities)
    if modality is None:
        if isinstance(sensor, SensorSpec):
            return (_modality_of(card, sensor).name,)
        modality = tuple(sensor or card.default_names)
    names = modality.split("+") if isinstance(modality, str) else list(modality)
    for name in names:
        if name not in known:
            raise SpecError(
                f"{card.id} has no modality {name!r}.",
                modalities=", ".join(known),
                fix=did_you_mean(name, known) + " (join several by '+')",
            )
    if not names or len(set(names)) != len(names):
        raise SpecError(f"Expected each modality once, got {modality!r}.", fix="name each once, joined with '+'")
    return tuple(names)


def _modality_of(card: ModelCard, sensor: SensorSpec) -> Modality:
    """Return the card's modality that fits a sensor best: by bands and acquisition, then bands, then collection."""
    same_collection = [m for m in card.modalities if m.sensor.collection == sensor.collection]
    fitting = [m for m in same_collection if set(sensor.bands) <= set(m.stats)]
    exact = [m for m in fitting if (m.sensor.bands, _mode(m.sensor)) == (sensor.bands, _mode(sensor))] or [
        m for m in fitting if _mode(m.sensor) == _mode(sensor)
    ]
    for candidates in (exact, fitting, same_collection):
        if candidates:
            return candidates[0]
    raise SpecError(
        f"{card.id} takes no {sensor.collection}.",
        takes=", ".join(dict.fromkeys(m.sensor.collection for m in card.modalities)),
        fix="leave `sensor` out to fetch the card's own imagery",
    )


def _mode(sensor: SensorSpec) -> tuple[float, str, str | None]:
    return sensor.scale_m, sensor.instrument_mode, sensor.orbit_pass


def _sensors_of_bands(
    card: ModelCard, names: Sequence[str], bands: Bands, sensors: Mapping[str, SensorSpec]
) -> dict[str, SensorSpec]:
    """Return the card's own sensors with the requested bands."""
    if bands is None:
        return {}
    if not isinstance(bands, Mapping):
        if len(names) > 1:
            raise SpecError(
                f"Expected bands per modality ({', '.join(names)}), got one list.",
                fix=f"pass bands={{{names[0]!r}: [...], ...}}; modalities left out keep the card's bands",
            )
        bands = {names[0]: bands}
    for name in bands:
        if name not in names:
            fix = "name that modality too, or remove its bands"
            raise SpecError(f"Expected bands for {', '.join(names)}, got some for {name}.", fix=fix)
        if name in sensors:
            raise SpecError(
                f"Expected bands or a sensor for {name}, got both.", fix="pass only SensorSpec(..., bands=...)"
            )
    return {name: _with_bands(card, card.modality(name), some) for name, some in bands.items()}


def _with_bands(card: ModelCard, modality: Modality, names: Sequence[str]) -> SensorSpec:
    by_word = {stats.model_name: band for band, stats in modality.stats.items()}
    by_word |= {band: band for band in modality.stats}
    for name in names:
        if name not in by_word:
            raise BandMismatch(
                f"Modality {modality.name!r} of {card.id} does not know the band {name!r}.",
                knows=", ".join(f"{band} ({stats.model_name})" for band, stats in modality.stats.items()),
                fix=did_you_mean(name, by_word),
            )
    return replace(modality.sensor, bands=tuple(by_word[name] for name in names))


def _check_sensor(card: ModelCard, modality: Modality, sensor: SensorSpec) -> None:
    if sensor.collection != modality.sensor.collection:
        raise SpecError(
            f"Expected {modality.sensor.collection} for modality {modality.name!r} of {card.id}, "
            f"got {sensor.collection}.",
            fix="change the collection, or name the modality that takes it",
        )
    bands_of(sensor.collection, sensor.bands)
    unknown = [band for band in sensor.bands if band not in modality.stats]
    if unknown:
        raise BandMismatch(
            f"Modality {modality.name!r} of {card.id} does not know {', '.join(unknown)}.",
            knows=", ".join(modality.stats),
            fix=f"leave `sensor` out, or use bands={modality.sensor.bands}",
        )
    if modality.fixed and sensor.bands != modality.sensor.bands:
        raise BandMismatch(
            f"Expected all bands of {modality.name!r} of {card.id}, in the model's order, got other bands.",
            wanted=", ".join(modality.sensor.bands),
            found=", ".join(sensor.bands),
            fix="leave `bands` out, or pass a sensor with these bands",
        )
    _check_fill_and_composite(card, modality, sensor)
    if modality.fixed and sensor.scale_m != modality.sensor.scale_m:
        raise SpecError(
            f"Expected {modality.sensor.scale_m:g} m per pixel for {modality.name!r} of {card.id}, "
            f"got {sensor.scale_m:g}.",
            fix=f"set scale_m={modality.sensor.scale_m:g}",
        )


def _check_fill_and_composite(card: ModelCard, modality: Modality, sensor: SensorSpec) -> None:
    """Refuse to average pixels that are codes or vectors, and require the model's own treatment of nodata."""
    kept = modality.sensor.fill_value == "nan"
    if kept != (sensor.fill_value == "nan"):
        raise SpecError(
            f"Expected {'' if kept else 'no '}fill_value='nan' for {card.id}, got {sensor.fill_value!r}.",
            fix=f"set fill_value={modality.sensor.fill_value!r}",
        )
    whole = any(band.unit.kept_whole for band in bands_of(sensor.collection, sensor.bands))
    if whole and sensor.composite in ("median", "mean"):
        raise SpecError(
            f"Expected a composite that keeps the pixels of {sensor.collection} as they are, "
            f"got {sensor.composite!r}, which averages them.",
            fix='set composite="mosaic"',
        )
