"""Pages in notebooks."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from rs_embed.core.checks import require_whole
from rs_embed.core.optional import require

if TYPE_CHECKING:
    from rs_embed.explore.widget import PageWidget

_HEIGHT_PX = (200, 4000)


def widget_of(write: Callable[[Path], object], height_px: int) -> "PageWidget":
    """Return the page that a function writes to a path as a widget.

    Raises:
        MissingDependency: anywidget is not installed.
        SpecError: The height is not a whole number of pixels from 200 to 4,000.
    """
    require("anywidget", extra="notebook")
    from rs_embed.explore.widget import PageWidget

    height = require_whole("height_px", height_px, *_HEIGHT_PX)
    with TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        write(page)
        return PageWidget(page=page.read_text("utf-8"), height_px=height)
