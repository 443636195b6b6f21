"""`RS_EMBED_*` variables and their keyword forms. A provider defines its own in its `settings.py`.

Nothing else reads the environment.
"""

import os
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from rs_embed.core import hints as _hints
from rs_embed.core.bands import did_you_mean
from rs_embed.core.checks import short
from rs_embed.core.plugins import load_plugins
from rs_embed.core.specs import Sampling
from rs_embed.errors import KnobError

PREFIX = "RS_EMBED_"


_KNOWN: set[str] = set()
"""The variables of every family that is imported."""
_HOMES = (
    "rs_embed.embedders.catalog",
    "rs_embed.providers.earthengine.settings",
    "rs_embed.providers.published.settings",
    "rs_embed.providers.stac.settings",
)
"""Modules that define further families: imported when a variable is not known yet."""


class Knobs(BaseModel):
    """Options that a user may set. Each family is a frozen subclass with its own `prefix`; use `read` to make one.

    A field `img` under the prefix `RS_EMBED_THOR_` is the variable `RS_EMBED_THOR_IMG` and the keyword `img`.
    Precedence: keyword, then variable, then the field's default.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())
    prefix: ClassVar[str] = PREFIX
    """Prefix of the family's variables."""
    SYNONYMS: ClassVar[Mapping[str, str]] = {}
    """Second name -> field, as keyword and as variable."""
    NONE_IS: ClassVar[Mapping[str, str]] = {}
    """Field -> what the keyword `None` means, where the authors give it a meaning; else it counts as unset."""
    HINTS: ClassVar[Mapping[str, str]] = {}
    """Keyword that does not exist -> what to use instead."""
    checked: ClassVar[str] = PREFIX
    """Variables with this prefix are checked for spelling whenever the family is read."""

    @classmethod
    def read(cls, keywords: Mapping[str, object] | None = None, beside: Collection[str] = ()) -> Self:
        """Read the knobs of one call, from keywords and the environment.

        Args:
            keywords: Keyword -> value; `None` counts as unset.
            beside: Other keywords of the public functions, so that a misspelling of one is recognised.

        Raises:
            KnobError: A keyword is unknown, or a keyword or variable has an invalid value.
        """
        words = cls._words()
        for name in keywords or {}:
            if name not in words:
                raise KnobError(
                    f"Expected a known keyword, got {name!r}.",
                    known=", ".join(sorted(words)),
                    fix=_instead(name, cls.HINTS, [*words], beside),
                )
        stated = {name: cls.NONE_IS.get(name) if value is None else value for name, value in (keywords or {}).items()}
        given = {name: value for name, value in stated.items() if value is not None}
        environment = set_variables()
        check_environment(environment, cls.checked)
        try:
            return cls.model_validate(cls._by_field(given, environment))
        except ValidationError as error:
            raise _knob_error(cls, error, given) from None

    @classmethod
    def _by_field(cls, keywords: Mapping[str, object], environment: Mapping[str, str]) -> dict[str, object]:
        """Return the value of each field that is set, by a keyword or else by a variable."""
        values: dict[str, object] = {}
        for names, source in ((cls._words(), keywords), (cls.variables(), environment)):
            stated: dict[str, str] = {}
            for name, field in names.items() if source else ():
                if name not in source or field in values:
                    continue
                if field in stated:
                    raise KnobError(
                        f"Expected one of {stated[field]} and {name}, which mean the same, got both.",
                        fix=f"leave {name} out",
                    )
                stated[field] = name
            for field, name in stated.items():
                values[field] = source[name]
        return values

    @classmethod
    @cache
    def _words(cls) -> Mapping[str, str]:
        """Keyword -> field name."""
        return {name: name for name in cls.model_fields} | dict(cls.SYNONYMS)

    @classmethod
    @cache
    def variables(cls) -> Mapping[str, str]:
        """Variable name -> field name."""
        return {f"{cls.prefix}{name}".upper(): field for name, field in cls._words().items()}

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: object) -> None:
        """Record the variables of a family when it is defined."""
        super().__pydantic_init_subclass__(**kwargs)
        _KNOWN.update(cls.variables())


