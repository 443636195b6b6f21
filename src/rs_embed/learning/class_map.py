"""Maps of what a head predicts, made block by block: classes with colours and names, probabilities, numbers."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from rs_embed.embedding.embedding import Embedding
from rs_embed.errors import SpecError, StorageError
from rs_embed.exports.results.embedding_map import EmbeddingMap
from rs_embed.exports.results.map_cog import Part, RasterLayout, write_cog
from rs_embed.exports.results.map_level import WINDOW_BYTES, Cells
from rs_embed.exports.results.map_rasters import RETURNED_BYTES
from rs_embed.exports.results.open_region import open_region
from rs_embed.exports.unit import MAP
from rs_embed.formats.files import format_of
from rs_embed.learning.head import Head, HeadFacts, facts_of, text_of
from rs_embed.learning.origin import VectorOrigin
from rs_embed.learning.palette import rgb
from rs_embed.learning.predict import decided
from rs_embed.learning.qgis import raster_names, raster_style

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

    from rs_embed.exports.results.map_store import Time
    from rs_embed.learning.areas import Areas, Sample
    from rs_embed.learning.labels import Labels
    from rs_embed.places import Given

Mappable: TypeAlias = Embedding | EmbeddingMap | str | Path
"""A grid or the map of a region, or its file or folder."""
HEAD_TAG = "RS_EMBED_HEAD"
"""The tag with the facts of the head (JSON) in maps made by it."""
MOST_CLASSES = 255
"""Codes are one byte, and 0 is nodata."""


@dataclass(frozen=True, eq=False)
class ClassMap:
    """The map of a head: in memory, or in a file of which parts are read when they are needed."""

    facts: HeadFacts
    """The head: its classes, colours, origin and score."""
    geobox: GeoBox
    path: Path | None
    """The GeoTIFF; `None` if the map is in memory."""
    values: NDArray[np.generic] | None
    """`[bands, H, W]` in memory: codes of classes (uint8; 0 is nodata, 1 the first class), or float32."""

    @classmethod
    def open(cls, path: str | Path) -> "ClassMap":
        """Open a GeoTIFF that `Head.map` wrote.

        Raises:
            StorageError: It is not one.
        """
        import rasterio
        from rasterio.errors import RasterioError

        try:
            with rasterio.open(path) as file:
                facts = facts_of(file.tags().get(HEAD_TAG))
                return cls(facts, GeoBox(file.shape, file.transform, str(file.crs)), Path(path), None)
        except (RasterioError, ValueError, KeyError, TypeError) as error:
            raise StorageError(
                f"Expected a map that Head.map wrote at {str(path)!r}, got none ({type(error).__name__}: {error}).",
                fix="give its GeoTIFF of classes",
            ) from error

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes: code 1 is the first."""
        return self.facts.classes

    def __repr__(self) -> str:
        height, width = self.geobox.shape
        where = "in memory" if self.path is None else f"in {str(self.path)!r}"
        names = ", ".join(f"{code} {name}" for code, name in enumerate(self.classes, start=1)) or self.facts.column
        note = f"\n  {self.facts.origin.warning}" if self.facts.origin.warning else ""
        return f"ClassMap({height} x {width} cells, {self.geobox.crs}, {where}: {names}){note}"

    def to_xarray(self) -> "xr.DataArray":
        """Return `[y, x]`, or `[band, y, x]` for several labels, with coordinates and CRS.

        Raises:
            SpecError: It is too large for memory.
        """
        import xarray as xr

        from rs_embed.core.geo import with_coordinates

        values = self.read()
        about: dict[str, object] = {"long_name": f"{self.facts.column} by {self.facts.origin.model_id}"}
        if self.facts.kind == "classes":
            about |= {"flag_values": list(range(1, len(self.classes) + 1)), "flag_meanings": " ".join(self.classes)}
        name = self.facts.column
        if len(values) == 1:
            return with_coordinates(xr.DataArray(values[0], dims=("y", "x"), name=name, attrs=about), self.geobox)
        bands = {"band": list(self.classes)}
        return with_coordinates(
            xr.DataArray(values, dims=("band", "y", "x"), coords=bands, name=name, attrs=about), self.geobox
        )

    def read(self, cells: Cells | None = None) -> NDArray[np.generic]:
        """Return the values of some cells, `[bands, H, W]`; by default of all.

        Raises:
            SpecError: It is too large for memory.
        """
        if self.values is not None:
            return self.values if cells is None else self.values[:, cells.rows, cells.cols]
        import rasterio
        from rasterio.windows import Window

        with rasterio.open(self.path) as file:
            if cells is None:
                _require_small(self.geobox, file.count, np.dtype(file.dtypes[0]).itemsize, "read it in parts")
                return np.asarray(file.read())
            return np.asarray(file.read(window=Window(cells.col, cells.row, cells.width, cells.height)))

    def small(self, shape: tuple[int, int]) -> NDArray[np.generic]:
        """Return the first band at another size, `[H, W]`, from the overviews of the file."""
        if self.values is not None:
            rows, cols = (np.arange(new) * old // new for new, old in zip(shape, self.geobox.shape, strict=True))
            return np.asarray(self.values[0][np.ix_(rows, cols)])
        import rasterio

        with rasterio.open(self.path) as file:
            return np.asarray(file.read(1, out_shape=shape))

    def strips(self) -> Iterator[Cells]:
        """Yield all cells in strips of whole rows, small enough for memory."""
        yield from _strips(self.geobox, 4 * max(1, len(self.classes)))

    def polygons(self, path: str | Path, *, min_area_m2: float = 0.0) -> Path:
        """Write connected cells of one class as polygons of a GeoPackage, with columns `class`, `code` and `area_m2`.

        Args:
            path: Ends in .gpkg; an existing file is replaced. A style for QGIS is written beside it, unless a GeoTIFF
                has the same name: QGIS takes one style for both.
            min_area_m2: Leave out smaller polygons.

        Raises:
            SpecError: The map has no classes.
            StorageError: The file cannot be written.
        """
        from rs_embed.learning.polygons import write_polygons

        return write_polygons(self, Path(path), min_area_m2)

    def areas(
        self,
        reference: "Given | Labels | None" = None,
        *,
        sample: "Sample | None" = None,
    ) -> "Areas":
        """Measure the area of each class, with the error that the labels tell.

        Counting cells is biased: it takes the errors of the map for truth. With a random sample of labels, the error
        matrix corrects it and gives a confidence interval (Olofsson et al. 2014).

        Args:
            reference: Labels of points in the map that the head was not trained on: a table with the head's column, or
                labels. By default, the head's own labels, as they were predicted in the folds.
            sample: How the labels were placed in the area of this map: "random" (also on a regular grid), or
                "stratified" (at random within each class of the map). Labels that were placed otherwise, such as
                along roads or where the class is clear, allow no estimate; leave it out, and the table shows the
                counts and the errors without it.

        Raises:
            SpecError: The map has no classes, or the labels have other classes.
        """
        from rs_embed.learning.areas import areas_of

        return areas_of(self, reference, sample)

    def plot(self, path: str | Path | None = None) -> "Figure":
        """Draw the map with its classes.

        Args:
            path: File to write as well (`.png`, `.pdf`, ...).
        """
        from rs_embed.learning.drawing import draw

        return draw(self, None if path is None else Path(path))


def map_classes(head: Head, tokens: "MapTokens", out: str | Path | None, probabilities: str | Path | None) -> ClassMap:
    """See `Head.map`."""
    if head.kind == "classes" and len(head.classes) > MOST_CLASSES:
        raise SpecError(f"Expected at most {MOST_CLASSES} classes, got {len(head.classes)}.", fix="merge some")
    if probabilities is not None and head.kind != "classes":
        raise SpecError(
            f"Expected probabilities of classes, got a head of kind {head.kind!r}.",
            fix="leave it out: the map of several labels holds their probabilities",
        )
    head.origin.require(tokens.origin)
    answers = tokens.answers(head)
    tags = _tags(head, tokens.days)
    if probabilities is not None:
        path = Path(probabilities).expanduser()
        layout = RasterLayout(tuple(f"probability of {name}" for name in head.classes), tags=tags)
        write_cog(path, tokens.geobox, layout, ((cells, answers(cells)) for cells in tokens.windows()))
        answers = _read(path)
    layout = _layout(head, tags)
    parts: Iterator[Part] = ((cells, _coded(head, answers(cells))) for cells in tokens.windows())
    if out is None:
        size = np.dtype(layout.dtype).itemsize
        _require_small(tokens.geobox, len(layout.names), size, 'write it: head.map(..., out="classes.tif")')
        values = np.full((len(layout.names), *tokens.geobox.shape), 0 if layout.palette else np.nan, layout.dtype)
        for cells, part in parts:
            values[:, cells.rows, cells.cols] = part
        return ClassMap(head.facts, tokens.geobox, None, values)
    path = Path(out).expanduser()
    write_cog(path, tokens.geobox, layout, parts)
    if head.kind == "classes":
        raster_style(path, head.classes, head.facts.colours)
        raster_names(path, head.classes, head.facts.colours)
    return ClassMap(head.facts, tokens.geobox, path, None)


Answers: TypeAlias = Callable[[Cells], NDArray[np.float32]]
"""Returns the answers of the head for some cells, `[K, H, W]`; NaN on nodata."""


@dataclass(frozen=True, eq=False)
class MapTokens:
    """The tokens of a grid or of a region, read in windows."""

    geobox: GeoBox
    origin: VectorOrigin
    days: str | None
    windows: Callable[[], Iterator[Cells]]
    read: Callable[[Cells], NDArray[np.float32]]
    """Returns `[H, W, D]`."""

    def answers(self, head: Head) -> Answers:
        """Return a function that predicts some cells."""

        def predicted(cells: Cells) -> NDArray[np.float32]:
            tokens = self.read(cells)
            valid = np.isfinite(tokens).all(axis=-1)
            values = np.full((head.fitted.outputs, *valid.shape), np.nan, np.float32)
            if valid.any():
                values[:, valid] = head.fitted.answers(tokens[valid]).T
            return values

        return predicted


def tokens_of(what: Mappable, head: Head | None, time: "Time", number: int) -> MapTokens:
    """Open a grid or the map of a region to read its tokens; a grid of many windows in the state that a head needs."""
    if isinstance(what, str | Path):
        path = Path(what).expanduser()
        what = Embedding.load(path) if format_of(path) and path.name != MAP else open_region(path)
    if isinstance(what, EmbeddingMap):
        moment, level = what.time_number(time), what.level(number)
        days = what.times[moment]
        told = None if days is None else f"{days.start} to {days.end}"
        return MapTokens(
            level.geobox,
            VectorOrigin.of_map(what),
            told,
            lambda: level.windows(moment),
            lambda cells: level.tokens(moment, cells),
        )
    if not isinstance(what, Embedding) or not what.is_grid or what.geobox is None:
        raise SpecError(
            f"Expected a georeferenced grid or the map of a region, got {what!r}.",
            fix="request output=OutputSpec.grid() with a place; head.predict takes vectors",
        )
    raw = head is not None and head.origin.debiased is False
    grid, geobox = what if raw else what.debiased(), what.geobox
    data = np.moveaxis(grid.data, 0, -1)
    return MapTokens(
        geobox,
        VectorOrigin.of(grid),
        grid.meta.temporal,
        lambda: _strips(geobox, 4 * data.shape[-1]),
        lambda cells: data[cells.rows, cells.cols],
    )


def _strips(geobox: GeoBox, cell_bytes: int) -> Iterator[Cells]:
    height, width = geobox.shape
    rows = max(1, WINDOW_BYTES // (cell_bytes * width))
    for row in range(0, height, rows):
        yield Cells(row, 0, min(rows, height - row), width)


def _coded(head: Head, answers: NDArray[np.float32]) -> NDArray[np.generic]:
    """Return codes of classes `[1, H, W]`, 0 where there is no answer; other answers stay as they are."""
    if head.kind != "classes":
        return answers
    codes = decided(np.moveaxis(answers, 0, -1), "classes").astype(np.uint8) + np.uint8(1)
    return np.where(np.isfinite(answers).all(axis=0), codes, np.uint8(0))[None]


def _layout(head: Head, tags: dict[str, str]) -> RasterLayout:
    if head.kind == "number":
        return RasterLayout((head.facts.column,), tags=tags)
    if head.kind == "multilabel":
        return RasterLayout(tuple(f"probability of {name}" for name in head.classes), tags=tags)
    palette = {0: (0, 0, 0, 0)}
    palette |= {code: (*rgb(colour), 255) for code, colour in enumerate(head.facts.colours, start=1)}
    return RasterLayout((head.facts.column,), "uint8", tags, palette)


def _tags(head: Head, days: str | None) -> dict[str, str]:
    origin = head.origin
    tags = {HEAD_TAG: text_of(head.facts), "MODEL": origin.model_id, "WEIGHTS": origin.weights or ""}
    tags |= {"LICENCE": origin.licence or "", "NOTE": origin.weights_note or "", "DAYS": days or ""}
    tags["CLASSES"] = "; ".join(f"{code}: {name}" for code, name in enumerate(head.classes, start=1))
    tags["SCORE"] = "" if head.validation is None else str(head.validation)
    return {name: text for name, text in tags.items() if text}


def _read(path: Path) -> Answers:
    def read(cells: Cells) -> NDArray[np.float32]:
        import rasterio
        from rasterio.windows import Window

        with rasterio.open(path) as file:
            return np.asarray(file.read(window=Window(cells.col, cells.row, cells.width, cells.height)))

    return read


def _require_small(geobox: GeoBox, bands: int, item_bytes: int, fix: str) -> None:
    size = bands * item_bytes * geobox.shape[0] * geobox.shape[1]
    if size > RETURNED_BYTES:
        raise SpecError(
            f"Expected a map of at most {RETURNED_BYTES / 1e6:.0f} MB in memory, got {size / 1e6:,.0f} MB.", fix=fix
        )
