"""What works on this machine and what does not, in words. Asks each service one thing.

Says whether credentials are there, never what they are.
"""

import json
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console

import rs_embed
from rs_embed.cli.tables import table
from rs_embed.core.settings import LibrarySettings, check_environment, describe_knobs, set_variables
from rs_embed.embedders.card import ModelCard, PackagedWeights, Weights
from rs_embed.embedders.catalog import CARDS
from rs_embed.errors import MissingDependency, NotConfigured, RSEmbedError
from rs_embed.providers.auto import is_mentioned
from rs_embed.providers.common.retry import Backoff, Waits
from rs_embed.providers.earthengine.provider import EarthEngine
from rs_embed.providers.earthengine.settings import EarthEngineSettings
from rs_embed.providers.published.provider import PublishedEmbeddings
from rs_embed.providers.published.settings import PublishedSettings
from rs_embed.providers.stac.provider import Stac
from rs_embed.providers.stac.settings import StacSettings, aws_keys, planetary_computer
from rs_embed.redact import redacted

PATIENCE_S = 30.0
"""For the one request: the user is waiting."""
ENOUGH_GB = 1.0
"""Free space that the folder for weights should have."""
EXTRAS: dict[str, tuple[str, ...]] = {
    "plot": ("matplotlib",),
    "export": ("pyarrow", "geopandas", "zarr"),
    "coords": ("tokenizers",),
    "stac": ("pystac_client",),
    "terratorch": ("terratorch",),
    "olmoearth": ("olmoearth_pretrain_minimal",),
    "ray": ("ray",),
    "search": ("faiss",),
}
"""Extra -> the modules that it brings."""
SMALLEST = "galileo_1_0_nano"
BUNDLED = "mosaiks_rcf"
STORES = "published embeddings"
TRY = "rs-embed embed {} --backend sample --output grid --out grid.tif"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    ok: bool
    """Whether it works, or is not set up, which is no fault."""
    found: str
    fix: str | None = None
    set_up: bool = True

    @property
    def works(self) -> bool:
        """Whether it can be used now."""
        return self.ok and self.set_up


def _impatient() -> Stac:
    waits = Waits(Backoff(first_s=0.5, tries=2))
    return Stac(timeout_s=PATIENCE_S / 2, total_s=PATIENCE_S, waits=waits)


def _impatient_stores() -> PublishedEmbeddings:
    waits = Waits(Backoff(first_s=0.5, tries=2))
    return PublishedEmbeddings(timeout_s=PATIENCE_S / 2, total_s=PATIENCE_S, waits=waits)


def examine(
    earth_engine: Callable[[], EarthEngine],
    stac: Callable[[], Stac] | None = _impatient,
    published: Callable[[], PublishedEmbeddings] | None = _impatient_stores,
) -> Iterator[Check]:
    """One check after the other; those of Earth Engine end at the first that fails. `None` leaves a backend out."""
    yield Check("rs_embed", True, rs_embed.__version__)
    yield _python()
    yield _tried("torch", _torch)
    yield _device()
    yield _extras()
    yield _tried("settings", _settings)
    yield _tried("folder for weights", _cache)
    yield _tried("weights", _weights)
    yield _token()
    if stac is not None:
        yield from _stac(stac)
    if published is not None:
        yield _stores(published)
    settings, provider = _built(earth_engine)
    yield settings
    if provider is None:
        return
    account = _tried("Earth Engine account", provider.account)
    yield account
    if account.works:
        yield _tried("Earth Engine request, one pixel", provider.check)


def _stac(make: Callable[[], Stac]) -> Iterator[Check]:
    try:
        provider = make()
    except MissingDependency as error:  # not every user needs it
        yield Check("STAC", True, "not installed", error.fix, set_up=False)
        return
    except RSEmbedError as error:
        yield _failed("STAC settings", error)
        return
    yield Check("STAC settings", True, provider.described())
    keys = {"Planetary Computer key": planetary_computer()[1], "S3 keys": aws_keys()}
    found = ", ".join(f"{name}: {'present' if key else 'none'}" for name, key in keys.items())
    yield Check("STAC credentials", True, f"{found} (only some catalogues need them)")
    yield _tried("STAC catalogue", provider.check)


