"""The account for requests to Earth Engine: host, project, and credentials found without a prompt."""

import sys
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal

import google.auth
from google.auth._cloud_sdk import get_application_default_credentials_path
from google.auth.credentials import Credentials, with_scopes_if_required
from google.auth.exceptions import GoogleAuthError

from rs_embed.errors import NotConfigured
from rs_embed.providers.earthengine.settings import google_key_file

HOSTS = {
    "standard": "https://earthengine.googleapis.com",
    "highvolume": "https://earthengine-highvolume.googleapis.com",
}
SCOPES = ("https://www.googleapis.com/auth/earthengine", "https://www.googleapis.com/auth/cloud-platform")
PROBE_S = 1.5
"""Time limit for the metadata server, seconds: on a cloud machine it answers at once, elsewhere it does not exist."""
STORED_TOKEN = Path("~/.config/earthengine/credentials")
"""File in which `earthengine authenticate` stores its token."""


@dataclass(frozen=True)
class Account:
    """Host, project and credentials for Earth Engine."""

    url: str
    project: str | None
    credentials: Credentials | Literal["auto", "none"]
    """A credentials object; "auto" to search for one; "none" for an endpoint that needs none."""
    service_account: Path | None
    timeout_s: float

    @property
    def name(self) -> str:
        """The key for limits, which apply per project and host."""
        return f"{self.url} {self.project}"

    @property
    def described(self) -> str:
        """In words."""
        kind = "no credentials"
        if isinstance(self.credentials, Credentials):
            email = vars(self.credentials).get("_service_account_email")
            kind = f"service account {email}" if email else "credentials of a user"
        return f"{self.url}, project {self.project}, {kind}"


def url_of(host: str) -> str:
    """Return the address of a host given by name or URL.

    Raises:
        NotConfigured: It is neither.
    """
    url = HOSTS.get(host, host).rstrip("/")
    if not url.startswith(("http://", "https://")):
        raise NotConfigured(f"Expected an Earth Engine host, got {host!r}.", fix=f"use {', '.join(HOSTS)} or a URL")
    return url


def completed(account: Account) -> Account:
    """Find the credentials and project of an account, without a request to Earth Engine.

    Without settings, and if the user has initialised `ee`, its credentials and project are used (and not changed).

    Raises:
        NotConfigured: There are no credentials, or no project; the message says what to run.
    """
    if account.credentials == "auto" and account.service_account is None:
        credentials, project = users_own()
        if credentials is not None:
            account = replace(account, project=account.project or project, credentials=credentials)
    return _completed(account)


@lru_cache(maxsize=64)
def _completed(account: Account) -> Account:
    """Search once: equal accounts stay equal and share their connections."""
    found: Credentials | Literal["none"] | None
    if account.credentials != "auto":
        found = account.credentials
    elif account.service_account is not None:
        found = _of_service_account(account.service_account)
    else:
        found = _stored_token() or _default_credentials()
    if found is None:
        raise NotConfigured(
            "Expected credentials for Earth Engine, got none.",
            looked_in=f"RS_EMBED_GEE_SERVICE_ACCOUNT, {STORED_TOKEN}, GOOGLE_APPLICATION_CREDENTIALS, the file of "
            "`gcloud auth application-default login`, the metadata server of a cloud machine",
            fix="run `earthengine authenticate` once in a terminal, or set the key file of a service account in "
            "RS_EMBED_GEE_SERVICE_ACCOUNT; docs/providers/earthengine.md explains it step by step",
        )
    project = account.project or (None if found == "none" else _project_of(found))
    if project is None:
        raise NotConfigured(
            "Expected a Cloud project for Earth Engine requests, got none.",
            fix='set RS_EMBED_GEE_PROJECT, or pass EarthEngine(project="..."); your projects are listed at '
            "https://console.cloud.google.com",
        )
    return replace(account, project=project, credentials=found, service_account=None)


_UNREADABLE = (OSError, ValueError, TypeError, KeyError, AttributeError, GoogleAuthError)
"""Errors of google-auth for a file that is missing or not valid."""


