"""What the tests of heads share."""

import made_heads
import pytest


@pytest.fixture
def head(tmp_path_factory):
    return made_heads.head(tmp_path_factory)


@pytest.fixture(scope="module")
def region(tmp_path_factory):
    return made_heads.region(tmp_path_factory.mktemp("region"))
