"""What is asked for, as data: written down as JSON and read back, it is the same request."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_serializer,
)
from pydantic_core import CoreSchema, PydanticSerializationError, core_schema

from rs_embed.core.bands import did_you_mean
from rs_embed.core.checks import require_choice, short
from rs_embed.core.specs import InputPrep, OutputSpec, Precision, SensorSpec
from rs_embed.embedders.card import ModelCard, lasting_id
from rs_embed.errors import RSEmbedError, SpecError
from rs_embed.providers.base import Provider

Backend = str | Path | Provider
"""A backend's name, a path to rasters, or a provider object."""
Sensors = SensorSpec | Mapping[str, SensorSpec] | None
Modalities = str | Sequence[str] | None
Bands = Sequence[str] | Mapping[str, Sequence[str]] | None
KnobValue = str | int | float | bool | Path | Sequence[int] | Sequence[str] | None


class AsGiven:
    """Of a field: who uses it checks it."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: object) -> CoreSchema:
        """Anything."""
        return core_schema.any_schema()


def one_of(choices: object, name: str) -> BeforeValidator:
    """A check that names the choices."""

    def check(value: object) -> object:
        require_choice(name, value, get_args(choices))
        return value

    return BeforeValidator(check)


def settled(value: object) -> object:
    """Lists as tuples, mappings as dictionaries, paths as text: what means the same is equal."""
    if isinstance(value, Mapping):
        return {name: settled(one) for name, one in value.items()}
    if isinstance(value, Path):
        return str(value)
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else value


class RequestBase(BaseModel):
    """What is asked of one model, or of several alike. A field's `title` says what is expected, for errors."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True, extra="forbid", arbitrary_types_allowed=True, protected_namespaces=()
    )

    output: Annotated[OutputSpec, Field(title="an OutputSpec", examples=["OutputSpec.pooled() or .grid()"])] = (
        OutputSpec.pooled()
    )
    backend: Annotated[Backend, AsGiven] = "auto"
    sensor: Annotated[
        Sensors,
        AfterValidator(settled),
        Field(title="a SensorSpec, or a mapping modality -> SensorSpec", examples=["leave it out for the card's own"]),
    ] = None
    """Other imagery than the card's default."""
    modality: Annotated[
        Modalities,
        AfterValidator(settled),
        Field(
            title="the name of a modality",
            examples=['for example modality="s2"'],
        ),
    ] = None
    """`None`: what `sensor` fits or `bands` names, else the card's default. Names of the card's `place_modalities` may
    stand among them."""
    bands: Annotated[
        Bands,
        AfterValidator(settled),
        Field(title="a list of bands", examples=['for example bands=["B2", "B3", "B4"]']),
    ] = None
    """Some of a modality's; of several modalities, a mapping modality -> names."""
    input_prep: Annotated[InputPrep, one_of(InputPrep, "input_prep")] = "auto"
    device: Annotated[str, AsGiven] = "auto"
    precision: Annotated[Precision, one_of(Precision, "precision")] = "fp32"

    if not TYPE_CHECKING:  # who checks types knows the fields

        def __init__(self, **given: object) -> None:
            try:
                super().__init__(**given)
            except ValidationError as error:
                raise self._refused(error) from None

    @classmethod
    def _refused(cls, error: ValidationError) -> RSEmbedError:
        """The first thing that is wrong, in words."""
        first = error.errors(include_url=False)[0]
        raised, name = first.get("ctx", {}).get("error"), str(first["loc"][0]) if first["loc"] else ""
        if isinstance(raised, RSEmbedError):
            return raised
        field = cls.model_fields.get(name)
        if field is None:
            return SpecError(f"Expected a known field, got {name!r}.", fix=did_you_mean(name, cls.model_fields))
        example = field.examples[0] if field.examples else "leave it out"
        return SpecError(f"Expected {field.title or name}, got {short(first['input'])}.", fix=str(example))

    @field_serializer("backend")
    def _as_text(self, backend: Backend) -> str:
        if isinstance(backend, Path):
            return str(backend.absolute())
        if isinstance(backend, str):
            return backend
        raise SpecError(
            _OBJECT.format("backend", short(backend)), fix="name it, and set it by its RS_EMBED_* variables"
        )

    def to_json(self) -> str:
        """The request as JSON.

        Raises:
            SpecError: The model or the backend was given as an object, which no file can hold.
        """
        try:
            return json.dumps(self.model_dump(mode="json"))
        except PydanticSerializationError as error:  # around ours
            raise error.__cause__ or error from None

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The request that `to_json` has written.

        Raises:
            SpecError: It is none.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise cls._refused(error) from None


_OBJECT = "Expected the {} by its name, to write it down, got {}."


class EmbeddingRequest(RequestBase):
    """What is asked of one model. With places it becomes a `rs_embed.Plan`.

    >>> request = EmbeddingRequest(model_id="mosaiks_rcf", backend="sample")
    >>> EmbeddingRequest.from_json(request.to_json()) == request
    True
    """

    model_id: Annotated[str | ModelCard, AsGiven]
    """Id or alias of the catalog, or a card of one's own."""
    knobs: Annotated[Mapping[str, object], AfterValidator(settled)] = {}
    """As given by keyword; variables and defaults are read when it is planned."""

    @field_serializer("model_id")
    def _as_id(self, model: str | ModelCard) -> str:
        if isinstance(model, str):
            return lasting_id(model)
        raise SpecError(_OBJECT.format("model", "a card"), fix="pass the card again where the request is read")
