"""The code of a page, block by block."""

import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import pytest

from rs_embed.errors import RSEmbedError, RSEmbedWarning

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Block:
    language: str
    how: str
    """ "", "raises" or "no-run"; "terratorch" where that extra is installed, "terratorch-missing" where it is not."""
    text: str
    line: int


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    fences = re.finditer(r"^```(\w*) ?([\w-]*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [Block(m[1], m[2], m[3], text.count("\n", 0, m.start(3)) + 1) for m in fences]


def run_python(block: Block, page: str, names: dict[str, object]) -> str:
    """Run a block; the text of the error that it raises, or ''."""
    code = compile("\n" * (block.line - 1) + block.text, page, "exec")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RSEmbedWarning)
        if block.how not in ("raises", "terratorch-missing"):
            exec(code, names)
            return ""
        with pytest.raises(RSEmbedError) as caught:
            exec(code, names)
    return f"{type(caught.value).__name__}: {caught.value}"
