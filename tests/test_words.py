"""One meaning for each word: no two classes that others see share a name."""

import ast
from collections import defaultdict
from pathlib import Path

import rs_embed

TO_BE_RENAMED = {"Gate", "Stamp", "Unit"}


def test_no_two_public_classes_have_the_same_name():
    root = Path(rs_embed.__file__).parent
    homes: dict[str, list[str]] = defaultdict(list)
    for path in sorted(root.rglob("*.py")):
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].append(str(path.relative_to(root)))
    shared = {name: where for name, where in homes.items() if len(where) > 1 and name not in TO_BE_RENAMED}
    assert not shared