def _of_file(path: Path, named: str, load: Callable[[], Credentials | None], fix: str) -> Credentials | None:
    """Read credentials from a file, without a time limit.

    Raises:
        NotConfigured: It cannot be read.
    """
    try:
        return load()
    except _UNREADABLE as error:
        why = " ".join(" ".join(map(str, error.args)).split())
        raise NotConfigured(
            f"Expected Google credentials in {path}, got a file that cannot be read.",
            named_by=named,
            said=f"{type(error).__name__}: {why}",
            fix=fix,
        ) from error


_KEY = "download a JSON key in the Cloud console (IAM, Service accounts, Keys) and pass its path"


def _of_service_account(path: Path) -> Credentials | None:
    from google.oauth2 import service_account

    def load() -> Credentials:
        key: Credentials = service_account.Credentials.from_service_account_file(  # type: ignore[no-untyped-call]
            str(path.expanduser()), scopes=SCOPES
        )
        return key

    return _of_file(path, "RS_EMBED_GEE_SERVICE_ACCOUNT or service_account=", load, _KEY)


def _stored_token() -> Credentials | None:
    """The token that `earthengine authenticate` stored, if there is one."""
    path = STORED_TOKEN.expanduser()
    if not path.is_file():
        return None

    def load() -> Credentials | None:
        from google.oauth2 import credentials

        from rs_embed.providers.earthengine.client import ee  # slow: imported only if there is a token

        arguments = ee.oauth.get_credentials_arguments()
        if not arguments.get("refresh_token"):
            return None
        return credentials.Credentials(None, **arguments)  # type: ignore[no-untyped-call]

    return _of_file(path, "`earthengine authenticate`", load, "run `earthengine authenticate --force`")


def _default_credentials() -> Credentials | None:
    """Application default credentials: from a file, or from a cloud machine, whose metadata server has a time limit."""
    named, gcloud = google_key_file(), Path(get_application_default_credentials_path())  # type: ignore[no-untyped-call]
    if named is not None:
        return _of_file(named, "GOOGLE_APPLICATION_CREDENTIALS", partial(_loaded, named), _KEY)
    if gcloud.is_file():
        return _of_file(gcloud, "gcloud", partial(_loaded, gcloud), "run `gcloud auth application-default login`")
    return _of_machine()


def _loaded(path: Path) -> Credentials:
    """Read a file without `google.auth.default`, which also runs `gcloud` to find a project that is not used."""
    with warnings.catch_warnings():  # its warning about quota projects does not apply: we name a project
        warnings.simplefilter("ignore")
        found = google.auth.load_credentials_from_file(str(path))[0]  # type: ignore[no-untyped-call]
    scoped: Credentials = with_scopes_if_required(found, SCOPES)  # type: ignore[no-untyped-call]  # user credentials have their own
    return scoped


def _of_machine() -> Credentials | None:
    """The account of this cloud machine; `None` if no metadata server answers in time."""
    from google.auth import compute_engine  # noqa: F401  (slow: must not count against the time limit)

    found: list[Credentials] = []

    def search() -> None:
        with suppress(GoogleAuthError):
            found.append(google.auth.default(scopes=SCOPES)[0])

    thread = threading.Thread(target=search, name="rs-embed-gee-credentials", daemon=True)
    thread.start()
    thread.join(PROBE_S)
    return found[0] if found else None


def _project_of(credentials: Credentials) -> str | None:
    """The project that credentials name: their quota project, else the project of a service account."""
    named = vars(credentials)
    project = named.get("_quota_project_id") or named.get("_project_id")
    return project if isinstance(project, str) else None


def users_own() -> tuple[Credentials | None, str | None]:
    """Credentials and project with which the user has initialised `ee`, if any."""
    if "ee" not in sys.modules:
        return None, None
    from ee import _state

    state = _state.get_state()
    return (state.credentials, state.cloud_api_user_project) if state.initialized else (None, None)
