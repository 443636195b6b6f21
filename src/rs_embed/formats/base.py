"""The data that every writer gets: the rows of a table, and the header shared by all files of a run."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from pydantic import JsonValue, TypeAdapter, ValidationError

from rs_embed.core.checks import require_choice
from rs_embed.core.specs import SpatialSpec, TemporalSpec
from rs_embed.embedding.embedding import Embedding
from rs_embed.errors import SpecError, StorageError
from rs_embed.places.kept import KeptRow

Dtype = Literal["float32", "float16", "int8"]
"""Type in which vectors are stored. int8 has a factor per row: `value = int8 * scale`."""


@dataclass(frozen=True)
class Row:
    """One row of the user's table, with its embedding or its error."""

    index: int
    """Index in the user's table, from 0."""
    id: str
    """The user's id of the place."""
    spatial: SpatialSpec | None
    window: TemporalSpec | None
    embedding: Embedding | None
    """The embedding; `None` if the row failed."""
    error: str | None = None
    """The error, if the row failed: `"NoImagery: Expected ..., got ..."`."""
    stage: str | None = None
    """The stage that failed: "fetch", "prepare" or "encode"."""
    kept: KeptRow = field(default_factory=KeptRow)
    """Other columns of the user's table."""

    @property
    def status(self) -> Literal["ok", "failed"]:
        """Whether there is an embedding: "ok" or "failed"."""
        return "failed" if self.embedding is None else "ok"


@dataclass(frozen=True)
class RunHeader:
    """The facts shared by all files of one model in one run, stored in each of them.

    They are written as `emb:*` fields of the STAC embeddings extension where it defines them, else as `rs_embed:*`.
    """

    model_id: str
    card_revision: int
    dim: int
    """Length of a vector, or number of channels of a grid."""
    output: Literal["pooled", "grid"]
    created: str
    """Start of the run, ISO 8601, UTC."""
    weights: str | None = None
    """Identity of the weights, as in `Meta.weights`; `None` if they are not loaded yet."""
    weights_note: str | None = None
    """A warning to display with the values."""
    title: str = ""
    model_url: str = ""
    """URL of the model's description or weights (`emb:model`)."""
    licence: str = ""
    """Licence of the weights."""
    publications: tuple[str, ...] = ()
    """DOIs or citations of the model (`sci:publications`)."""
    dtype: Dtype = "float32"
    source_data: tuple[str, ...] = ()
    """Collections of the imagery, such as `COPERNICUS/S2_SR_HARMONIZED`."""
    gsd_m: float | None = None
    """Requested ground size of an input pixel, metres."""
    chip_size_px: tuple[int, int] | None = None
    """Height and width of a chip, pixels, if all chips have the same."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Package -> version."""
    extra: Mapping[str, JsonValue] = field(default_factory=dict)
    """Further facts of the run (knobs, device, precision), written as `rs_embed:<name>`."""

    def __post_init__(self) -> None:
        require_choice("dtype", self.dtype, get_args(Dtype))

    def to_json(self) -> str:
        """Return every field as canonical JSON."""
        return json.dumps(_ADAPTER.dump_python(self, mode="json"), sort_keys=True, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "RunHeader":
        """Read a header that `to_json` wrote; fields added by later versions are ignored.

        Raises:
            StorageError: The text is not a header.
        """
        try:
            return _ADAPTER.validate_json(text)
        except (ValidationError, SpecError) as error:
            raise StorageError(
                f"Expected the header of an rs_embed export, got another text ({error}).",
                fix="pass a file that export_embeddings wrote",
            ) from error


_ADAPTER: TypeAdapter[RunHeader] = TypeAdapter(RunHeader)
