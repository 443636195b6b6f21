"""The golden cases of THOR, read once."""

import pytest
from golden_cases import CASES, Case, golden_encoder, read_case

from rs_embed.encoders.thor.encoder import ThorEncoder


@pytest.fixture(scope="session")
def encoder() -> ThorEncoder:
    """Hold the reference weights; shared, so that tests also meet what earlier ones left in the caches."""
    return golden_encoder()


@pytest.fixture(scope="session")
def cases() -> dict[str, Case]:
    return {name: read_case(name) for name in CASES}
