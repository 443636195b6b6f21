"""Who asks Earth Engine, and where: credentials found without a prompt, the client initialised once."""

import json
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

import google.auth
from google.auth.credentials import Credentials
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError

from rs_embed.errors import NotConfigured

HOSTS = {
    "standard": "https://earthengine.googleapis.com",
    "highvolume": "https://earthengine-highvolume.googleapis.com",
}
SCOPES = ("https://www.googleapis.com/auth/earthengine", "https://www.googleapis.com/auth/cloud-platform")
SEARCH_S = 1.5
"""Longest search for default credentials: it asks the metadata server of a cloud machine, which may not exist."""
CONNECTIONS = 64
"""Kept open for reuse; above what any project may have under way. The client's own 10 make every other one new."""
STORED_TOKEN = Path("~/.config/earthengine/credentials")
"""Where `earthengine authenticate` leaves its token."""


@dataclass(frozen=True)
class Account:
    """Everything that decides how the client is initialised."""

    url: str
    project: str | None
    credentials: Credentials | Literal["auto", "none"]
    """Ready-made; "auto": to be searched for; "none": the endpoint wants none."""
    service_account: Path | None
    timeout_s: float

    @property
    def name(self) -> str:
        """Of who is counted: limits are per project and host."""
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
    """The address of a host given by name or URL.

    Raises:
        NotConfigured: It is neither.
    """
    url = HOSTS.get(host, host).rstrip("/")
    if not url.startswith(("http://", "https://")):
        raise NotConfigured(
            f"Wanted an Earth Engine host, found {host!r}.", fix=f"use one of {', '.join(HOSTS)}, or a URL"
        )
    return url


def completed(account: Account) -> Account:
    """The account with its credentials found and its project known; nothing is asked of Earth Engine.

    Where nothing was said and the user has initialised `ee`, what it was initialised with is taken.

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
    """Searched for once: equal accounts must stay equal, or the client would be initialised again for each."""
    found: Credentials | Literal["none"] | None
    if account.credentials != "auto":
        found = account.credentials
    elif account.service_account is not None:
        found = _of_service_account(account.service_account)
    else:
        found = _stored_token() or _default_credentials()
    if found is None:
        raise NotConfigured(
            "Wanted credentials for Earth Engine, found none.",
            looked_in=f"RS_EMBED_GEE_SERVICE_ACCOUNT, {STORED_TOKEN}, application default credentials",
            fix="run `earthengine authenticate` once in a terminal, or name the key file of a service account in "
            "RS_EMBED_GEE_SERVICE_ACCOUNT; docs/providers/earthengine.md leads through it in five minutes",
        )
    project = account.project or (None if found == "none" else _project_of(found))
    if project is None:
        raise NotConfigured(
            "Wanted a Cloud project to count Earth Engine requests on, found none.",
            fix='set RS_EMBED_GEE_PROJECT, or pass EarthEngine(project="..."); your projects are listed at '
            "https://console.cloud.google.com",
        )
    return replace(account, project=project, credentials=found, service_account=None)


def _of_service_account(path: Path) -> Credentials:
    from google.oauth2 import service_account

    try:
        key: Credentials = service_account.Credentials.from_service_account_file(  # type: ignore[no-untyped-call]
            str(path.expanduser()), scopes=SCOPES
        )
    except (OSError, ValueError, GoogleAuthError) as error:
        raise NotConfigured(
            f"Wanted the key file of a service account, found that {path} cannot be read: {error}",
            fix="download a JSON key in the Cloud console (IAM, Service accounts, Keys) and name its path",
        ) from error
    return key


def _stored_token() -> Credentials | None:
    """The token that `earthengine authenticate` stored, if it did."""
    path = STORED_TOKEN.expanduser()
    if not path.is_file():
        return None
    import ee.oauth  # slow: only when there is a token
    from google.oauth2 import credentials

    try:
        arguments = ee.oauth.get_credentials_arguments()
    except (OSError, json.JSONDecodeError) as error:
        raise NotConfigured(
            f"Wanted the token of `earthengine authenticate`, found that {path} cannot be read: {error}",
            fix="run `earthengine authenticate --force`",
        ) from error
    if not arguments.get("refresh_token"):
        return None
    return credentials.Credentials(None, **arguments)  # type: ignore[no-untyped-call]


def _default_credentials() -> Credentials | None:
    """Application default credentials, unless they take too long to find."""
    found: list[Credentials] = []

    def search() -> None:
        with warnings.catch_warnings():  # its advice on quota projects is not ours: we name a project
            warnings.simplefilter("ignore")
            with suppress(DefaultCredentialsError):
                found.append(google.auth.default(scopes=SCOPES)[0])

    thread = threading.Thread(target=search, name="rs-embed-gee-credentials", daemon=True)
    thread.start()
    thread.join(SEARCH_S)
    return found[0] if found else None


def _project_of(credentials: Credentials) -> str | None:
    """The project that credentials name: what they are counted on, else where a service account lives."""
    named = vars(credentials)
    project = named.get("_quota_project_id") or named.get("_project_id")
    return project if isinstance(project, str) else None


class _Client:
    """The state of `ee`, which is one per process: who it was initialised for, and who is using it."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.account: Account | None = None
        self.users = 0
        self.users_own: tuple[Credentials | None, str | None] = (None, None)
        """Credentials and project that the user had initialised it with, before we did."""


_CLIENT = _Client()


def users_own() -> tuple[Credentials | None, str | None]:
    """What the user initialised the client with, if they did; remembered, as we initialise it anew."""
    if _CLIENT.account is None and "ee" in sys.modules:
        from ee import _state

        state = _state.get_state()
        if state.initialized:
            _CLIENT.users_own = state.credentials, state.cloud_api_user_project
    return _CLIENT.users_own


@contextmanager
def client_of(account: Account) -> Iterator[None]:
    """Hold the client, initialised for this account; another account waits until it is free.

    Raises:
        Exception: Whatever the client raises while it is initialised.
    """
    with _CLIENT.changed:
        while _CLIENT.account != account and _CLIENT.users > 0:
            _CLIENT.changed.wait()
        if _CLIENT.account != account:
            _CLIENT.account = None
            _initialise(account)
            _CLIENT.account = account
        _CLIENT.users += 1
    try:
        yield
    finally:
        with _CLIENT.changed:
            _CLIENT.users -= 1
            _CLIENT.changed.notify_all()


def _initialise(account: Account) -> None:
    """Initialise `ee`: our deadline, our retries, a pool as wide as the threads, and no other host asked.

    `ee` keeps retries, deadline and connections in its state and has no earlier moment to set them: set after
    initialising, the deadline costs another discovery, and the pool cannot be set at all.
    """
    import ee
    import requests
    from ee import _state, deprecation
    from requests.adapters import HTTPAdapter

    before = _state.get_state().requests_session
    if before is not None:
        before.close()
    ee.Reset()
    session = requests.Session()
    for scheme in ("https://", "http://"):
        session.mount(scheme, HTTPAdapter(pool_connections=4, pool_maxsize=CONNECTIONS))
    state = _state.get_state()
    state.requests_session = session
    state.deadline_ms = int(account.timeout_s * 1000)
    state.max_retries = 0
    # A list of deprecated assets would be read from another host, without a deadline; a list that is there is not.
    nothing = deprecation.DeprecatedAsset("", None, None, None)
    deprecation.deprecated_assets = {"": nothing}
    try:
        credentials = None if account.credentials == "none" else account.credentials
        ee.Initialize(credentials=credentials, url=account.url, project=account.project)
    finally:
        deprecation.deprecated_assets = {}
