"""The site shows what the repository's pages say; `make check` builds it strictly."""

import importlib

import pytest
from pages import ROOT


@pytest.fixture
def site(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    return importlib.import_module("site_pages")


PAGES = {"docs/models/thor.md": "models/thor.md", "CHANGELOG.md": "changelog.md", "docs/a.png": "a.png"}


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("[changes](../../CHANGELOG.md#new)", "[changes](../changelog.md#new)"),
        ("![a](../a.png)", "![a](../a.png)"),
        ("see [`thor.py`](../../src/thor.py)", "see `thor.py`"),
        ("[out](https://example.org) [here](#x)", "[out](https://example.org) [here](#x)"),
        ("```python no-run\nx[:, :3]\n```", "```python\nx[:, :3]\n```"),
    ],
)
def test_links_lead_to_pages_of_the_site_and_those_to_source_are_words(site, said, shown):
    assert site.turned(said, "docs/models/thor.md", PAGES) == shown


def test_a_public_name_on_no_page_of_the_reference_is_refused(site, monkeypatch):
    assert "::: rs_embed.api.get_embedding" in site.references()["reference/embeddings.md"]
    monkeypatch.setitem(site.REFERENCE, "Models", site.REFERENCE["Models"][1:])
    with pytest.raises(ValueError, match="list_models"):
        site.references()


def test_what_a_page_would_load_from_elsewhere_is_found_and_links_are_not(site, tmp_path):
    page = tmp_path / "models" / "page.html"
    page.parent.mkdir()
    page.write_text('<a href="https://a.example">a</a><img src="x.png"><script src="https://b.example/s.js"></script>')
    assert site.loaded_from_elsewhere(tmp_path) == ["https://b.example/s.js"]
