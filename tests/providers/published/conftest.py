"""Stores on loopback, made once for a module."""

import pytest
from published_stores import serving

from rs_embed.providers.common.retry import Backoff, Waits
from rs_embed.providers.published.provider import PublishedEmbeddings


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A served folder; modules put stores in it."""
    with serving(tmp_path_factory.mktemp("published")) as served:
        yield served


@pytest.fixture
def provider(world):
    """A provider without anything in memory, which does not wait between tries."""
    world.asked.clear()
    world.faults.clear()

    def make(**options) -> PublishedEmbeddings:
        waits = Waits(Backoff(first_s=0.5, tries=4), sleep=lambda seconds: None)
        urls = {"alphaearth": f"{world.url}/aef-mosaic", "tessera": f"{world.url}/v1.1-dclimate"}
        return PublishedEmbeddings(**(urls | {"waits": waits, "timeout_s": 10} | options))

    return make
