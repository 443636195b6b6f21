"""One meaning for each word, and words that everybody knows."""

import ast
import re
from collections import defaultdict
from pathlib import Path

from pages import ROOT

import rs_embed

STUMBLED_OVER = re.compile(r"\bwarned of\b|\bfor who\b|\b[Oo]f who\b|\bto who\b|cannot be meant|\banew\b|\bWanted\b")
"""Phrases that readers have stumbled over, and that come back easily."""
READS_AS_TRANSLATED = re.compile(
    r"\b(told|asked|said|heard) of\b|\b(is|are) said\b|\bsaid to\b|\bhears?\b|\bheard\b|\bleave is\b|\b[Bb]ut for\b"
    r"|\b(do|does) as well\b|\bwithout a word\b|\bnot believed\b|\bspeaks? up\b|\bstands? in\b|\blies? beside\b"
    r"|\bmet with\b|\ball the same\b|\bas ever\b|\bthereof\b|\blet alone\b|\bmade[- ]up\b|\bsay it\b"
    r"|\bthe other way round\b|\bwherever (it lies|they lie)\b|\bwhatever others\b|\bwho (asks|names|wants|gives)\b"
)
"""What the guides no longer say: English that a native reader takes for a translation."""
GUIDES = [
    *(ROOT / name for name in ("CONTRIBUTING.md", "README.md", "SECURITY.md", "THIRD_PARTY.md")),
    *ROOT.glob("docs/**/*.md"),
]

SAME_NAME = "Embedder"
"""The transformer of scikit-learn has the name that its users look for at the root of the package; the base class of
adapters is imported from its module, by those who write one."""


def test_no_two_public_classes_have_the_same_name():
    root = Path(rs_embed.__file__).parent
    homes: dict[str, list[str]] = defaultdict(list)
    for path in sorted(root.rglob("*.py")):
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].append(str(path.relative_to(root)))
    shared = {name: where for name, where in homes.items() if len(where) > 1 and name != SAME_NAME}
    assert not shared


def test_no_guide_reads_as_translated():
    found = [
        f"{page.relative_to(ROOT)}: {match[0]}"
        for page in GUIDES
        for match in READS_AS_TRANSLATED.finditer(page.read_text("utf-8"))
    ]
    assert not found


def test_no_page_and_no_message_has_a_phrase_that_readers_stumble_over():
    pages = [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("notebooks/**/*.ipynb"),
        *ROOT.glob("src/**/*.py"),
    ]
    found = [
        f"{page.relative_to(ROOT)}: {match[0]}"
        for page in pages
        if page.name != "CHANGELOG.md"
        for match in STUMBLED_OVER.finditer(page.read_text("utf-8"))
    ]
    assert not found
