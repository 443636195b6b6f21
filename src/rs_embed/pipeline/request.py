"""Requests as data: a request written to JSON and read back is equal to the original."""

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
from rs_embed.embedders.licences import licence_ids
from rs_embed.errors import RSEmbedError, SpecError
from rs_embed.providers.base import Provider

Backend = str | Path | Provider
"""A backend's name, a path to rasters, or a provider object."""
Sensors = SensorSpec | Mapping[str, SensorSpec] | None
Modalities = str | Sequence[str] | None
AcceptLicence = str | Sequence[str] | None
"""Ids of licences, as a list or joined by commas."""
Bands = Sequence[str] | Mapping[str, Sequence[str]] | None
KnobValue = str | int | float | bool | Path | Sequence[int] | Sequence[str] | None


class Unvalidated:
    """Marks a field that pydantic must not validate; the code that uses the value checks it."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: object) -> CoreSchema:
        """Accept any value."""
        return core_schema.any_schema()


def one_of(choices: object, name: str) -> BeforeValidator:
    """Return a validator whose error lists the choices."""

    def check(value: object) -> object:
        require_choice(name, value, get_args(choices))
        return value

    return BeforeValidator(check)


def canonical(value: object) -> object:
    """Convert lists to tuples, mappings to dictionaries and paths to text, so that equivalent requests are equal."""
    if isinstance(value, Mapping):
        return {name: canonical(one) for name, one in value.items()}
    if isinstance(value, Path):
        return str(value)
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else value


class RequestBase(BaseModel):
    """The part of a request that does not depend on the model. Errors quote a field's `title` as what is expected."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True, extra="forbid", arbitrary_types_allowed=True, protected_namespaces=()
    )

    output: Annotated[OutputSpec, Field(title="an OutputSpec", examples=["OutputSpec.pooled() or .grid()"])] = (
        OutputSpec.pooled()
    )
    backend: Annotated[Backend, Unvalidated] = "auto"
    sensor: Annotated[
        Sensors,
        AfterValidator(canonical),
        Field(title="a SensorSpec, or a mapping modality -> SensorSpec", examples=["leave it out for the card's own"]),
    ] = None
    """Imagery other than the card's default."""
    modality: Annotated[
        Modalities,
        AfterValidator(canonical),
        Field(
            title="the name of a modality",
            examples=['for example modality="s2"'],
        ),
    ] = None
    """Inputs to use. `None` selects the modality that `sensor` fits or `bands` names, else the card's default. May
    include names of the card's `place_modalities`."""
    bands: Annotated[
        Bands,
        AfterValidator(canonical),
        Field(title="a list of bands", examples=['for example bands=["B2", "B3", "B4"]']),
    ] = None
    """A subset of the bands of the modality; for several modalities, a mapping modality -> bands."""
    input_prep: Annotated[InputPrep, one_of(InputPrep, "input_prep")] = "auto"
    device: Annotated[str, Unvalidated] = "auto"
    precision: Annotated[Precision, one_of(Precision, "precision")] = "fp32"
    accept_licence: Annotated[
        AcceptLicence,
        AfterValidator(licence_ids),
        Field(title="ids of licences", examples=['for example accept_licence="olmoearth-artifact"']),
    ] = ()
    """Ids of the licences that the user accepts, in addition to those of `RS_EMBED_ACCEPT_LICENCE`."""

    if not TYPE_CHECKING:  # type checkers use the signature that pydantic derives from the fields

        def __init__(self, **given: object) -> None:
            try:
                super().__init__(**given)
            except ValidationError as error:
                raise self._spec_error(error) from None

    @classmethod
    def _spec_error(cls, error: ValidationError) -> RSEmbedError:
        """Turn pydantic's first complaint into an error of this package."""
        first = error.errors(include_url=False)[0]
        raised, name = first.get("ctx", {}).get("error"), str(first["loc"][0]) if first["loc"] else ""
        if isinstance(raised, RSEmbedError):
            return raised
        field = cls.model_fields.get(name)
        if field is None:
            return SpecError(f"Expected a known field, got {name!r}.", fix=did_you_mean(name, cls.model_fields))
        example = field.examples[0] if field.examples else "leave it out for the default"
        return SpecError(f"Expected {field.title or name}, got {short(first['input'])}.", fix=str(example))

    @field_serializer("backend")
    def _as_text(self, backend: Backend) -> str:
        if isinstance(backend, Path):
            return str(backend.absolute())
        if isinstance(backend, str):
            return backend
        raise SpecError(
            _NOT_A_NAME.format("backend", short(backend)),
            fix="pass the backend's name, and configure it by its RS_EMBED_* variables",
        )

    def to_json(self) -> str:
        """Return the request as JSON.

        Raises:
            SpecError: The model or the backend is an object, which JSON cannot hold.
        """
        try:
            return json.dumps(self.model_dump(mode="json"))
        except PydanticSerializationError as error:  # pydantic wraps our error
            raise error.__cause__ or error from None

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a request that `to_json` wrote.

        Raises:
            SpecError: The text is not a valid request.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise cls._spec_error(error) from None


_NOT_A_NAME = "Expected the {} as a name, which JSON can hold, got {}."


class EmbeddingRequest(RequestBase):
    """A request to one model. Together with places it becomes a `rs_embed.Plan`.

    >>> request = EmbeddingRequest(model_id="mosaiks_rcf", backend="sample")
    >>> EmbeddingRequest.from_json(request.to_json()) == request
    True
    """

    model_id: Annotated[str | ModelCard, Unvalidated]
    """An id or alias from the catalog, or a `ModelCard` of your own."""
    knobs: Annotated[Mapping[str, object], AfterValidator(canonical)] = {}
    """Knobs given by keyword. Environment variables and defaults are added when the request is planned."""

    @field_serializer("model_id")
    def _as_id(self, model: str | ModelCard) -> str:
        if isinstance(model, str):
            return lasting_id(model)
        raise SpecError(_NOT_A_NAME.format("model", "a card"), fix="pass the card again where you read the request")
