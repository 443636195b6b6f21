"""Which inputs a model gets by a request, checked before anything is fetched or loaded."""

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
    """Which inputs the model gets, and which imagery is fetched for each.

    Args:
        card: The one that runs, whatever the request calls it.
        knobs: In force.
        request: What is asked for.
        precision: In force.

    Raises:
        SpecError: Unknown modality, a sensor that belongs to none, or no tokens finer than a patch.
        BandMismatch: A band that the model does not know.
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
            f"{', '.join(places)} alone lies on no grid: {card.id} wants imagery beside it.",
            fix=f"modality={'+'.join((card.modality_names[0], *places))!r}",
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
            fix="name the modality, or drop that sensor",
        )
    by_name |= _sensors_of_bands(card, names, bands, by_name)
    inputs = tuple((card.modality(name), by_name.get(name, card.modality(name).sensor)) for name in names)
    for one, its_sensor in inputs:
        _check_sensor(card, one, its_sensor)
    model = ModelRequest(card, knobs, inputs, precision, places, request.output, best_effort)
    if model.dense and not card.dense:
        raise SpecError(f"{card.id} has no tokens finer than a patch.", fix="OutputSpec.grid()")
    return model


def _location_request(
    card: ModelCard, knobs: ModelKnobs, request: EmbeddingRequest, precision: WorkingPrecision
) -> ModelRequest:
    """Of a model without imagery: no inputs."""
    given = {"sensor": request.sensor, "bands": request.bands}
    unused = [word for word, value in given.items() if value is not None]
    if unused:
        raise SpecError(f"{card.id} is told the place alone, got {' and '.join(unused)}.", fix="leave it out")
    names = knobs.modality if request.modality is None else request.modality
    model = ModelRequest(card, knobs, (), precision, _modality_names(card, names, None), request.output)
    if model.dense:
        raise SpecError(f"{card.id} has no dense grid.", fix="OutputSpec.grid(), with cell_m=<side of a cell, metres>")
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
        raise SpecError(f"Expected each modality once, got {modality!r}.", fix="name each of them once, joined by '+'")
    return tuple(names)


def _modality_of(card: ModelCard, sensor: SensorSpec) -> Modality:
    """The first modality of the card that takes these bands of this collection, at best with the same sensor."""
    same_collection = [m for m in card.modalities if m.sensor.collection == sensor.collection]
    fitting = [m for m in same_collection if set(sensor.bands) <= set(m.stats)]
    exact = [m for m in fitting if (m.sensor.bands, _manner(m.sensor)) == (sensor.bands, _manner(sensor))] or [
        m for m in fitting if _manner(m.sensor) == _manner(sensor)
    ]
    for candidates in (exact, fitting, same_collection):
        if candidates:
            return candidates[0]
    raise SpecError(
        f"{card.id} takes no {sensor.collection}.",
        takes=", ".join(dict.fromkeys(m.sensor.collection for m in card.modalities)),
        fix="leave `sensor` out to fetch what the card asks for",
    )


def _manner(sensor: SensorSpec) -> tuple[float, str, str | None]:
    return sensor.scale_m, sensor.instrument_mode, sensor.orbit_pass


def _sensors_of_bands(
    card: ModelCard, names: Sequence[str], bands: Bands, sensors: Mapping[str, SensorSpec]
) -> dict[str, SensorSpec]:
    """The card's own sensors with other bands."""
    if bands is None:
        return {}
    if not isinstance(bands, Mapping):
        if len(names) > 1:
            raise SpecError(
                f"Expected bands per modality ({', '.join(names)}), got one list.",
                fix=f"pass bands={{{names[0]!r}: [...], ...}}; one that is left out keeps the card's own",
            )
        bands = {names[0]: bands}
    for name in bands:
        if name not in names:
            fix = "name the modality, or drop those bands"
            raise SpecError(f"Expected bands for {', '.join(names)}, got some for {name}.", fix=fix)
        if name in sensors:
            raise SpecError(f"Expected bands or a sensor for {name}, got both.", fix="SensorSpec(..., bands=...)")
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
            f"Modality {modality.name!r} of {card.id} takes {modality.sensor.collection}, got {sensor.collection}.",
            fix="change the collection, or name the modality that fits it",
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
            f"{card.id} takes the bands of {modality.name!r} all together and in this order.",
            wanted=", ".join(modality.sensor.bands),
            found=", ".join(sensor.bands),
            fix="leave `bands` out, or give a sensor with these bands",
        )
    _check_whole(card, modality, sensor)
    if modality.fixed and sensor.scale_m != modality.sensor.scale_m:
        raise SpecError(
            f"{card.id} takes {modality.name!r} at {modality.sensor.scale_m:g} m per pixel, got {sensor.scale_m:g}.",
            fix=f"scale_m={modality.sensor.scale_m:g}",
        )


def _check_whole(card: ModelCard, modality: Modality, sensor: SensorSpec) -> None:
    """Pixels that are codes or vectors are never averaged, and nodata is kept where the model keeps it, only there."""
    kept = modality.sensor.fill_value == "nan"
    if kept != (sensor.fill_value == "nan"):
        raise SpecError(
            f"{card.id} {'keeps nodata' if kept else 'wants numbers'}, got fill_value={sensor.fill_value!r}.",
            fix=f"fill_value={modality.sensor.fill_value!r}",
        )
    whole = any(band.unit.kept_whole for band in bands_of(sensor.collection, sensor.bands))
    if whole and sensor.composite in ("median", "mean"):
        raise SpecError(
            f"Expected whole pixels of {sensor.collection}, got composite={sensor.composite!r}, which mixes them.",
            fix='composite="mosaic"',
        )
