"""What works on this machine and what does not, in words. Asks Earth Engine and the STAC catalogue one request each."""

import json
import os
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rich.console import Console

import rs_embed
from rs_embed.cli.tables import table
from rs_embed.core.settings import LibrarySettings, describe_knobs, set_variables
from rs_embed.errors import MissingDependency, RSEmbedError
from rs_embed.providers.common.retry import Backoff, Waits
from rs_embed.providers.earthengine.provider import EarthEngine
from rs_embed.providers.earthengine.settings import EarthEngineSettings
from rs_embed.providers.stac.provider import Stac
from rs_embed.providers.stac.settings import StacSettings
from rs_embed.redact import redacted

PATIENCE_S = 30.0
"""For the one request: who waits for a doctor wants to know soon."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    ok: bool
    found: str
    fix: str | None = None


def _impatient() -> Stac:
    waits = Waits(Backoff(first_s=0.5, tries=2))
    return Stac(timeout_s=PATIENCE_S / 2, total_s=PATIENCE_S, waits=waits)


def examine(earth_engine: Callable[[], EarthEngine], stac: Callable[[], Stac] | None = _impatient) -> Iterator[Check]:
    """One check after the other; those of Earth Engine end at the first that fails. `stac=None` leaves STAC out."""
    yield Check("rs_embed", True, rs_embed.__version__)
    yield _python()
    yield _tried("torch and device", _torch)
    yield _tried("folder for weights", _cache)
    yield _package("earthengine-api")
    if stac is not None:
        yield from _stac(stac)
    settings, provider = _built(earth_engine)
    yield settings
    if provider is None:
        return
    account = _tried("Earth Engine account", provider.account)
    yield account
    if account.ok:
        yield _tried("Earth Engine request, one pixel", provider.check)


def _stac(make: Callable[[], Stac]) -> Iterator[Check]:
    try:
        provider = make()
    except MissingDependency as error:  # not every user needs it
        yield Check("STAC", True, f"not installed ({error.fix})")
        return
    except RSEmbedError as error:
        yield _failed("STAC settings", error)
        return
    yield Check("STAC settings", True, provider.described())
    yield _tried("STAC catalogue", provider.check)


def _built(earth_engine: Callable[[], EarthEngine]) -> tuple[Check, EarthEngine | None]:
    name = "Earth Engine settings"
    try:
        provider = earth_engine()
    except RSEmbedError as error:
        return _failed(name, error), None
    return Check(name, True, provider.identity()), provider


def _failed(name: str, error: RSEmbedError) -> Check:
    facts = "".join(f" {key.replace('_', ' ')}: {value}." for key, value in error.facts.items())
    return Check(name, False, error.headline + facts, error.fix)


def _tried(name: str, step: Callable[[], str]) -> Check:
    try:
        return Check(name, True, step())
    except RSEmbedError as error:
        return _failed(name, error)
    except (OSError, ImportError) as error:
        return Check(name, False, f"{type(error).__name__}: {error}", "reinstall the package, or mend the folder")


def _python() -> Check:
    ok = (3, 11) <= sys.version_info[:2] < (3, 14)
    return Check("Python", ok, platform.python_version(), None if ok else "use Python 3.11 to 3.13")


def _torch() -> str:
    import torch

    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "CPU only"
    return f"{torch.__version__}, {device}, {os.cpu_count()} cores"


def _cache() -> str:
    from huggingface_hub import constants

    settings = LibrarySettings.read()
    folder = settings.cache_dir or Path(constants.HF_HUB_CACHE)
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"{folder} cannot be written to")
    return f"{folder}{' (offline)' if settings.offline else ''}"


def _package(name: str) -> Check:
    try:
        return Check(name, True, version(name))
    except PackageNotFoundError:
        return Check(name, False, "not installed", f"pip install {name}")


def run_doctor(
    console: Console,
    *,
    as_json: bool = False,
    earth_engine: Callable[[], EarthEngine] = lambda: EarthEngine(timeout_s=PATIENCE_S, total_s=PATIENCE_S),
    stac: Callable[[], Stac] | None = _impatient,
) -> int:
    """Print what was found, and the settings of both backends; 1 if anything is wrong, else 0."""
    checks = list(examine(earth_engine, stac))
    healthy = all(check.ok for check in checks)
    knobs, values = [*describe_knobs(EarthEngineSettings), *describe_knobs(StacSettings)], set_variables()
    settings = [
        {"variable": variable, "default": default, "now": redacted(values.get(variable, "")), "meaning": text}
        for variable, _, default, text in knobs
    ]
    if as_json:
        found = {"ok": healthy, "checks": [asdict(check) for check in checks], "settings": settings}
        console.print(json.dumps(found, indent=2), soft_wrap=True)
        return 0 if healthy else 1
    for check in checks:
        console.print(f"{'ok ' if check.ok else 'NO '} {check.name}: {check.found}", soft_wrap=True)
        if check.fix:
            console.print(f"    fix: {check.fix}", soft_wrap=True)
    console.print(table(settings))
    return 0 if healthy else 1
