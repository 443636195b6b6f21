"""The rows of a comparison: models, and the baselines that see imagery, each planned, then with its vectors."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rs_embed.errors import InputError, SensorNotOffered, SpecError
from rs_embed.learning.baselines import MOSAIKS, channels_of, merged_inputs, statistics
from rs_embed.learning.evaluation import BANDS, Role
from rs_embed.learning.labels import Labels
from rs_embed.learning.variants import Part, Variant, variants_of
from rs_embed.learning.vectors import Computed, ImagerySource, Planned, compute, has_random_weights, planned

_UNAVAILABLE = (SensorNotOffered, InputError, SpecError)
"""Why a baseline cannot run: the imagery lacks its bands."""


@dataclass(frozen=True, eq=False)
class PlannedRow:
    """A row whose vectors are to be computed."""

    name: str
    role: Role
    planned: tuple[Planned, ...] = ()
    own: NDArray[np.floating] | None = None


@dataclass(frozen=True, eq=False)
class ComputedRow:
    """A row with its vectors."""

    name: str
    role: Role
    x: NDArray[np.floating]
    """`[N, D]`; NaN where a place failed."""
    computed: tuple[Computed, ...] = ()
    failures: int = 0

    @property
    def failed(self) -> NDArray[np.bool_]:
        """Which places have no vector, `[N]`."""
        lacking: NDArray[np.bool_] = (~np.isfinite(self.x)).any(axis=1)
        return lacking


class Comparison:
    """What is compared on some labels: plans it, then computes its vectors.

    Args:
        labels: The labels.
        source: Where imagery comes from.
        random_controls: Whether random weights are accepted, as controls.
    """

    def __init__(self, labels: Labels, source: ImagerySource, random_controls: bool) -> None:
        self.labels, self.source, self._controls = labels, source, random_controls
        self.notes: list[str] = []
        self._planned: dict[str, Planned] = {}

    def rows(self, variants: Sequence[Variant], *, imagery: bool) -> list[PlannedRow]:
        """Plan what is compared, and the baselines that need imagery."""
        found = [self._row(one) for one in variants]
        if not imagery:
            if any(one.planned for one in found):
                raise SpecError("Expected vectors of your own without a backend, got models.", fix="set `backend`")
            self.notes.append("No imagery is fetched, so there are no band statistics and no MOSAIKS.")
            return found
        mosaiks = self._baseline(MOSAIKS, [variants_of(MOSAIKS)[0].parts[0]])
        own = {part.key for one in found for part in one.planned if len(one.planned) == 1}
        if mosaiks is not None and mosaiks.planned[0].key not in own:
            found.append(mosaiks)
        plans = [one.plan.model for one in self._planned.values()]
        inputs = [(modality, sensor, model.knobs) for model in plans for modality, sensor in model.inputs]
        bands = self._baseline(BANDS, merged_inputs(inputs))
        return [*found, *([] if bands is None else [bands])]

    def _row(self, variant: Variant) -> PlannedRow:
        if variant.own is not None:
            if len(variant.own) != len(self.labels):
                raise SpecError(
                    f"Expected {len(self.labels):,} vectors of {variant.name!r}, one for each labelled place, "
                    f"got {len(variant.own):,}.",
                    fix="leave out the rows without a label",
                )
            return PlannedRow(variant.name, "model", own=variant.own)
        plans = tuple(map(self._plan, variant.parts))
        random = [one.part.card.id for one in plans if has_random_weights(one.plan)]
        if random and not self._controls:
            raise SpecError(
                f"Expected trained weights, got random ones for {', '.join(random)}.",
                why="their scores say nothing of the model",
                fix="leave out pretrained=False, or set random_controls=True to have them as controls",
            )
        return PlannedRow(variant.name, "control" if random else "model", plans)

    def _plan(self, part: Part) -> Planned:
        found = planned(part, self.labels.places, self.source)
        return self._planned.setdefault(found.key, found)

    def _baseline(self, name: str, parts: Sequence[Part]) -> PlannedRow | None:
        """Plan a baseline of all the parts that can run; a note says why if none can."""
        plans, errors = [], ["there is no imagery"]
        for part in parts:
            try:
                plans.append(self._plan(part))
            except _UNAVAILABLE as error:
                errors.append(error.headline)
        if plans:
            return PlannedRow(name, "baseline", tuple(plans))
        self.notes.append(f"The baseline {name} cannot run here: {errors[-1]}")
        return None

    def vectors(self, wanted: Sequence[PlannedRow], folder: Path, *, progress: bool) -> list[ComputedRow]:
        """Compute the vectors of all rows."""
        plans = list({one.key: one for row in wanted for one in row.planned}.values())
        done = compute(plans, self.labels.places, folder, self.source, progress=progress) if plans else []
        by_key = {one.key: computed for one, computed in zip(plans, done, strict=True)}
        return [self._joined(row, [by_key[one.key] for one in row.planned]) for row in wanted]

    def _joined(self, row: PlannedRow, computed: Sequence[Computed]) -> ComputedRow:
        if row.own is not None:
            return ComputedRow(row.name, row.role, row.own)
        if row.name == BANDS and row.role == "baseline":
            each = [_filled(statistics(one.vectors, channels_of(one.part.card))) for one in computed]
            together = np.concatenate(each, axis=1)
            lost = np.all([np.isnan(one.vectors).any(axis=1) for one in computed], axis=0)
            together[lost] = np.nan
            return ComputedRow(row.name, row.role, together, tuple(computed))
        random = [one.part.card.id for one in computed if one.is_random]
        if random and not self._controls:  # of a card whose weights are always random
            raise SpecError(
                f"Expected trained weights, got random ones for {', '.join(random)}.",
                fix="set random_controls=True to have them as controls",
            )
        role: Role = "control" if random else row.role
        return ComputedRow(row.name, role, np.concatenate([one.vectors for one in computed], axis=1), tuple(computed))


def _filled(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Replace rows of NaN by the mean of the others: one kind of imagery is missing there."""
    known = np.isfinite(x).all(axis=1)
    filled = np.tile(x[known].mean(axis=0) if known.any() else np.zeros(x.shape[1]), (len(x), 1))
    filled[known] = x[known]
    return filled
