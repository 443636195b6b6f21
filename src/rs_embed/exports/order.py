"""An export order: every process that gets it makes the same models from it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue

from rs_embed.core.settings import LibrarySettings, ModelKnobs
from rs_embed.embedders.card import Weights
from rs_embed.exports.engines.base import RunStamp
from rs_embed.exports.fetching.inputs import FOLDER as INPUTS
from rs_embed.exports.fetching.inputs import InputKeeper
from rs_embed.exports.fetching.reader import PlannedProvider
from rs_embed.exports.fetching.shared_reads import SharedReads
from rs_embed.exports.object_store import Remote
from rs_embed.exports.region.store import write_metadata
from rs_embed.exports.request import ExportRequest, models_facts, versions
from rs_embed.exports.unit_tables import RUN
from rs_embed.exports.unit_writer import ModelExport
from rs_embed.exports.work import Work
from rs_embed.formats.base import RunHeader
from rs_embed.providers.base import Provider

if TYPE_CHECKING:
    from rs_embed.pipeline.plan import Job


@dataclass(frozen=True)
class ExportOrder:
    """See `rs_embed.exports.engines.base.Order`."""

    request: ExportRequest
    where: Path | Remote
    fetch_workers: int = ModelKnobs.model_fields["fetch_workers"].default
    """Number of chips fetched at the same time, from the models' knobs."""
    verify: bool = False
    """Whether every byte of finished files is compared with the records."""

    def set_up(self, device: str) -> "ExportSetup":
        """See `Order`."""
        request = self.request.model_copy(update={"device": device})
        return ExportSetup(request, request.jobs(), self.verify)


@dataclass(frozen=True)
class ExportSetup:
    """See `rs_embed.exports.engines.base.Setup`."""

    request: ExportRequest
    jobs: "Mapping[str, Job]"
    """By the name of the model's folder."""
    verify: bool = False

    def facts(self) -> dict[str, JsonValue]:
        """See `Setup`."""
        if not self.request.share_reads:
            return models_facts(self.jobs)
        return models_facts({name: replace(job, provider=SharedReads(job.provider)) for name, job in self.jobs.items()})

    def work(self, stamp: RunStamp, folder: Path) -> Work:
        """See `Setup`."""
        models = tuple(self._model(folder / name, job, stamp) for name, job in self.jobs.items())
        readers: list[Callable[[Provider], PlannedProvider]] = [SharedReads] if self.request.share_reads else []
        readers += [partial(InputKeeper, folder=folder / INPUTS)] if self.request.save_inputs else []
        checkpoint_s = LibrarySettings.read().checkpoint_s
        given, is_map = (
            (self.request.grid_format, self.request.on_error, tuple(readers)),
            self.request.region is not None,
        )
        return Work(folder, models, *given, verify=self.verify, checkpoint_s=checkpoint_s, sparing=is_map)

    def _model(self, folder: Path, job: "Job", stamp: RunStamp) -> ModelExport:
        card, network = job.request.card, job.embedder.network
        accepted = ",".join(one.id for one in job.request.to_accept)
        header = RunHeader(
            model_id=card.id,
            card_revision=card.revision,
            dim=job.embedder.readout.width(self.request.output),
            output=self.request.output.kind,
            created=stamp.created,
            weights=network.weights_id,
            weights_note=network.note,
            title=card.title,
            model_url=f"https://huggingface.co/{card.weights.hub}" if isinstance(card.weights, Weights) else "",
            licence=card.weights.licence if card.weights else card.licence,
            publications=(card.citation,),
            dtype=self.request.dtype,
            source_data=tuple(dict.fromkeys(sensor.collection for _, sensor in job.request.inputs)),
            gsd_m=job.request.scale_m,
            versions=versions(),
            extra={
                "knobs": job.embedder.knobs_in_force(),
                "device": str(job.embedder.device),
                "precision": job.request.precision,
                "input_prep": job.prep,
                **({"accepted_licence": accepted} if accepted else {}),
                **(self._map_facts(job) if self.request.region is not None else {}),
                RUN: stamp.fingerprint,
            },
        )
        store = self.request.store(folder, job, stamp.fingerprint)
        if store.tiles is not None:
            write_metadata(folder, store.tiles.grid, header, verify=self.verify)
        return ModelExport(job, header, store, self.request.region)

    def _map_facts(self, job: "Job") -> dict[str, JsonValue]:
        """What the metadata of each embedding say in a table, and a map has to say once."""
        bands: list[JsonValue] = [
            f"{modality.name}:{band}" for modality, sensor in job.request.inputs for band in sensor.bands
        ]
        placed = job.embedder.readout.placed
        return {"bands": bands, **({"debiased": self.request.output.debias == "position"} if placed else {})}
