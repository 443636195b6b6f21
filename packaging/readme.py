"""The README as a package index shows it, where no files lie beside it.

Links to files lead to the repository once `[project.urls]` names one as `Repository`; until then they are plain text.
"""

import re
from pathlib import Path

from hatchling.metadata.plugin.interface import MetadataHookInterface

LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?![a-z]+:|#)([^)\s]+)\)")
"""A link or a picture whose target is a file."""


class Readme(MetadataHookInterface):
    """Fills in `readme`, which pyproject.toml declares as dynamic."""

    def update(self, metadata: dict[str, object]) -> None:
        """Called by hatchling with what `[project]` says."""
        repository = dict(metadata.get("urls", {})).get("Repository")

        def link(found: re.Match[str]) -> str:
            picture, words, target = found.groups()
            if repository is None:
                return "" if picture else words
            return f"{picture}[{words}]({repository}/{'raw' if picture else 'blob'}/v{metadata['version']}/{target})"

        text = LINK.sub(link, Path(self.root, "README.md").read_text("utf-8"))
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
