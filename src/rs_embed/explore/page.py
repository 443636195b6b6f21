"""The file itself: template, style, script and data in one, with a policy that forbids everything else."""

import base64
import hashlib
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path

from pydantic import JsonValue

from rs_embed.core.atomic import replacing, storing
from rs_embed.core.checks import require_choice
from rs_embed.errors import SpecError, StorageError
from rs_embed.explore.packing import STORED, Blobs, Stored, chosen_form
from rs_embed.explore.tiles import BaseMap, Tiles

SCRIPTS = (
    *("numbers.js", "logistic.js", "colours.js", "view.js", "places.js", "files.js"),  # each stands alone
    *("layers.js", "state.js", "difference.js", "loading.js", "features.js"),
    *("draw.js", "tiles.js", "serving.js", "panel.js", "points.js", "app.js"),
)
"""In this order they become one script: what stands later uses what stands earlier."""
MAX_MB = 25.0
"""Size of a page that still opens quickly and can be sent by mail."""
_SUFFIXES = (".html", ".htm")


@dataclass(frozen=True)
class PageOptions:
    """What a user may say about any page; see `Embedding.explore`."""

    base_map: BaseMap | None = None
    stored: Stored = "auto"
    max_mb: float = MAX_MB

    def __post_init__(self) -> None:
        require_choice("stored", self.stored, STORED)
        if self.base_map is not None:
            Tiles.of(self.base_map)

    @property
    def tiles(self) -> Tiles | None:
        """The base map."""
        return None if self.base_map is None else Tiles.of(self.base_map)

    def form(self, shapes: Sequence[tuple[int, int]]) -> str:
        """Choose the form of vectors; see `chosen_form`."""
        return chosen_form(shapes, self.max_mb) if self.stored == "auto" else self.stored


PLAIN = PageOptions()


@dataclass(frozen=True)
class Page:
    """What one page tells."""

    title: str
    told: Mapping[str, JsonValue]
    """The data, for the script."""
    blobs: Blobs
    asks: bool = False
    """Whether it may ask the server that it comes from."""
    tiles: Tiles | None = None
    """The base map that it may ask for."""

    def html(self) -> str:
        """Return the file as text.

        Nothing of the data is ever part of the markup: texts are JSON without "<", arrays are base64, and the script
        sets all of it as text. The policy lets only this very script and style run, and forbids any request, but those
        of a page that `asks`, and pictures of its base map.
        """
        script = "(() => {\n'use strict';\n" + "\n".join(_part(name) for name in SCRIPTS) + "})();\n"
        style = _part("page.css")
        asks = "'self'" if self.asks else "'none'"
        tiles = "" if self.tiles is None else f" {self.tiles.origin}"
        policy = (
            f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; "
            f"img-src data: blob:{tiles}; connect-src {asks}; base-uri 'none'; form-action 'none'"
        )
        blobs = "\n".join(
            f'<script type="text/plain" id="blob-{number}">{text}</script>'
            for number, text in enumerate(self.blobs.texts)
        )
        base_map = None if self.tiles is None else asdict(self.tiles)
        told = json.dumps({**self.told, "tiles": base_map}, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        parts = {
            "POLICY": policy,
            "TITLE": html.escape(self.title),
            "GENERATOR": f"rs_embed {_version()}",
            "STYLE": style,
            "TOLD": told.replace("<", "\\u003c"),
            "BLOBS": blobs,
            "SCRIPT": script,
        }
        first, *rest = _part("page.html").split("@@")
        filled = [parts[text] if place % 2 == 0 else text for place, text in enumerate(rest)]
        return "".join([first, *filled])

    def write(self, path: Path, max_mb: float) -> Path:
        """Write the file, unless it is larger than `max_mb`; an existing one is replaced.

        Raises:
            SpecError: It would be larger.
            StorageError: It cannot be written.
        """
        text = self.html().encode("utf-8")
        if len(text) > max_mb * 1e6:
            raise SpecError(
                f"Expected a page of at most {max_mb:g} MB, got {len(text) / 1e6:.1f} MB.",
                fix=f'choose a smaller area, stored="pca64", or max_mb={-(-len(text) // 1_000_000)}',
            )
        with storing(path.parent), replacing(path) as part:
            part.write_bytes(text)
        return path


def checked_path(path: str | Path) -> Path:
    """Return the path of a page, before anything is computed.

    Raises:
        StorageError: It does not end in .html, or its folder does not exist.
    """
    target = Path(path).expanduser()
    if target.suffix.lower() not in _SUFFIXES:
        raise StorageError(f"Expected the path of a page, got {str(path)!r}.", fix='for example "explore.html"')
    if not target.parent.is_dir():
        raise StorageError(
            f"Expected an existing folder, got {str(target.parent)!r}.", fix="make it, or choose another"
        )
    return target


def _part(name: str) -> str:
    return (files("rs_embed.explore") / "page" / name).read_text("utf-8")


def style_policy(style: str) -> str:
    """Return the policy of a page without scripts: its own style sheet, and nothing else."""
    return f"default-src 'none'; style-src '{_hash(style)}'; base-uri 'none'; form-action 'none'"


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def _version() -> str:
    import rs_embed

    return rs_embed.__version__