def _instead(name: str, hints: Mapping[str, str], words: Sequence[str], beside: Collection[str]) -> str:
    """Return the fix for an unknown keyword."""
    if name in hints:
        return hints[name]
    return f"{name} is not for this call; leave it out" if name in beside else did_you_mean(name, [*words, *beside])


class ModelKnobs(Knobs):
    """The knobs of every model."""

    HINTS: ClassVar[Mapping[str, str]] = _hints.HINTS
    LATER: ClassVar[frozenset[str]] = frozenset()
    """Knobs added after the family's first fingerprints: they are left out of fingerprints while unset."""

    modality: Annotated[str | None, Field(description="modalities to use, such as s2+s1")] = None
    min_valid_fraction: Annotated[
        float, Field(ge=0, le=1, description="smallest share of valid pixels that a chip may have")
    ] = 0.0
    min_token_valid: Annotated[
        float, Field(ge=0, le=1, description="leave out tokens with no valid pixel, or a smaller share")
    ] = 0.0
    fetch_workers: Annotated[int, Field(ge=1, le=64, description="chips fetched at the same time")] = 8


class WeightsKnobs(ModelKnobs):
    """The knobs of models with trained weights."""

    model_key: Annotated[str | None, Field(description="backbone to run instead of the card's")] = None
    ckpt: Annotated[Path | None, Field(description="checkpoint file to use (.pt, .pth, .safetensors)")] = None
    pretrained: Annotated[bool, Field(description="0: seeded random weights, recorded in the metadata")] = True


def _several(value: object) -> object:
    """Accept 3, "3,7,11" and [3, 7, 11] alike."""
    if isinstance(value, str):
        return value.split(",")
    return (value,) if isinstance(value, int) else value


def _each_once(numbers: tuple[int, ...] | None) -> tuple[int, ...] | None:
    if numbers is not None and (not numbers or len(set(numbers)) < len(numbers)):
        raise ValueError("one or more different blocks")
    return numbers


class LayersKnobs(WeightsKnobs):
    """The knobs of transformers: tokens may be taken after any block."""

    SYNONYMS: ClassVar[Mapping[str, str]] = {"layer": "layers"}
    HINTS: ClassVar[Mapping[str, str]] = {
        **WeightsKnobs.HINTS,
        "out_indices": "layers=[2, 5, 8, 11] returns the tokens of those blocks, counted from 0",
    }
    LATER: ClassVar[frozenset[str]] = frozenset({"layers"})

    layers: Annotated[
        Annotated[tuple[int, ...], BeforeValidator(_several), AfterValidator(_each_once)] | None,
        Field(
            description="blocks whose tokens are returned, from 0, or backwards from -1, as in 3,7,11; unset: the last"
        ),
    ] = None


class SeriesKnobs(WeightsKnobs):
    """The knobs of models that take several dates."""

    frames: Annotated[int, Field(ge=1, le=366, description="largest number of dated frames from the window")] = 8
    temporal_sampling: Annotated[
        Sampling, Field(description="composite: one per sub-window; month: one per month; scenes: the clearest scenes")
    ] = "composite"


class PlaceKnobs(WeightsKnobs):
    """The knobs of models that take only the location."""

    cell_m: Annotated[float, Field(gt=0, le=100_000, description="side of a grid cell, metres")] = 250.0


class LibrarySettings(Knobs):
    """Settings that apply to every model."""

    cache_dir: Annotated[Path | None, Field(description="folder for weights; unset: the hub's own cache")] = None
    chip_cache: Annotated[Path | None, Field(description="folder for fetched chips; unset: no chip cache")] = None
    chip_cache_gb: Annotated[float, Field(gt=0, description="maximum size of the chip cache, GB")] = 20.0
    kernels: Annotated[
        Literal["auto", "packed", "torch"],
        Field(description="matrix products on the CPU: packed (oneDNN), torch, or auto (by processor)"),
    ] = "auto"
    memory_gb: Annotated[float, Field(gt=0, description="most memory for imagery waiting for the network, GB")] = 4.0
    keep_converted: Annotated[
        bool, Field(description="0: do not keep the converted copy of weights that speeds up the next start")
    ] = True
    batch: Annotated[
        int | None, Field(ge=1, le=4096, description="network inputs encoded at once; unset: as many as memory allows")
    ] = None
    checkpoint_s: Annotated[float, Field(ge=0, description="seconds between checkpoints of an export")] = 60.0
    accept_licence: Annotated[str | None, Field(description="licences that you accept, by id, separated by commas")] = (
        None
    )
    offline: Annotated[bool, Field(description="1: never contact the hub; use the cache or fail")] = False


