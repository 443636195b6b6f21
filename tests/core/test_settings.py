"""Variables are read anew by every call, and a misspelt one is refused whatever has been imported."""

import subprocess
import sys

import pytest

from rs_embed.core.settings import LibrarySettings
from rs_embed.errors import KnobError

OF_ALL_FAMILIES = {
    "RS_EMBED_MEMORY_GB": "2",
    "RS_EMBED_THOR_IMG": "96",
    "RS_EMBED_GEE_QPS": "5",
    "RS_EMBED_STAC_MAX_SCENES": "3",
    "RS_EMBED_RAY_WORKERS": "2",
}


def test_what_is_changed_between_two_readings_is_seen(monkeypatch):
    assert LibrarySettings.read().memory_gb == 4.0
    monkeypatch.setenv("RS_EMBED_MEMORY_GB", "2")
    assert LibrarySettings.read().memory_gb == 2.0
    monkeypatch.setenv("RS_EMBED_MEMORY_GB", " ")
    assert LibrarySettings.read().memory_gb == 4.0


@pytest.mark.parametrize("name", OF_ALL_FAMILIES)
def test_a_misspelt_variable_of_any_family_is_refused_with_the_right_one(name, monkeypatch):
    monkeypatch.setenv(name, OF_ALL_FAMILIES[name])
    LibrarySettings.read()
    monkeypatch.setenv(f"{name}S", "1")
    with pytest.raises(KnobError) as caught:
        LibrarySettings.read()
    assert f"{name}S" in caught.value.headline
    assert repr(name) in caught.value.fix


@pytest.mark.slow
def test_a_process_that_has_imported_nothing_knows_the_variables_of_all_families(monkeypatch):
    for name, value in OF_ALL_FAMILIES.items():
        monkeypatch.setenv(name, value)
    code = (
        "from rs_embed.core.settings import LibrarySettings; LibrarySettings.read(); "
        "import sys; sys.exit('torch was imported' if 'torch' in sys.modules else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=300).returncode == 0
