"""What every writer is given: the rows of a table, and the header that all of its files share."""

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
"""How vectors are stored. int8 has a factor per row: `value = int8 * scale`."""


@dataclass(frozen=True)
class Row:
    """One row of the user's table, done or failed."""

    index: int
    """Its number in the user's table, from 0."""
    id: str
    """The user's own name for it."""
    spatial: SpatialSpec | None
    window: TemporalSpec | None
    embedding: Embedding | None
    """`None` where it failed."""
    error: str | None = None
    """Why it failed: `"NoImagery: Expected ..., got ..."`."""
    stage: str | None = None
    """Where it failed: "fetch", "prepare" or "encode"."""
    kept: KeptRow = field(default_factory=KeptRow)
    """Other columns of the user's table."""

    @property
    def status(self) -> Literal["ok", "failed"]:
        """Whether there is an embedding."""
        return "failed" if self.embedding is None else "ok"


@dataclass(frozen=True)
class RunHeader:
    """What all files of one model in one run say about themselves. Goes into every file, so a file can travel alone.

    Written as the `emb:*` fields of the STAC embeddings extension where it has a word, as `rs_embed:*` elsewhere.
    """

    model_id: str
    card_revision: int
    dim: int
    """Length of a vector, or channels of a grid."""
    output: Literal["pooled", "grid"]
    created: str
    """ISO 8601, UTC; of the run, not of the file."""
    weights: str | None = None
    """Identity of the weights, as in `Meta.weights`; `None` where not loaded yet."""
    weights_note: str | None = None
    """A warning that must travel with the numbers."""
    title: str = ""
    model_url: str = ""
    """Where the model is described or its weights lie (`emb:model`)."""
    licence: str = ""
    """Of the weights."""
    publications: tuple[str, ...] = ()
    """DOIs or citations of the model (`sci:publications`)."""
    dtype: Dtype = "float32"
    source_data: tuple[str, ...] = ()
    """Shared sensor names of the imagery, such as `COPERNICUS/S2_SR_HARMONIZED`."""
    gsd_m: float | None = None
    """Ground size of an input pixel that the model is asked with, metres."""
    chip_size_px: tuple[int, int] | None = None
    """Height and width of a chip, where all have the same."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Packages that took part."""
    extra: Mapping[str, JsonValue] = field(default_factory=dict)
    """Anything else to say of the run (knobs, device, precision); written as `rs_embed:<name>`."""

    def __post_init__(self) -> None:
        require_choice("dtype", self.dtype, get_args(Dtype))

    def to_json(self) -> str:
        """Every field, as canonical JSON."""
        return json.dumps(_ADAPTER.dump_python(self, mode="json"), sort_keys=True, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "RunHeader":
        """What `to_json` wrote; fields that a later version added are left out.

        Raises:
            StorageError: It is not such a text.
        """
        try:
            return _ADAPTER.validate_json(text)
        except (ValidationError, SpecError) as error:
            raise StorageError(
                f"Expected the header of an export of rs_embed, got another text ({error}).",
                fix="give a file that export_embeddings wrote",
            ) from error


_ADAPTER: TypeAdapter[RunHeader] = TypeAdapter(RunHeader)
