"""Band statistics of a user's own imagery, for models that standardise each dataset by its own statistics."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rs_embed.core.bands import Unit, unit_named
from rs_embed.core.chip import Chip
from rs_embed.embedders.card import BandStats, DerivedBand, Modality
from rs_embed.embedders.prepare.derived import POLARISATION_RATIO, SLOPE
from rs_embed.errors import InputError, KnobError, StorageError

FORMAT = "rs_embed band statistics 1"
Published = Mapping[str, Mapping[str, Sequence[tuple[float, float]]]]
"""Table -> modality -> mean and std of each band."""


def save_statistics(
    path: str | Path,
    samples: Iterable[Mapping[str, Chip]],
    derived: Sequence[DerivedBand] = (POLARISATION_RATIO, SLOPE),
) -> Path:
    """Write band statistics of many chips to a file, to be passed as `normalize=<path>`.

    For each band, the file holds the mean over chips of the chip's mean, and the mean over chips of the chip's standard
    deviation, as the authors of AnySat compute them for each dataset. Use hundreds of chips from the whole area and
    season of your study. Statistics of a single chip would remove what distinguishes it from others.

    Args:
        path: A `.json` file.
        samples: One mapping modality -> chip per place, as in `inspect_chip(...).chips`. Read once, so a generator
            works.
        derived: Derived bands to include where a chip has their source bands.

    Returns:
        The path of the file.

    Raises:
        InputError: There are no chips.
        StorageError: The file cannot be written.

    Source: gastruc/AnySat, src/data (NORM_<modality>_patch.json).
    """
    moments: dict[str, dict[str, list[tuple[float, float]]]] = {}
    units: dict[str, dict[str, Unit]] = {}
    count = 0
    for count, chips in enumerate(samples, start=1):  # noqa: B007
        for modality, chip in chips.items():
            for band, (unit, values) in _bands(chip, derived).items():
                units.setdefault(modality, {})[band] = unit
                found = values[np.isfinite(values)].astype(np.float64)
                if found.size:
                    moments.setdefault(modality, {}).setdefault(band, []).append((found.mean(), found.std()))
    if not moments:
        raise InputError(
            "Expected chips to compute statistics from, got none.", fix="pass [inspect_chip(...).chips, ...]"
        )
    table = {
        modality: {band: _entry(units[modality][band], found) for band, found in bands.items()}
        for modality, bands in moments.items()
    }
    path = Path(path)
    try:
        path.write_text(json.dumps({"format": FORMAT, "chips": count, "modalities": table}, indent=1), encoding="utf-8")
    except OSError as error:
        raise StorageError(
            f"Expected to write {path}, got: {error}.", fix="choose a folder that you can write to"
        ) from error
    return path


def _entry(unit: Unit, moments: list[tuple[float, float]]) -> dict[str, float | str]:
    mean, std = np.mean(moments, axis=0)
    return {"unit": str(unit), "mean": float(mean), "std": float(std)}


def _bands(chip: Chip, derived: Sequence[DerivedBand]) -> dict[str, tuple[Unit, NDArray[np.float32]]]:
    """Return unit and pixels of each band, including the derived bands that can be computed."""
    pixels = {band.name: chip.values[:, i] for i, band in enumerate(chip.bands)}
    pixel_m = float("nan") if chip.geobox is None else float(chip.geobox.resolution.x)
    found = {band.name: (band.unit, pixels[band.name]) for band in chip.bands}
    for band in derived:
        if set(band.of) <= set(pixels):
            found[band.name] = band.unit, band.compute({name: pixels[name] for name in band.of}, pixel_m)
    return found


def statistics_of(modality: Modality, name: str, published: Published) -> Mapping[str, BandStats]:
    """Return mean and std of every band of a modality.

    Args:
        modality: The modality of the card.
        name: A table of `published`, or the path of a file that `save_statistics` wrote.
        published: The tables of the card.

    Raises:
        KnobError: `name` is neither, or the statistics lack a band of the modality.
    """
    if name in published:
        numbers = published[name].get(modality.name, ())
        found = {
            band: replace(stats, mean=mean, std=std)
            for (band, stats), (mean, std) in zip(modality.stats.items(), numbers, strict=False)
        }
    else:
        found = _load(Path(name), published).get(modality.name, {})
    missing = [band for band in modality.stats if band not in found]
    if missing:
        raise KnobError(
            f"Expected mean and std of {', '.join(missing)} of {modality.name}, got none in normalize={name!r}.",
            published="; ".join(f"{table}: {', '.join(by_modality)}" for table, by_modality in published.items()),
            fix="pass normalize=<file written by rs_embed.save_statistics>, or normalize='none'",
        )
    return found


def _load(path: Path, published: Published) -> dict[str, dict[str, BandStats]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {
            modality: {
                band: BandStats(band, unit_named(one["unit"]), float(one["mean"]), float(one["std"]))
                for band, one in bands.items()
            }
            for modality, bands in content["modalities"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise KnobError(
            f"Expected a file of band statistics, got {str(path)!r}: {type(error).__name__}: {error}.",
            known=", ".join([*published, "none"]),
            fix="write one with rs_embed.save_statistics(path, chips)",
        ) from error
