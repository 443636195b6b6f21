"""Save chips beside the results, so that you can see what a model was given."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rs_embed.core.atomic import make_folder, remove_parts, replacing
from rs_embed.core.chip import Chip
from rs_embed.exports.fetching.reader import PlannedFetches, PlannedProvider
from rs_embed.providers.base import Provider, Query

FOLDER = "inputs"


class InputKeeper(PlannedProvider):
    """A provider that saves each fetched chip as `inputs/<unit>/<row>-<id>-<modality>.npz`.

    A file holds `values` (`[T, C, H, W]`, NaN is nodata), `bands`, `units`, `times` (ISO 8601, UTC; empty if unknown),
    `crs` and `transform` (a, b, c, d, e, f).
    """

    def __init__(self, provider: Provider, folder: Path) -> None:
        super().__init__(provider)
        self._folder = folder
        self._paths: dict[Query, Path] = {}

    def announce(self, unit: str, planned: Sequence[PlannedFetches]) -> None:
        """See `PlannedProvider`; a chip that was not announced is not saved."""
        super().announce(unit, planned)
        folder = self._folder / unit
        make_folder(folder)
        remove_parts(folder)
        self._paths = {
            query: folder / f"{place.stem}-{query.modality}.npz" for place in planned for query in place.queries
        }

    def fetch(self, query: Query) -> Chip:
        """Fetch the chip and save it."""
        chip = self._provider.fetch(query)
        path = self._paths.get(query)
        if path is not None:
            with replacing(path) as part:
                write_chip(chip, part)
        return chip


def write_chip(chip: Chip, path: Path) -> None:
    """Write a chip to exactly this path."""
    place = chip.geobox
    with path.open("wb") as file:
        np.savez(
            file,
            values=chip.values,
            bands=np.array(chip.band_names),
            units=np.array([str(band.unit) for band in chip.bands]),
            times=np.array(["" if time is None else time.isoformat() for time in chip.times]),
            crs=np.array("" if place is None else str(place.crs)),
            transform=np.array([] if place is None else tuple(place.affine)[:6]),
        )
