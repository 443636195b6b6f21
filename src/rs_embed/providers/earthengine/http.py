"""Send requests to Earth Engine's REST interface for one account, without the client.

Source: https://developers.google.com/earth-engine/reference/rest
"""

import json
from collections.abc import Mapping
from functools import lru_cache

import requests
from google.auth.credentials import Credentials, CredentialsWithQuotaProject
from google.auth.transport.requests import AuthorizedSession
from requests.adapters import HTTPAdapter

from rs_embed.core.stopping import PerProcess
from rs_embed.errors import ReadError
from rs_embed.providers.earthengine.session import Account
from rs_embed.redact import logger

LOG = logger("rs_embed.providers")
CONNECTIONS = 64
"""Connections kept open for reuse: more than a project may use at once. With the usual 10, every second one is new."""
KEPT = 16
"""Accounts whose connections are kept open."""
_QUOTA = "x-earth-engine-quota-status"


class Refused(Exception):
    """An answer with a status other than success."""

    def __init__(self, status: int, body: str, headers: Mapping[str, str]) -> None:
        """Store the answer.

        Args:
            status: The HTTP status.
            body: The body, as text.
            headers: The headers, by name in lower case.
        """
        self.status: int = status
        self.body: str = body
        self.headers: Mapping[str, str] = headers
        self.message: str = _message(body)
        super().__init__(f"{status} {self.message}")


def _message(body: str) -> str:
    """The message in the body of a refusal; without one, the beginning of the body."""
    try:
        message = json.loads(body)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = None
    return message if isinstance(message, str) else " ".join(body.split())[:300]


class Connection:
    """Sends requests to Earth Engine for an account. Safe to use from several threads, and after a fork."""

    def __init__(self, account: Account) -> None:
        """Configure it, without sending a request."""
        self._account = account
        self._session = PerProcess(lambda: _session_of(account))

    def pixels(self, request: Mapping[str, object]) -> bytes:
        """Return the answer of `image:computePixels`.

        Raises:
            Refused: The service refused.
            requests.RequestException: There was no answer, or only part of one.
            google.auth.exceptions.GoogleAuthError: The credentials could not be used.
        """
        return self._ask("POST", "image:computePixels", request).content

    def value(self, expression: object) -> object:
        """Return the answer of `value:compute`.

        Raises:
            Exception: The same errors as `pixels`.
            ReadError: The answer is incomplete.
        """
        answer = _read(self._ask("POST", "value:compute", {"expression": expression}))
        if not isinstance(answer, Mapping) or "result" not in answer:
            raise ReadError("Expected a value from Earth Engine, got an answer without one.", fix="try again")
        return answer["result"]

    def algorithms(self) -> object:
        """Return the answer of `algorithms`, the list of functions; raises the same errors as `value`."""
        return _read(self._ask("GET", "algorithms", None))

    def _ask(self, method: str, what: str, body: Mapping[str, object] | None) -> requests.Response:
        account = self._account
        headers = {"X-Goog-User-Project": account.project or ""}
        if body is not None:
            headers["Content-Type"] = "application/json"
        response = self._session.here.request(
            method,
            f"{account.url}/v1/projects/{account.project}/{what}",
            data=None if body is None else json.dumps(body),
            headers=headers,
            timeout=account.timeout_s,
        )
        if "parallelism_restricted=true" in response.headers.get(_QUOTA, ""):
            LOG.warning("Earth Engine slows project %s down: its computing quota is used up.", account.project)
        if response.status_code != 200:
            headers = {name.lower(): value for name, value in response.headers.items()}
            raise Refused(response.status_code, response.content.decode("utf-8", "replace"), headers)
        return response


@lru_cache(maxsize=KEPT)
def connection_of(account: Account) -> Connection:
    """Return this process's connection for an account."""
    return Connection(account)


def _session_of(account: Account) -> requests.Session:
    if isinstance(account.credentials, Credentials):
        credentials = account.credentials
        if isinstance(credentials, CredentialsWithQuotaProject) and credentials.quota_project_id:
            credentials = credentials.with_quota_project(None)  # type: ignore[no-untyped-call]  # we name the project
        session: requests.Session = AuthorizedSession(credentials)  # type: ignore[no-untyped-call]
    else:
        session = requests.Session()
    for scheme in ("https://", "http://"):
        session.mount(scheme, HTTPAdapter(pool_connections=4, pool_maxsize=CONNECTIONS))
    return session


def _read(response: requests.Response) -> object:
    """Parse JSON.

    Raises:
        ReadError: It is incomplete or not JSON.
    """
    try:
        found: object = json.loads(response.content)
    except ValueError as error:
        raise ReadError("Expected an answer from Earth Engine, got half of one.", fix="try again") from error
    return found
