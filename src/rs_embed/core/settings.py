"""`RS_EMBED_*` variables and their keyword forms; a provider keeps its own in its `settings.py`.

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
"""Variables of every family that is loaded."""
_HOMES = (
    "rs_embed.embedders.catalog",
    "rs_embed.providers.earthengine.settings",
    "rs_embed.providers.stac.settings",
)
"""What defines the families beyond this module: imported where a variable is none that is known yet."""


class Knobs(BaseModel):
    """What a user may turn. One frozen subclass a family, with its own `prefix`; made by `read`.

    A field `img` under the prefix `RS_EMBED_THOR_` is the variable `RS_EMBED_THOR_IMG` and the keyword `img`.
    Precedence: keyword, then variable, then the field's default.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())
    prefix: ClassVar[str] = PREFIX
    """How the variables of the family start."""
    SYNONYMS: ClassVar[Mapping[str, str]] = {}
    """A second name -> the field that it means, as keyword and as variable."""
    NONE_IS: ClassVar[Mapping[str, str]] = {}
    """Fields whose keyword `None` is a value, by the authors' meaning of it; of others it is no value."""
    HINTS: ClassVar[Mapping[str, str]] = {}
    """A keyword that there is not -> what says the same."""
    checked: ClassVar[str] = PREFIX
    """Variables that start so are checked for spelling whenever the family is read."""

    @classmethod
    def read(cls, keywords: Mapping[str, object] | None = None, beside: Collection[str] = ()) -> Self:
        """The knobs of one call.

        Args:
            keywords: By name; `None` counts as unset.
            beside: Other words of the calls, of which a keyword may be a misspelling.

        Raises:
            KnobError: A keyword is unknown, or a keyword or variable has a bad value.
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
        """The value of each field that is set: by a keyword, else by a variable."""
        values: dict[str, object] = {}
        for names, source in ((cls._words(), keywords), (cls.variables(), environment)):
            stated: dict[str, str] = {}
            for name, field in names.items() if source else ():
                if name not in source or field in values:
                    continue
                if field in stated:
                    raise KnobError(
                        f"Expected {stated[field]} or {name}, which mean the same, got both.",
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
        """Make the variables of a family known when it is defined."""
        super().__pydantic_init_subclass__(**kwargs)
        _KNOWN.update(cls.variables())


def _instead(name: str, hints: Mapping[str, str], words: Sequence[str], beside: Collection[str]) -> str:
    """What to say in place of a keyword that there is not."""
    if name in hints:
        return hints[name]
    return f"{name} is not for this call; leave it out" if name in beside else did_you_mean(name, [*words, *beside])


class ModelKnobs(Knobs):
    """Knobs that every model has."""

    HINTS: ClassVar[Mapping[str, str]] = _hints.HINTS
    LATER: ClassVar[frozenset[str]] = frozenset()
    """Knobs that came after the fingerprints of their family: while unset, they are left out of them."""

    modality: Annotated[str | None, Field(description="what the model is fed, such as s2+s1")] = None
    min_valid_fraction: Annotated[
        float, Field(ge=0, le=1, description="refuse a chip with a smaller share of valid pixels")
    ] = 0.0
    min_token_valid: Annotated[
        float, Field(ge=0, le=1, description="leave out tokens with a smaller share of valid pixels, or none")
    ] = 0.0
    fetch_workers: Annotated[int, Field(ge=1, le=64, description="chips fetched at the same time")] = 8


class WeightsKnobs(ModelKnobs):
    """Knobs of a model with trained weights."""

    model_key: Annotated[str | None, Field(description="backbone to run instead of the card's own")] = None
    ckpt: Annotated[Path | None, Field(description="checkpoint file (.pt, .pth, .safetensors) to use")] = None
    pretrained: Annotated[bool, Field(description="0: seeded random weights, and the result says so")] = True


def _several(value: object) -> object:
    """3, "3,7,11" and [3, 7, 11] alike."""
    if isinstance(value, str):
        return value.split(",")
    return (value,) if isinstance(value, int) else value


def _each_once(numbers: tuple[int, ...] | None) -> tuple[int, ...] | None:
    if numbers is not None and (not numbers or len(set(numbers)) < len(numbers)):
        raise ValueError("one or more blocks, each once")
    return numbers


class LayersKnobs(WeightsKnobs):
    """Knobs of a transformer: tokens may be taken after any of its blocks."""

    SYNONYMS: ClassVar[Mapping[str, str]] = {"layer": "layers"}
    HINTS: ClassVar[Mapping[str, str]] = {
        **WeightsKnobs.HINTS,
        "out_indices": "layers=[2, 5, 8, 11] gives the tokens of those blocks, counted from 0",
    }
    LATER: ClassVar[frozenset[str]] = frozenset({"layers"})

    layers: Annotated[
        Annotated[tuple[int, ...], BeforeValidator(_several), AfterValidator(_each_once)] | None,
        Field(
            description="blocks whose tokens are taken, from 0, or from -1 backwards, such as 3,7,11; unset: the last"
        ),
    ] = None


class SeriesKnobs(WeightsKnobs):
    """Knobs of a model that takes several dates."""

    frames: Annotated[int, Field(ge=1, le=366, description="dated frames taken from the window, at most")] = 8
    temporal_sampling: Annotated[
        Sampling, Field(description="composite: one per sub-window; month: one per month; scenes: the clearest")
    ] = "composite"


class PlaceKnobs(WeightsKnobs):
    """Knobs of a model that is told the place alone."""

    cell_m: Annotated[float, Field(gt=0, le=100_000, description="side of a cell of a grid, metres")] = 250.0


class LibrarySettings(Knobs):
    """Settings that concern every model."""

    cache_dir: Annotated[Path | None, Field(description="where weights are kept; unset: the hub's own cache")] = None
    chip_cache: Annotated[Path | None, Field(description="folder that chips are kept in; unset: they are not")] = None
    chip_cache_gb: Annotated[float, Field(gt=0, description="size that this folder is kept under, GB")] = 20.0
    kernels: Annotated[
        Literal["auto", "packed", "torch"],
        Field(description="matrix products on the CPU: packed (oneDNN), torch, or auto by processor"),
    ] = "auto"
    memory_gb: Annotated[float, Field(gt=0, description="imagery on its way to the network, GB, at most")] = 4.0
    keep_converted: Annotated[
        bool, Field(description="0: keep no converted copy of weights, which the next start maps")
    ] = True
    batch: Annotated[
        int | None, Field(ge=1, le=4096, description="network inputs encoded at once; unset: as memory allows")
    ] = None
    checkpoint_s: Annotated[
        float, Field(ge=0, description="seconds after which an export stores what is done of a unit")
    ] = 60.0
    offline: Annotated[bool, Field(description="1: never contact the hub; use the cache or fail")] = False


class RaySettings(Knobs):
    """Settings of the Ray engine; here, as whatever lies beside it imports torch."""

    prefix = checked = "RS_EMBED_RAY_"

    workers: Annotated[int | None, Field(ge=1, description="that run models; unset: a GPU, or 2 cores, each")] = None
    worker_cpus: Annotated[float, Field(gt=0, le=256, description="cores, and threads of torch, of each")] = 1.0
    fetch_cpus: Annotated[float, Field(gt=0, le=16, description="cores of a task that fetches a batch")] = 0.25
    ahead: Annotated[int, Field(ge=1, le=64, description="batches of chips on their way to a unit")] = 4
    batch_mb: Annotated[float, Field(gt=0, le=128, description="pixels of a batch, MB, at most")] = 64.0
    tries: Annotated[int, Field(ge=1, le=10, description="workers that may die over a unit before it fails")] = 3
    start_s: Annotated[float, Field(gt=0, description="seconds to wait for a first worker")] = 300.0
    lease_s: Annotated[float, Field(gt=0, description="seconds after which a dead process's requests are over")] = 15.0


def set_variables() -> dict[str, str]:
    """The variables of this library that are set, with their values; an empty one counts as unset."""
    # Names first: most variables are not ours, and each value that is asked for is decoded.
    ours = {name.upper(): os.environ[name] for name in sorted(os.environ) if name.upper().startswith(PREFIX)}
    return {name: value for name, value in ours.items() if value.strip()}


def take_over(variables: Mapping[str, str]) -> None:
    """Make the variables of this library those of another process, which has sent us work."""
    for name in set_variables():
        os.environ.pop(name, None)
    os.environ.update(variables)


def check_environment(environment: Mapping[str, str], prefix: str = PREFIX) -> None:
    """Refuse a mistyped variable, which would have no effect.

    Raises:
        KnobError: A variable starts with `prefix` and is no knob of any family, nor of one that another package adds.
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
                f"Expected known variables, got {variable} in the environment.",
                fix=f"{removed or did_you_mean(variable, sorted(_KNOWN))} (or unset {variable})",
            )


def _knob_error(family: type[Knobs], error: ValidationError, keywords: Mapping[str, object]) -> KnobError:
    """One line a bad value: where it stands, what it is, what was wanted."""
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
    """One row a knob: variable, keyword, default, description (for `describe` and the docs)."""
    rows = []
    for variable, name in family.variables().items():
        field = family.model_fields[name]
        default: object = field.get_default(call_default_factory=True)
        text = "unset" if default is None else str(int(default)) if isinstance(default, bool) else str(default)
        word = variable.removeprefix(family.prefix).lower()
        rows.append((variable, word, text, (field.description or "") if word == name else f"another name of {name}"))
    return rows