def _stores(make: Callable[[], PublishedEmbeddings]) -> Check:
    """Whether the public stores answer. That they do not is a fault only if the user set an address or a limit."""
    try:
        provider = make()
    except MissingDependency as error:
        return Check(STORES, True, "not installed", error.fix, set_up=False)
    except RSEmbedError as error:
        return _failed(STORES, error)
    found = _tried(STORES, provider.check)
    begun = any(variable.startswith(PublishedSettings.prefix) for variable in set_variables())
    return found if found.ok or begun else replace(found, ok=True, set_up=False)


def _built(earth_engine: Callable[[], EarthEngine]) -> tuple[Check, EarthEngine | None]:
    name = "Earth Engine settings"
    try:
        provider = earth_engine()
    except RSEmbedError as error:
        return _failed(name, error), None
    return Check(name, True, provider.identity()), provider


def _failed(name: str, error: RSEmbedError) -> Check:
    begun = any(variable.startswith(("RS_EMBED_GEE_", "RS_EMBED_STAC_")) for variable in set_variables())
    if isinstance(error, NotConfigured) and not begun and not is_mentioned():
        return Check(name, True, f"not set up. {error.headline}", error.fix, set_up=False)
    facts = "".join(f" {key.replace('_', ' ')}: {value}." for key, value in error.facts.items())
    return Check(name, False, error.headline + facts, error.fix)


def _tried(name: str, step: Callable[[], str]) -> Check:
    try:
        return Check(name, True, step())
    except RSEmbedError as error:
        return _failed(name, error)
    except (OSError, ImportError) as error:
        return Check(name, False, f"{type(error).__name__}: {error}", "reinstall the package, or repair the folder")


def _python() -> Check:
    ok = (3, 11) <= sys.version_info[:2] < (3, 14)
    return Check("Python", ok, platform.python_version(), None if ok else "use Python 3.11 to 3.13")


def _torch() -> str:
    import torch

    return f"{torch.__version__}, {torch.get_num_threads()} threads"


def _device() -> Check:
    try:
        import torch

        if not torch.cuda.is_available():
            return Check("GPU", True, f"none; the CPU has {os.cpu_count()} cores", set_up=False)
        facts = torch.cuda.get_device_properties(0)
        count = torch.cuda.device_count()
        return Check("GPU", True, f"{facts.name}, {facts.total_memory / 1e9:.0f} GB" + f", 1 of {count}" * (count > 1))
    except (OSError, ImportError, RuntimeError) as error:
        return Check("GPU", False, f"{type(error).__name__}: {error}", "reinstall torch for this machine's driver")


def _has(extra: str) -> bool:
    return all(find_spec(module) is not None for module in EXTRAS[extra])


def _extras() -> Check:
    there, absent = ([extra for extra in EXTRAS if _has(extra) is wanted] for wanted in (True, False))
    found = f"installed: {', '.join(there) or 'none'}"
    if absent:
        found += f"; not installed: {', '.join(absent)}"
    fix = f"pip install 'eo-rs-embed[{','.join(absent)}]'" if absent else None
    return Check("extras", True, f"{found} (earthengine-api {version('earthengine-api')})", fix)


def _settings() -> str:
    found = set_variables()
    check_environment(found)
    return f"{', '.join(found)}: set" if found else "no RS_EMBED_* variable is set; defaults apply"


def _folder() -> Path:
    from huggingface_hub import constants

    return (LibrarySettings.read().cache_dir or Path(constants.HF_HUB_CACHE)).expanduser()


def _cache() -> str:
    folder = _folder()
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"{folder} cannot be written to")
    free_gb = shutil.disk_usage(folder).free / 1e9
    if free_gb < ENOUGH_GB:
        raise OSError(f"{folder} has {free_gb:.1f} GB left")
    return f"{folder}, {free_gb:,.0f} GB free{', offline' if LibrarySettings.read().offline else ''}"


def _has_weights(card: ModelCard, folder: Path) -> bool:
    """Whether a model runs without a download."""
    from huggingface_hub import try_to_load_from_cache

    weights = card.weights
    if isinstance(weights, Weights):
        there = try_to_load_from_cache(weights.hub, weights.file, cache_dir=folder, revision=weights.revision)
        return isinstance(there, str)
    return find_spec(weights.package) is not None if isinstance(weights, PackagedWeights) else weights is None


