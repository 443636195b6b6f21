"""The default backend: Earth Engine where it is set up, else STAC or, for published embeddings, their public store."""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from google.auth._cloud_sdk import get_config_path

from rs_embed.core.chip import Chip
from rs_embed.errors import MissingDependency, NotConfigured, ProviderError
from rs_embed.providers.base import Provider, Query, Wrapped
from rs_embed.providers.earthengine.provider import EarthEngine
from rs_embed.providers.earthengine.session import STORED_TOKEN, users_own
from rs_embed.providers.earthengine.settings import EarthEngineSettings, google_key_file
from rs_embed.redact import logger

_GCLOUD_FILE = "application_default_credentials.json"
LOG = logger("rs_embed.providers")


class Chosen(Wrapped):
    """A provider that `backend="auto"` chose. Its chips carry a note about the choice; their pixels are the same."""

    def __init__(self, provider: Provider, why: str) -> None:
        super().__init__(provider)
        self._why = why

    def fetch(self, query: Query) -> Chip:
        """See `Provider`; errors also state the choice."""
        try:
            chip = self._provider.fetch(query)
        except ProviderError as error:
            error.facts.setdefault("backend", self._why)
            raise
        return replace(chip, source=replace(chip.source, notes=(self._why, *chip.source.notes)))


def is_mentioned() -> bool:
    """Whether this machine has any sign of Earth Engine; if not, no time is spent on a metadata server.

    On a cloud machine with credentials of its own, the sign is `RS_EMBED_GEE_PROJECT`.
    """
    settings = EarthEngineSettings.read()
    named = settings.project is not None or settings.service_account is not None or google_key_file() is not None
    files = STORED_TOKEN.expanduser(), Path(get_config_path()) / _GCLOUD_FILE  # type: ignore[no-untyped-call]
    return named or users_own()[0] is not None or any(file.is_file() for file in files)


def chosen(choices: str) -> Provider:
    """Return Earth Engine if there are credentials and a project, else STAC; neither is contacted.

    Args:
        choices: The fix of the error message: which backends can be named.

    Raises:
        NotConfigured: Neither can be used.
        KnobError: One of their settings has an invalid value.
    """
    found = _earth_engine()
    return _without(found, choices) if isinstance(found, str) else found


def chosen_for_embeddings() -> Provider:
    """Return Earth Engine if there are credentials and a project, else the public stores; neither is contacted.

    Raises:
        NotConfigured: Neither can be used.
        KnobError: One of their settings has an invalid value.
    """
    found = _earth_engine()
    if not isinstance(found, str):
        return found
    from rs_embed.providers.published.provider import PublishedEmbeddings

    try:
        published = PublishedEmbeddings()
    except MissingDependency as error:
        raise NotConfigured(
            "Expected a backend that has the embeddings, but none is set up.",
            earth_engine=found,
            public_store=f"the extra is not installed: {error.fix}",
            fix=f"{error.fix}, or set up Earth Engine",
        ) from error
    return _logged(published, "backend='auto' took the public store: Earth Engine is not set up.")


def _earth_engine() -> Chosen | str:
    """Return Earth Engine, or the reason why it cannot be used."""
    earth_engine = EarthEngine()
    if not is_mentioned():
        return "Expected credentials for Earth Engine, got none."
    try:
        account = earth_engine.account()
    except NotConfigured as error:
        return error.headline
    return _logged(earth_engine, f"backend='auto' took Earth Engine ({account}).")


def _logged(provider: Provider, why: str) -> Chosen:
    LOG.info(why)
    return Chosen(provider, why)


def _without(reason: str, choices: str) -> Provider:
    """Return STAC, because Earth Engine cannot be used."""
    if find_spec("pystac_client") is None:
        raise NotConfigured(
            "Expected a backend to fetch imagery from, but none was named and none is set up.",
            earth_engine=reason,
            stac="the extra is not installed: pip install 'eo-rs-embed[stac]'",
            fix=choices,
        )
    from rs_embed.providers.stac.provider import Stac

    stac = Stac()
    return _logged(stac, f"backend='auto' took STAC ({stac.described()}): Earth Engine is not set up.")
