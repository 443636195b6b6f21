"""Make the rasters of a map: similarity, change, principal components, and its tokens."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rs_embed.embedding.components import Components
from rs_embed.embedding.similarity import cosine, require_same_model
from rs_embed.errors import NoValidPixels, SpecError
from rs_embed.exports.results.map_cog import COLOURS, HEADER_TAG, Part, RasterLayout, labelled, overview, write_cog
from rs_embed.exports.results.map_level import Cells, Level
from rs_embed.exports.results.map_vectors import facts_of

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

    from rs_embed.exports.results.embedding_map import Box, EmbeddingMap
    from rs_embed.exports.results.map_store import Time

RETURNED_BYTES = 64_000_000
"""Largest result without a file, bytes."""
PICTURE_CELLS = 512 * 512
"""Largest overview for a picture, if there is one this small: all of its tokens are read."""
SAMPLE_TOKENS = 16_384
"""Largest number of tokens to fit principal components."""
SAMPLE_PIECES = 64
"""Pieces that the sample is drawn from; up to 8 times as many if these have too few tokens."""
PIECE_CELLS = 64
"""Side of a piece, in whole chunks."""


def similarity_raster(
    whole: "EmbeddingMap", vector: NDArray[np.float32], time: "Time", number: int, out: str | Path | None
) -> "xr.DataArray":
    """See `EmbeddingMap.similar`."""
    level, moment = whole.level(number), whole.time_number(time)

    def values(cells: Cells) -> NDArray[np.float32]:
        return cosine(level.tokens(moment, cells), vector)[None]

    tags = _tags(whole, moment)
    layout = RasterLayout(("cosine similarity",), tags=tags)
    about = ("similarity", f"cosine similarity of {whole.header.model_id}")
    return _made(level, moment, layout, values, about=about, out=out)


def change_raster(
    pair: "tuple[tuple[EmbeddingMap, int], tuple[EmbeddingMap, int]]", number: int, out: str | Path | None
) -> "xr.DataArray":
    """See `EmbeddingMap.change`."""
    (first, before), (second, after) = pair
    level, other = first.level(number), second.level(number)
    weights = first.header.weights or second.header.weights
    require_same_model(facts_of(first.header, first.dim, weights), facts_of(second.header, second.dim, weights))
    if level.geobox != other.geobox:
        raise SpecError(
            "Expected two maps on the same grid, got others.",
            one=f"{level.geobox.shape} at {tuple(level.geobox.affine)[:6]} in {level.geobox.crs}",
            other=f"{other.geobox.shape} at {tuple(other.geobox.affine)[:6]} in {other.geobox.crs}",
            fix="make both with the same region and crs",
        )

    def values(cells: Cells) -> NDArray[np.float32]:
        return (1 - cosine(level.tokens(before, cells), other.tokens(after, cells)))[None]

    tags = _tags(first, before) | {"COMPARED_WITH": str(second.times[after])}
    layout = RasterLayout(("1 - cosine similarity",), tags=tags)
    about = ("change", f"1 - cosine similarity of {first.header.model_id}")
    return _made(level, before, layout, values, about=about, out=out)


def pca_raster(
    whole: "EmbeddingMap", time: "Time", number: int | None, seed: int, out: str | Path | None
) -> "xr.DataArray":
    """See `EmbeddingMap.pca`."""
    moment = whole.time_number(time)
    level = _picture_level(whole) if number is None and out is None else whole.level(number or 0)
    if out is None:
        _require_small(level, len(COLOURS), "pca")
    fitted = fit(level, moment, seed)

    def values(cells: Cells) -> NDArray[np.float32]:
        return np.moveaxis(fitted.colours(level.tokens(moment, cells)), -1, 0)

    tags = _tags(whole, moment) | {
        "PCA_VARIANCE_SHARES": ", ".join(f"{share:.4f}" for share in fitted.shares),
        "PCA_SEED": str(seed),
    }
    layout = RasterLayout(COLOURS, "uint8", tags)
    told = " + ".join(f"{100 * share:.0f} %" for share in fitted.shares)
    about = f"3 principal components of {whole.header.model_id} ({told} of the variance)"
    return _made(level, moment, layout, values, about=("pca", about), out=out)


def write_tokens(whole: "EmbeddingMap", path: Path, bbox: "Box", time: "Time", number: int) -> Path:
    """See `EmbeddingMap.to_geotiff`."""
    level, moment = whole.level(number), whole.time_number(time)
    crop = level.crop(bbox)
    names = tuple(f"{whole.header.model_id} {band}" for band in range(level.dim))
    layout = RasterLayout(names, tags=_tags(whole, moment))
    parts: Iterator[Part] = (
        (cells.moved(-crop.row, -crop.col), level.read(moment, cells.rows, cells.cols))
        for cells in level.windows(moment, crop)
    )
    write_cog(path, crop.geobox(level.geobox), layout, parts)
    return path


def plot_map(whole: "EmbeddingMap", time: "Time", path: Path | None) -> "Figure":
    """See `EmbeddingMap.plot`."""
    from rs_embed.embedding.plot import Panel, save_figure, side_by_side

    number = whole.time_number(0 if time is None else time)
    level = _picture_level(whole)
    colours = pca_raster(whole, number, whole.levels.index(level), 0, None)
    days = whole.times[number]
    when = "" if days is None else f"\n{days.start} to {days.end}"
    note = whole.header.weights_note if (whole.header.weights or "").startswith("random:") else None
    title = f"{whole.header.model_id}\n{note or f'3 principal components of {whole.dim} dimensions'}{when}"
    panel = Panel(title, np.moveaxis(colours.to_numpy(), 0, -1), level.geobox)
    figure = side_by_side([panel], whole.header.licence)
    if path is not None:
        save_figure(figure, path)
    return figure


def fit(level: Level, time: int, seed: int) -> Components:
    """Fit principal components on a random sample of the tokens with a value; on all of them if there are few.

    Raises:
        NoValidPixels: No token has a value.
    """
    draw, blocks = np.random.default_rng(seed), level.done(time)
    side = min(level.block, level.chunk * max(1, PIECE_CELLS // level.chunk))
    across = -(-level.block // side)
    pieces = len(blocks) * across**2
    each = -(-SAMPLE_TOKENS // max(1, min(pieces, SAMPLE_PIECES)))
    found: list[NDArray[np.float32]] = []
    count = 0
    for number in draw.choice(pieces, min(pieces, 8 * SAMPLE_PIECES), replace=False) if pieces else ():
        block, piece = divmod(int(number), across**2)
        row, col = divmod(piece, across)
        cells = Cells(row * side, col * side, side, side).within(Cells(0, 0, level.block, level.block))
        row, col = blocks[block]
        cells = cells.moved(row * level.block, col * level.block).within(level.whole)
        tokens = level.tokens(time, cells).reshape(-1, level.dim)
        tokens = tokens[np.isfinite(tokens).all(axis=1)]
        picked = tokens if len(tokens) <= each else tokens[np.sort(draw.choice(len(tokens), each, replace=False))]
        found.append(picked)
        count += len(picked)
        if count >= SAMPLE_TOKENS:
            break
    if not count:
        raise NoValidPixels(
            f"Expected tokens with a value at time {time}, got none in {min(pieces, 8 * SAMPLE_PIECES)} pieces.",
            fix="choose another time, or wait for more blocks: `map.done` is the share that exists",
        )
    return Components.fit(np.concatenate(found))


def _made(
    level: Level,
    time: int,
    layout: RasterLayout,
    values: Callable[[Cells], NDArray[np.float32]],
    *,
    about: tuple[str, str],
    out: str | Path | None,
) -> "xr.DataArray":
    """A raster of a level: in a file and a small view of that, or in memory.

    Args:
        level: The level to read tokens from.
        time: The time whose blocks are used.
        layout: Layout of the file.
        values: Returns `[band, H, W]` of cells.
        about: Name and `long_name`.
        out: The file.
    """
    if out is not None:
        path = Path(out).expanduser()
        stored: Iterator[Part] = ((cells, _stored(values(cells), layout)) for cells in level.windows(time))
        write_cog(path, level.geobox, layout, stored)
        return overview(path, level.geobox, *about)
    _require_small(level, len(layout.names), about[0])
    fill = np.nan if layout.dtype == "float32" else 0
    whole = np.full((len(layout.names), level.whole.height, level.whole.width), fill, np.float32)
    for cells in level.windows(time):
        whole[:, cells.rows, cells.cols] = values(cells)
    return labelled(whole, level.geobox, *about)


def _require_small(level: Level, bands: int, name: str) -> None:
    """Raise `SpecError` for a raster that is too large to return."""
    size = 4 * bands * level.whole.height * level.whole.width
    if size > RETURNED_BYTES:
        raise SpecError(
            f"Expected a raster of at most {RETURNED_BYTES / 1e6:.0f} MB to return, got {size / 1e6:,.0f} MB.",
            fix=f'write it: region.{name}(..., out="{name}.tif"); or take an overview, for example level=1',
        )


def _stored(values: NDArray[np.float32], layout: RasterLayout) -> NDArray[np.generic]:
    if layout.dtype == "float32":
        return values
    return np.rint(values * 255).astype(np.uint8)


def _picture_level(whole: "EmbeddingMap") -> Level:
    """Return the finest level whose tokens are quickly read, or the coarsest level.

    Raises:
        SpecError: That one is too large as well.
    """
    for level in whole.levels:
        if level.whole.height * level.whole.width <= PICTURE_CELLS:
            return level
    _require_small(whole.levels[-1], len(COLOURS), "pca")
    return whole.levels[-1]


def _tags(whole: "EmbeddingMap", time: int) -> dict[str, str]:
    header, days = whole.header, whole.times[time]
    tags = {HEADER_TAG: header.to_json(), "MODEL": header.model_id, "WEIGHTS": header.weights or ""}
    tags |= {"LICENCE": header.licence, "NOTE": header.weights_note or ""}
    tags |= {} if days is None else {"DAYS": f"{days.start} to {days.end}"}
    return {name: text for name, text in tags.items() if text}
