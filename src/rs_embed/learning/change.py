"""Find what has changed between two times: a map of distances, a threshold with its false alarms, and polygons."""

import math
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pydantic import JsonValue

from rs_embed.core.atomic import replacing
from rs_embed.core.checks import require_number, require_whole
from rs_embed.core.optional import require
from rs_embed.core.specs import SpatialSpec, TemporalSpec
from rs_embed.embedding.embedding import Embedding
from rs_embed.embedding.points import cells_of
from rs_embed.embedding.show import days_of
from rs_embed.errors import NoValidPixels, SpecError, StorageError
from rs_embed.explore.facts import warning_of
from rs_embed.exports.region.shape import shapes_of
from rs_embed.exports.results.embedding_map import EmbeddingMap
from rs_embed.exports.results.map_cog import RasterLayout, labelled, write_cog
from rs_embed.exports.results.map_level import Cells, tokens_in
from rs_embed.exports.results.map_rasters import RETURNED_BYTES, change_raster
from rs_embed.learning.areas import cell_areas
from rs_embed.places import Places, read_places
from rs_embed.places.single import listed

if TYPE_CHECKING:
    import geopandas
    import xarray as xr

    from rs_embed.exports.region.shape import RegionLike
    from rs_embed.exports.results.map_store import Time

ROUNDING = 1e-6
"""Distances up to this are rounding of float32: no threshold is lower."""
_MAD_TO_SIGMA = 1.4826
"""Standard deviation of a normal distribution per median absolute deviation."""
_FEWEST = 30
"""Fewest tokens from which the spread of a distribution is estimated."""
_POINT_M = 1.0
"""The size that places require; a stable point means the token that contains it."""


@dataclass(frozen=True)
class Threshold:
    """The distance above which a token counts as changed, and what it rests on."""

    value: float
    """1 - cosine."""
    false_alarms: float
    """Share of unchanged tokens that are expected above it."""
    stable_tokens: int | None
    """Tokens of the stable places; `None` if it was estimated from all tokens."""

    @property
    def basis(self) -> str:
        """What the share of false alarms rests on, as a sentence."""
        share = f"At most {100 * self.false_alarms:.3g} % of unchanged tokens are expected above the threshold"
        if self.stable_tokens is None:
            return (
                f"{share}, assuming that most tokens are unchanged and that the logarithm of their distances is "
                "normal. Nothing here tests that: give stable places to measure it."
            )
        return f"{share}, if they vary as the {self.stable_tokens:,} tokens of the stable places do."


@dataclass(frozen=True, eq=False)
class Change:
    """What changed between two times."""

    distance: "xr.DataArray"
    """`[y, x]`: 1 - cosine of each token, 0 to 2, NaN where a time has no value."""
    threshold: Threshold
    polygons: "geopandas.GeoDataFrame"
    """Connected changed tokens, in the CRS of the grid, highest score first: `id`, `before`, `after` (days), `score`
    (mean distance over the threshold, above 1), `distance_mean`, `distance_max`, `tokens`, `area_m2`."""
    before: str
    """Days of the first time, as the imagery or the map states them."""
    after: str
    compared_tokens: int
    """Tokens with a value at both times."""
    changed_tokens: int
    """Tokens above the threshold, those in polygons that were left out included."""
    model: str
    """Model and weights, with a warning if these are random."""

    @property
    def expected_false(self) -> float:
        """Number of tokens expected above the threshold if nothing at all had changed."""
        return self.threshold.false_alarms * self.compared_tokens

    def __str__(self) -> str:
        return (
            f"{len(self.polygons):,} polygons of change from {self.before or 'unknown days'} to "
            f"{self.after or 'unknown days'}, {self.model.partition('#')[0]}\n"
            f"{self.changed_tokens:,} of {self.compared_tokens:,} tokens lie above {self.threshold.value:.4g}; without "
            f"any change, about {self.expected_false:,.0f} would\n{self.threshold.basis}"
        )

    def to_dict(self) -> dict[str, JsonValue]:
        """Return everything but the arrays as plain data."""
        return {
            "before": self.before,
            "after": self.after,
            "model": self.model,
            "polygons": len(self.polygons),
            "compared_tokens": self.compared_tokens,
            "changed_tokens": self.changed_tokens,
            "expected_false": self.expected_false,
            "threshold": self.threshold.value,
            "false_alarms": self.threshold.false_alarms,
            "stable_tokens": self.threshold.stable_tokens,
            "basis": self.threshold.basis,
        }

    def save(self, path: str | Path) -> Path:
        """Write the polygons as a GeoPackage, with the threshold and its basis in the metadata of its layer `change`.

        Args:
            path: Ends in .gpkg; an existing file is replaced.

        Raises:
            StorageError: It does not end in .gpkg, or cannot be written.
        """
        path = Path(path).expanduser()
        if path.suffix.lower() != ".gpkg" or not path.parent.is_dir():
            raise StorageError(
                f"Expected a .gpkg in a folder that exists, got {str(path)!r}.", fix="choose such a name"
            )
        about = {name: str(value) for name, value in self.to_dict().items()}
        try:
            with replacing(path, durable=False) as part:
                self.polygons.to_file(
                    part, driver="GPKG", layer="change", engine="pyogrio", geometry_type="Polygon", layer_metadata=about
                )
        except OSError as error:
            raise StorageError(f"Expected to write {str(path)!r}, got: {error}.", fix="check the folder") from error
        return path