def _weights() -> str:
    folder = _folder()
    published = [card for card in CARDS if isinstance(card.weights, Weights)]
    cached = [card.id for card in published if _has_weights(card, folder)]
    pinned = sum(card.weights.sha256 is not None for card in published if isinstance(card.weights, Weights))
    names = f": {', '.join(cached)}" if cached else ""
    return f"{len(cached)} of {len(published)} downloaded{names}; the sha256 of {pinned} is known beforehand"


def _token() -> Check:
    from huggingface_hub import get_token

    there = get_token() is not None
    return Check("hub token", True, "present" if there else "none (only gated models need one)", set_up=there)


def _summary(checks: Sequence[Check]) -> tuple[list[str], str]:
    """What the user can do now, as sentences, and the command to try next."""
    works = {check.name: check.works for check in checks}
    smallest = next(card for card in CARDS if card.id == SMALLEST)
    cached = works["weights"] and _has_weights(smallest, _folder())
    can = [f"embed the bundled sample with {SMALLEST if cached else BUNDLED}, without a download"]
    if works["folder for weights"] and not LibrarySettings.read().offline:
        can.append("download the weights of other models when you first use them")
    if works.get("STAC catalogue"):
        can.append("embed any place on Earth from the STAC catalogue: --backend stac")
    if works.get(STORES):
        can.append("get published embeddings of any place: alphaearth_v1, tessera_v1_1")
    if works.get("Earth Engine request, one pixel"):
        can.append("embed any place on Earth from Earth Engine: --backend gee")
    can.append("embed your own rasters: --raster scene.tif")
    can += ["export tables of places: rs-embed export"] if _has("export") else []
    can += ["compute on the GPU: --device cuda"] if works["GPU"] else []
    return can, TRY.format(SMALLEST if cached else BUNDLED)


def run_doctor(
    console: Console,
    *,
    as_json: bool = False,
    earth_engine: Callable[[], EarthEngine] = lambda: EarthEngine(timeout_s=PATIENCE_S, total_s=PATIENCE_S),
    stac: Callable[[], Stac] | None = _impatient,
    published: Callable[[], PublishedEmbeddings] | None = _impatient_stores,
) -> int:
    """Print what was found and what works; 1 if something that is set up does not work, else 0."""
    checks = list(examine(earth_engine, stac, published))
    healthy = all(check.ok for check in checks)
    try:
        can, then = _summary(checks) if works_at_all(checks) else ([], "")
    except RSEmbedError:  # a setting is invalid, which a check says
        can, then = [], ""
    families, values = (EarthEngineSettings, StacSettings, PublishedSettings), set_variables()
    knobs = [knob for family in families for knob in describe_knobs(family)]
    if as_json:
        settings = [
            {"variable": variable, "default": default, "now": _hidden(variable, values), "meaning": text}
            for variable, _, default, text in knobs
        ]
        found = {"ok": healthy, "checks": [asdict(check) for check in checks], "settings": settings}
        console.print(json.dumps({**found, "can": can, "next": then}, indent=2), soft_wrap=True)
        return 0 if healthy else 1
    for check in checks:
        mark = "ok" if check.works else "--" if check.ok else "NO"
        console.print(f"{mark}  {check.name}: {check.found}", soft_wrap=True)
        if check.fix:
            console.print(f"    {'fix' if not check.ok else 'if you want it'}: {check.fix}", soft_wrap=True)
    if values:
        console.print(table([{"setting": name, "value": _hidden(name, values)} for name in values]))
    if can:
        console.print("\nYou can:", *(f"  {one}" for one in can), sep="\n", soft_wrap=True)
    broken = [check.name for check in checks if not check.ok]
    if broken:
        console.print(f"\nDoes not work: {', '.join(broken)}. See each fix above.", soft_wrap=True)
    if then:
        console.print(f"\nTry next: {then}", soft_wrap=True)
    return 0 if healthy else 1


def works_at_all(checks: Sequence[Check]) -> bool:
    """Whether a model can run here."""
    return all(check.ok for check in checks if check.name in {"Python", "torch", "settings"})


def _hidden(name: str, values: Mapping[str, str]) -> str:
    """A setting without secrets; its name may tell that it is one."""
    return redacted(f"{name}={values.get(name, '')}").partition("=")[2]
