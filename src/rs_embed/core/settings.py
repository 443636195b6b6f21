"""`RS_EMBED_*` variables and their keyword forms. The only module that reads the environment."""

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from configparser import ConfigParser
from configparser import Error as ConfigParserError
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rs_embed.core import hints as _hints
from rs_embed.core.bands import did_you_mean
from rs_embed.core.checks import short
from rs_embed.core.specs import Sampling
from rs_embed.errors import KnobError

PREFIX = "RS_EMBED_"


class Knobs(BaseModel):
    """What a user may turn. One frozen subclass a family, with its own `prefix`; made by `read`.

    A field `img` under the prefix `RS_EMBED_THOR_` is the variable `RS_EMBED_THOR_IMG` and the keyword `img`.
    Precedence: keyword, then variable, then the field's default.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())
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
        words = [*cls.model_fields, *cls.SYNONYMS]
        for name in keywords or {}:
            if name not in words:
                raise KnobError(
                    f"Expected a known keyword, got {name!r}.",
                    known=", ".join(sorted(words)),
                    fix=_instead(name, cls.HINTS, words, beside),
                )
        stated = {name: cls.NONE_IS.get(name) if value is None else value for name, value in (keywords or {}).items()}
        given = {name: value for name, value in stated.items() if value is not None}
        check_environment(cls.checked)
        try:
            return cls.model_validate(cls._by_field(given))
        except ValidationError as error:
            raise _knob_error(cls, error, given) from None

    @classmethod
    def _by_field(cls, keywords: Mapping[str, object]) -> dict[str, object]:
        """The value of each field that is set: by a keyword, else by a variable."""
        environment, values = set_variables(), dict[str, object]()
        for field in cls.model_fields:
            words = [field, *(word for word, meant in cls.SYNONYMS.items() if meant == field)]
            variables = [f"{cls.prefix}{word}".upper() for word in words]
            for names, source in ((words, keywords), (variables, environment)):
                found = [name for name in names if name in source]
                if len(found) > 1:
                    raise KnobError(
                        f"Expected {found[0]} or {found[1]}, which mean the same, got both.",
                        fix=f"leave {found[1]} out",
                    )
                if found:
                    values[field] = source[found[0]]
                    break
        return values

    @classmethod
    def variables(cls) -> dict[str, str]:
        """Variable name -> field name."""
        names = {name: name for name in cls.model_fields} | dict(cls.SYNONYMS)
        return {f"{cls.prefix}{name}".upper(): field for name, field in names.items()}


def _instead(name: str, hints: Mapping[str, str], words: Sequence[str], beside: Collection[str]) -> str:
    """What to say in place of a keyword that there is not."""
    if name in hints:
        return hints[name]
    return f"{name} is not for this call; leave it out" if name in beside else did_you_mean(name, [*words, *beside])


class ModelKnobs(Knobs):
    """Knobs that every model has."""

    HINTS: ClassVar[Mapping[str, str]] = _hints.HINTS

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
    compile: Annotated[bool, Field(description="1: run blocks through torch.compile; slower on a CPU")] = False


class SeriesKnobs(WeightsKnobs):
    """Knobs of a model that takes several dates."""

    frames: Annotated[int, Field(ge=1, le=366, description="dated frames taken from the window, at most")] = 8
    temporal_sampling: Annotated[
        Sampling, Field(description="composite: one per sub-window; month: one per month; scenes: the clearest")
    ] = "composite"


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


class EarthEngineSettings(Knobs):
    """Settings of the Earth Engine backend."""

    prefix = checked = "RS_EMBED_GEE_"  # built by itself, it knows no model's variables

    project: Annotated[str | None, Field(description="Cloud project that requests are counted on")] = None
    host: Annotated[str, Field(description="highvolume, standard, or a URL")] = "highvolume"
    service_account: Annotated[Path | None, Field(description="key file (.json) of a service account")] = None
    concurrency: Annotated[int, Field(ge=1, le=1000, description="requests at the same time, at most")] = 20
    qps: Annotated[float | None, Field(gt=0, description="requests started per second, at most")] = None
    timeout_s: Annotated[float, Field(gt=0, le=3600, description="seconds that one request may take")] = 180.0
    total_s: Annotated[float, Field(gt=0, description="seconds after which a request is not tried again")] = 600.0
    provenance: Annotated[bool, Field(description="0: skip the list of scenes where pixels need none")] = True
    cloud_score: Annotated[float, Field(gt=0, le=1, description="clear from this Cloud Score+ on (cs_cdf)")] = 0.6
    resampling: Annotated[
        Literal["auto", "nearest", "bilinear"], Field(description="of coarser bands; auto: as each sensor needs")
    ] = "auto"


class StacSettings(Knobs):
    """Settings of the STAC backend."""

    prefix = checked = "RS_EMBED_STAC_"

    catalog: Annotated[
        str, Field(description="earth-search, earth-search-c1, planetary-computer or copernicus-dataspace")
    ] = "earth-search"
    max_scenes: Annotated[int, Field(ge=1, description="clear views after which a median or mean reads no more")] = 12
    offset: Annotated[
        float | None, Field(ge=-10_000, le=10_000, description="Sentinel-2 DN added, whatever is told")
    ] = None
    concurrency: Annotated[int, Field(ge=1, le=256, description="files read at the same time, at most")] = 24
    timeout_s: Annotated[float, Field(gt=0, le=3600, description="seconds that one request may take")] = 30.0
    total_s: Annotated[float, Field(gt=0, description="seconds after which a request is not tried again")] = 300.0
    max_items: Annotated[int, Field(ge=1, le=100_000, description="items of one window, at most")] = 2000
    cache_mb: Annotated[int, Field(ge=16, description="memory for what was read, megabytes, per process")] = 256
    on_missing: Annotated[
        Literal["skip", "raise"],
        Field(description="a scene without a readable file: left out, with a note, or an error"),
    ] = "skip"


class RaySettings(Knobs):
    """Settings of the Ray engine."""

    prefix = checked = "RS_EMBED_RAY_"

    workers: Annotated[int | None, Field(ge=1, description="that run models; unset: a GPU, or 2 cores, each")] = None
    worker_cpus: Annotated[float, Field(gt=0, le=256, description="cores, and threads of torch, of each")] = 1.0
    fetch_cpus: Annotated[float, Field(gt=0, le=16, description="cores of a task that fetches a batch")] = 0.25
    ahead: Annotated[int, Field(ge=1, le=64, description="batches of chips on their way to a unit")] = 4
    batch_mb: Annotated[float, Field(gt=0, le=128, description="pixels of a batch, MB, at most")] = 64.0
    tries: Annotated[int, Field(ge=1, le=10, description="workers that may die over a unit before it fails")] = 3
    start_s: Annotated[float, Field(gt=0, description="seconds to wait for a first worker")] = 300.0
    lease_s: Annotated[float, Field(gt=0, description="seconds after which a dead process's requests are over")] = 15.0


def _families(root: type[Knobs] = Knobs) -> Iterator[type[Knobs]]:
    for family in root.__subclasses__():
        yield family
        yield from _families(family)


def google_key_file() -> Path | None:
    """The key file that google-auth is told of."""
    named = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
    return Path(named) if named else None


_TOKEN_SERVICE = "https://planetarycomputer.microsoft.com/api/sas/v1/token"


def planetary_computer() -> tuple[str, str | None]:
    """Address of the Planetary Computer's token service, and the user's key: as its own package reads them."""
    found: dict[str, str] = {}
    try:
        lines = Path("~/.planetarycomputer/settings.env").expanduser().read_text("utf-8").splitlines()
    except (OSError, RuntimeError, UnicodeDecodeError):  # no such file, or no home
        lines = []
    for line in lines:
        name, _, value = line.strip().removeprefix("export ").partition("=")
        found[name.strip()] = value.strip().strip("\"'")
    service, key = (os.environ.get(name) or found.get(name) for name in ("PC_SDK_SAS_URL", "PC_SDK_SUBSCRIPTION_KEY"))
    return (service or _TOKEN_SERVICE).rstrip("/"), key or None


def aws_keys(profile: str | None = None) -> tuple[str, str, str] | None:
    """Key, secret and session token of an S3 service, as Amazon's own tools read them; `None`: there are none."""
    key, secret = (os.environ.get(name, "") for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"))
    if profile is None and key and secret:
        return key, secret, os.environ.get("AWS_SESSION_TOKEN", "")
    file, found = ConfigParser(interpolation=None), profile or os.environ.get("AWS_PROFILE") or "default"
    try:
        file.read(Path(os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials").expanduser(), "utf-8")
    except (ConfigParserError, OSError, RuntimeError, UnicodeDecodeError):  # no such file, no home, or something else
        return None
    of_profile = file[found] if file.has_section(found) else {}
    key, secret = (of_profile.get(name, "") for name in ("aws_access_key_id", "aws_secret_access_key"))
    return (key, secret, of_profile.get("aws_session_token", "")) if key and secret else None


def set_variables() -> dict[str, str]:
    """The variables of this library that are set, with their values; an empty one counts as unset."""
    ours = {name.upper(): value for name, value in sorted(os.environ.items()) if name.upper().startswith(PREFIX)}
    return {name: value for name, value in ours.items() if value.strip()}


def take_over(variables: Mapping[str, str]) -> None:
    """Make the variables of this library those of another process, which has sent us work."""
    for name in set_variables():
        os.environ.pop(name, None)
    os.environ.update(variables)


def check_environment(prefix: str = PREFIX) -> None:
    """Refuse a mistyped variable, which would have no effect.

    Raises:
        KnobError: A variable starts with `prefix` and is no knob of any family that is loaded.
    """
    known = {variable for family in _families() for variable in family.variables()}
    for variable in set_variables():
        if variable.startswith(prefix) and variable not in known:
            raise KnobError(
                f"Expected known variables, got {variable} in the environment.",
                fix=f"{did_you_mean(variable, known)} (or unset {variable})",
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