def detect_change(
    before: Embedding | EmbeddingMap,
    after: Embedding | EmbeddingMap | None = None,
    *,
    times: "tuple[Time, Time] | None" = None,
    stable: "RegionLike | None" = None,
    false_alarms: float = 0.01,
    min_tokens: int = 1,
    level: int = 0,
    raster: str | Path | None = None,
) -> Change:
    """Find the tokens that differ between two times by more than unchanged ground does.

    Even unchanged ground gives different embeddings: light, season, haze and the sensor differ. Compare the same season
    and imagery. The distance above which a token counts as changed is chosen by the share of false alarms:

    - With `stable` places, it is a quantile of their distances, corrected for their number (split conformal
      prediction): the share holds if other unchanged tokens vary as these do.
    - Otherwise it comes from the median and the median absolute deviation of the logarithms of all distances: the share
      holds only if most tokens are unchanged, and the logarithms of their distances normal.

    The distances are held in memory, 4 bytes a token.

    Args:
        before: A grid, or the map of a region.
        after: The grid of the same ground at another time, or another map on the same grid; leave it out to compare two
            `times` of one map.
        times: Two times of one map: `("2021", "2022")`. With two maps, the time in each; may be left out where they
            have only one.
        stable: Places that did not change: points (each means the token that contains it), boxes or polygons (the
            tokens whose middle lies inside), in any form that `read_places` or `embed_region` takes.
        false_alarms: Accepted share of unchanged tokens above the threshold, 0 to 0.5, both excluded.
        min_tokens: Leave out polygons of fewer tokens.
        level: Of maps: 0 is the map, 1 and more are overviews.
        raster: Also write the distances there as a GeoTIFF. Needed for maps of more than 16 million tokens.

    Raises:
        SpecError: The two cannot be compared, or there are too few stable tokens for such a share.
        NoValidPixels: No token has a value at both times.
        MissingDependency: geopandas is not installed.
    """
    require("geopandas", "export")
    require_number("false_alarms", false_alarms, 1e-9, 0.5 - 1e-9)
    require_whole("min_tokens", min_tokens, 1, 2**31)
    if isinstance(before, EmbeddingMap) and (after is None or isinstance(after, EmbeddingMap)):
        pair = _of_maps(before, after, times, level, raster)
    elif isinstance(before, Embedding) and isinstance(after, Embedding):
        pair = _of_grids(before, after, times, level, raster)
    else:
        raise SpecError(
            f"Expected two grids or one or two maps, got {type(before).__name__} and {type(after).__name__}.",
            fix='detect_change(grid, other_grid), or detect_change(region, times=("2021", "2022"))',
        )
    distances = pair.distance.to_numpy()
    known = np.isfinite(distances)
    if not known.any():
        raise NoValidPixels("Expected tokens with a value at both times, got none.", fix="choose other times")
    threshold = (
        _from_all(distances[known], false_alarms)
        if stable is None
        else _from_stable(distances[known & _stable_mask(stable, pair.geobox)], false_alarms)
    )
    changed = known & (distances > threshold.value)
    polygons = _polygons(distances, changed, pair, threshold.value, min_tokens)
    counts = int(known.sum()), int(changed.sum())
    return Change(pair.distance, threshold, polygons, pair.before, pair.after, *counts, pair.model)


