"""The unmodified Earth Engine client, pointed at a loopback server and put away cleanly."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from gee_server.server import EarthEngineServer

PROXIES = ("HTTPS_PROXY", "https_proxy")


@contextmanager
def no_way_out(server: EarthEngineServer) -> Iterator[None]:
    """While it lasts https goes to the server, which refuses it.

    `ee.Initialize` asks storage.googleapis.com for a list of old assets, without a time limit.
    """
    before = {name: os.environ.get(name) for name in (*PROXIES, "NO_PROXY", "no_proxy")}
    os.environ.update(dict.fromkeys(PROXIES, server.url))
    os.environ.update(dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextmanager
def connected(
    server: EarthEngineServer, *, project: str = "test-project", credentials=None, retries: int = 0
) -> Iterator[None]:
    """The client initialised against the server; afterwards as it was before, so that one may stand within another."""
    import ee  # noqa: PLC0415
    from ee import _state  # noqa: PLC0415

    before = _state._state
    _state.reset_state()
    try:
        with no_way_out(server), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ee.Initialize(credentials=credentials, url=server.url, project=project)
        ee.data.setMaxRetries(retries)
        yield
    finally:
        session = _state.get_state().requests_session
        if session is not None:
            session.close()
        if before is None:
            ee.Reset()
        _state._state = before