class RaySettings(Knobs):
    """Settings of the Ray engine; here, because the engine's own modules import torch."""

    prefix = checked = "RS_EMBED_RAY_"

    workers: Annotated[
        int | None, Field(ge=1, description="workers that run models; unset: one per GPU, or per 2 cores")
    ] = None
    worker_cpus: Annotated[float, Field(gt=0, le=256, description="cores and torch threads of each worker")] = 1.0
    fetch_cpus: Annotated[float, Field(gt=0, le=16, description="cores of each task that fetches a batch")] = 0.25
    ahead: Annotated[int, Field(ge=1, le=64, description="batches of chips fetched ahead per unit")] = 4
    batch_mb: Annotated[float, Field(gt=0, le=128, description="largest size of a batch, MB of pixels")] = 64.0
    tries: Annotated[int, Field(ge=1, le=10, description="workers that may die on a unit before it fails")] = 3
    start_s: Annotated[float, Field(gt=0, description="seconds to wait for the first worker")] = 300.0
    lease_s: Annotated[float, Field(gt=0, description="seconds until the permits of a dead process expire")] = 15.0


def set_variables() -> dict[str, str]:
    """Return this library's variables that are set, with their values; an empty one counts as unset."""
    # Names first: most variables are not ours, and reading a value decodes it.
    ours = {name.upper(): os.environ[name] for name in sorted(os.environ) if name.upper().startswith(PREFIX)}
    return {name: value for name, value in ours.items() if value.strip()}


def take_over(variables: Mapping[str, str]) -> None:
    """Set this library's variables to those of the process that sent us work."""
    for name in set_variables():
        os.environ.pop(name, None)
    os.environ.update(variables)


def check_environment(environment: Mapping[str, str], prefix: str = PREFIX) -> None:
    """Refuse a misspelt variable, which would have no effect.

    Raises:
        KnobError: A variable starts with `prefix` but is not a knob of any family, nor of an installed plugin.
    """
    stated = [variable for variable in environment if variable.startswith(prefix)]
    if _KNOWN.issuperset(stated):
        return
    for home in _HOMES:
        import_module(home)
    if not _KNOWN.issuperset(stated):
        load_plugins()
    for variable in stated:
        if variable not in _KNOWN:
            removed = next((why for word, why in _hints.REMOVED.items() if variable.endswith(f"_{word.upper()}")), None)
            raise KnobError(
                f"Expected a known variable, got {variable} in the environment.",
                fix=f"{removed or did_you_mean(variable, sorted(_KNOWN))} (or unset {variable})",
            )


def _knob_error(family: type[Knobs], error: ValidationError, keywords: Mapping[str, object]) -> KnobError:
    """Describe the first invalid value: where it is set, what it is, what was expected."""
    first = error.errors(include_url=False)[0]
    name = str(first["loc"][0]) if first["loc"] else "?"
    word = next((word for word in keywords if family.SYNONYMS.get(word, word) == name), None)
    variables = [variable for variable, field in family.variables().items() if field == name]
    stated = set_variables()
    variable = next((v for v in variables if v in stated), variables[0] if variables else name)
    place, value = (word, keywords[word]) if word else (variable, stated.get(variable))
    said = first["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    wanted = "a path" if first["type"] == "path_type" else said
    return KnobError(
        f"Expected {place} to be {wanted}, got {short(value)}.",
        fix=f"change or leave out the keyword {word}" if word else f"change or unset {variable}",
    )


def describe_knobs(family: type[Knobs]) -> list[tuple[str, str, str, str]]:
    """Return one row per knob: variable, keyword, default, description (for `describe_model` and the docs)."""
    rows = []
    for variable, name in family.variables().items():
        field = family.model_fields[name]
        default: object = field.get_default(call_default_factory=True)
        text = "unset" if default is None else str(int(default)) if isinstance(default, bool) else str(default)
        word = variable.removeprefix(family.prefix).lower()
        rows.append((variable, word, text, (field.description or "") if word == name else f"another name of {name}"))
    return rows