@dataclass(frozen=True, eq=False)
class _Pair:
    """Two times, compared."""

    distance: "xr.DataArray"
    geobox: GeoBox
    before: str
    after: str
    model: str


def _of_grids(before: Embedding, after: Embedding, times: object, level: int, raster: str | Path | None) -> _Pair:
    if times is not None or level:
        raise SpecError("Expected times and level with maps, got them with grids.", fix="leave them out")
    distance = before.change(after)
    if before.geobox is None or before.geobox.crs is None:
        raise SpecError("Expected grids with a place, got grids of arrays.", fix="pass spatial=... when you embed them")
    meta = before.meta
    if raster is not None:
        layout = RasterLayout(("1 - cosine similarity",), tags={"MODEL": meta.model_id, "WEIGHTS": meta.weights})
        cells = Cells(0, 0, *distance.shape)
        write_cog(Path(raster).expanduser(), before.geobox, layout, iter([(cells, distance.to_numpy()[None])]))
    model = _model_text(meta.model_id, meta.weights, meta.warning)
    return _Pair(distance, before.geobox, days_of(meta), days_of(after.meta), model)


def _of_maps(
    before: EmbeddingMap,
    after: EmbeddingMap | None,
    times: "tuple[Time, Time] | None",
    level: int,
    raster: str | Path | None,
) -> _Pair:
    if after is None and times is None:
        listed_times = "; ".join(f"{number}: {window}" for number, window in enumerate(before.times))
        raise SpecError("Expected two times of the map, got none.", times=listed_times, fix="times=(0, 1)")
    other = before if after is None else after
    first, second = times or (None, None)
    numbers = before.time_number(first), other.time_number(second)
    one = before.level(level)
    if raster is None and 4 * math.prod(one.geobox.shape) > RETURNED_BYTES:
        raise SpecError(
            f"Expected raster=... for a map of {math.prod(one.geobox.shape):,} tokens, got none.",
            fix='raster="distance.tif", or an overview: level=1',
        )
    made = change_raster(((before, numbers[0]), (other, numbers[1])), level, raster)
    if raster is not None:
        made = _whole(Path(raster).expanduser(), one.geobox)
    header = before.header
    return _Pair(
        made,
        one.geobox,
        _window_text(before.times[numbers[0]]),
        _window_text(other.times[numbers[1]]),
        _model_text(header.model_id, header.weights, warning_of(header)),
    )


def _window_text(window: TemporalSpec | None) -> str:
    return "" if window is None else f"{window.start} to {window.end}"


def _whole(path: Path, geobox: GeoBox) -> "xr.DataArray":
    """Read back the distances that were written block by block."""
    import rasterio

    with rasterio.open(path) as file:
        return labelled(file.read(), geobox, "change", "1 - cosine similarity")


def _model_text(model_id: str, weights: str | None, warning: str | None) -> str:
    return f"{model_id}, {warning or weights or 'weights unknown'}"


