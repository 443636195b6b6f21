"""A page as a widget of a notebook: what is clicked and labelled on it comes back to Python."""

from collections.abc import Mapping
from importlib.resources import files
from typing import TYPE_CHECKING

import anywidget
import traitlets

from rs_embed.core.optional import require

if TYPE_CHECKING:
    import geopandas

_NOTHING = {"type": "FeatureCollection", "features": []}


class PageWidget(anywidget.AnyWidget):
    """A page of `explore` in a notebook.

    The page runs in a frame of its own, which can neither read the notebook nor send a request. It only tells the
    widget what is chosen and what is labelled. `widget.observe(function, "labels_geojson")` calls a function on every
    change.
    """

    _esm = (files("rs_embed.explore") / "page" / "widget.mjs").read_text("utf-8")
    page = traitlets.Unicode().tag(sync=True)
    """The file as text."""
    height_px = traitlets.Int(680).tag(sync=True)
    selected_geojson = traitlets.Dict(_NOTHING).tag(sync=True)
    """The examples: points, or the ring of an area of a grid."""
    labels_geojson = traitlets.Dict(_NOTHING).tag(sync=True)
    """The labels, as the page saves them."""

    @property
    def selected(self) -> "geopandas.GeoDataFrame":
        """The places that were clicked or drawn around; the column `example` is "like" or "unlike".

        Raises:
            MissingDependency: geopandas is not installed: the extra `export`.
        """
        return _frame(self.selected_geojson, ["example", "result"])

    @property
    def labels(self) -> "geopandas.GeoDataFrame":
        """The labels, with the columns `label` and `class`.

        Raises:
            MissingDependency: geopandas is not installed: the extra `export`.
        """
        return _frame(self.labels_geojson, ["label", "class", "result"])


def _frame(collection: Mapping[str, object], columns: list[str]) -> "geopandas.GeoDataFrame":
    require("geopandas", extra="export")
    import geopandas

    found = collection["features"]
    if not found:
        return geopandas.GeoDataFrame({name: [] for name in columns}, geometry=[], crs="EPSG:4326")
    return geopandas.GeoDataFrame.from_features(found, crs="EPSG:4326")