def _from_stable(distances: NDArray[np.float32], false_alarms: float) -> Threshold:
    """The smallest stable distance above which a further exchangeable one lies with at most this probability.

    Source: split conformal prediction, Vovk et al. 2005, the quantile ceil((n + 1) (1 - alpha)) / n.
    """
    count = len(distances)
    rank = math.ceil((count + 1) * (1 - false_alarms) - 1e-9)  # rounding must not ask for one more
    if rank > count:
        raise SpecError(
            f"Expected at least {math.ceil(1 / false_alarms) - 1:,} tokens in stable places for a share of "
            f"{false_alarms:g} false alarms, got {count:,}.",
            fix=f"add stable places, or accept a larger share: false_alarms={1 / (count + 1):.2g}"
            if count > 1
            else "give stable places on the grid, with values at both times",
        )
    value = float(np.partition(distances, rank - 1)[rank - 1])
    return Threshold(max(value, ROUNDING), false_alarms, count)


def _from_all(distances: NDArray[np.float32], false_alarms: float) -> Threshold:
    """See `detect_change`: the median resists changes of up to half of the tokens."""
    if len(distances) < _FEWEST:
        raise SpecError(
            f"Expected at least {_FEWEST} tokens to estimate what is usual, got {len(distances)}.",
            fix="compare larger grids, or give stable places",
        )
    logs = np.log(np.maximum(distances.astype(np.float64), ROUNDING))
    middle = np.median(logs)
    spread = _MAD_TO_SIGMA * np.median(np.abs(logs - middle))
    value = math.exp(middle + NormalDist().inv_cdf(1 - false_alarms) * spread)
    return Threshold(max(value, ROUNDING), false_alarms, None)


def _stable_mask(stable: "RegionLike", geobox: GeoBox) -> NDArray[np.bool_]:
    """Whether each token lies in a stable place, `[H, W]`."""
    given = [stable] if isinstance(stable, SpatialSpec) else listed(stable)
    sized = isinstance(given, Places) or (isinstance(given, list | tuple) and isinstance(given[0], SpatialSpec))
    places = read_places(given, buffer_m=None if sized else _POINT_M)
    mask = np.zeros(tuple(geobox.shape), bool)
    points = np.isfinite(places.lon) & (places.buffer_m == _POINT_M)
    rows, cols = cells_of(geobox, places.lon[points], places.lat[points])
    mask[rows[rows >= 0], cols[rows >= 0]] = True
    if not points.all():
        crs = str(geobox.crs)
        mask |= tokens_in(shapes_of(places.take(np.flatnonzero(~points)), crs)[crs], geobox)
    return mask


def _polygons(
    distances: NDArray[np.float32], changed: NDArray[np.bool_], pair: _Pair, threshold: float, min_tokens: int
) -> "geopandas.GeoDataFrame":
    """Outline the connected tokens (neighbours share a side) that changed, highest score first."""
    import geopandas
    import shapely
    from rasterio.features import rasterize, shapes

    found = shapes(changed.astype(np.uint8), mask=changed, connectivity=4, transform=pair.geobox.affine)
    outlines = [shapely.geometry.shape(outline) for outline, _ in found]
    numbers = (
        rasterize(zip(outlines, range(1, len(outlines) + 1), strict=True), changed.shape, transform=pair.geobox.affine)
        if outlines
        else np.zeros(changed.shape, int)
    )
    place, values = numbers[changed] - 1, distances[changed].astype(np.float64)
    tokens = np.bincount(place, minlength=len(outlines))
    largest = np.zeros(len(outlines))
    np.maximum.at(largest, place, values)
    mean = np.bincount(place, values, len(outlines)) / np.maximum(tokens, 1)
    frame = geopandas.GeoDataFrame(
        {
            "before": pair.before,
            "after": pair.after,
            "score": mean / threshold,
            "distance_mean": mean,
            "distance_max": largest,
            "tokens": tokens,
            "area_m2": np.bincount(place, cell_areas(pair.geobox)[np.nonzero(changed)[0]], len(outlines)),
        },
        geometry=geopandas.GeoSeries(outlines, crs=str(pair.geobox.crs)),
    )
    kept = frame[frame["tokens"] >= min_tokens].sort_values("score", ascending=False, ignore_index=True)
    kept.insert(0, "id", np.arange(1, len(kept) + 1))
    return kept
