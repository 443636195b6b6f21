"""`import rs_embed.xarray` gives every `xarray.DataArray` the accessor `.emb`.

>>> import rs_embed.xarray
>>> grid = emb.to_xarray()
>>> grid.sel(x=slice(344_500, 345_500)).emb.similar(12.94, 47.77)

It works on any array with the dimensions `band`, `y` and `x`: what `Embedding.to_xarray`, `EmbeddingMap.to_xarray` and
`Run.grids` give, opened files, and what xarray made of them. `import rs_embed` alone does not import xarray.
"""

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import CRS

from rs_embed.core.checks import require_lon_lat
from rs_embed.embedding.components import Components
from rs_embed.embedding.embedding import Embedding
from rs_embed.embedding.meta import Meta
from rs_embed.embedding.points import cells_of
from rs_embed.embedding.similarity import cosine
from rs_embed.errors import NoValidPixels, SpecError
from rs_embed.formats.parts import META_TAG, VALID

if TYPE_CHECKING:
    Vector = NDArray[np.floating] | Embedding | xr.DataArray

_COLOURS = ("red", "green", "blue", "alpha")
_UNEVEN = 1e-3
"""Largest deviation of a coordinate from even steps, cells."""


@xr.register_dataarray_accessor("emb")  # type: ignore[no-untyped-call]
class EmbeddingArray:
    """The accessor `.emb` of an array of embeddings, `[..., band, y, x]` in any order.

    Tokens are compared as they are: to subtract position offsets, begin with `emb.debiased().to_xarray()`. A lazy array
    is loaded whole, so select a part first, or use the methods of `EmbeddingMap`.
    """

    def __init__(self, array: xr.DataArray) -> None:
        self._array = array

    @property
    def geobox(self) -> GeoBox:
        """The grid, from the coordinates `y` and `x` and the CRS beside them.

        Raises:
            SpecError: There are no such coordinates, they are not evenly spaced, or there is no CRS.
        """
        array = self._array
        if not {"y", "x"} <= set(array.coords):
            raise SpecError(
                f"Expected an array with the coordinates y and x, got {', '.join(map(str, array.coords)) or 'none'}.",
                fix="rename them: array.rename(lat='y', lon='x')",
            )
        name = array.attrs.get("grid_mapping") or array.encoding.get("grid_mapping") or "spatial_ref"
        told = array.coords[name].attrs if name in array.coords else {}
        if not {"crs_wkt", "spatial_ref"} & set(told):
            raise SpecError(
                f"Expected a CRS in the coordinate {name!r}, got none.",
                fix='open files with decode_coords="all", or write the CRS: array.rio.write_crs("EPSG:32633")',
            )
        crs = CRS.from_wkt(str(told.get("crs_wkt") or told["spatial_ref"]))
        transform = [float(one) for one in str(told.get("GeoTransform", "")).split()]
        (left, width), (top, height) = (
            _steps(array.coords[axis].to_numpy(), axis, transform[place] if transform else None)
            for axis, place in (("x", 1), ("y", 5))
        )
        affine = Affine(width, 0, left - width / 2, 0, height, top - height / 2)
        epsg = crs.to_epsg()
        return GeoBox((array.sizes["y"], array.sizes["x"]), affine, f"EPSG:{epsg}" if epsg else crs.to_wkt())

    def at(self, lon: float, lat: float) -> xr.DataArray:
        """Return the token that contains a point, without interpolation: the array without `y` and `x`.

        Args:
            lon: Longitude, degrees.
            lat: Latitude, degrees.

        Raises:
            SpecError: The point lies outside the grid, or the grid has no place.
        """
        lon, lat = require_lon_lat(lon, lat)
        geobox = self.geobox
        (row,), (col,) = cells_of(geobox, np.array([lon]), np.array([lat]))
        if row < 0:
            edges = ", ".join(f"{edge:.0f}" for edge in geobox.boundingbox)
            raise SpecError(
                f"Expected a point on the grid, got lon {lon:.6f}, lat {lat:.6f} outside it.",
                grid=f"{edges} (left, bottom, right, top) in {geobox.crs}",
                fix="choose a point inside",
            )
        return self._array.isel(y=int(row), x=int(col))

    def similar(
        self, lon: float | None = None, lat: float | None = None, *, like: "Vector | None" = None
    ) -> xr.DataArray:
        """Compute the similarity of each token to a place or to a vector: cosine, -1 to 1.

        Args:
            lon: Of the place, degrees. With several times, each is compared with the place at that time.
            lat: Of the place, degrees.
            like: A vector instead: an array `[band]`, a pooled `Embedding`, or what `at` gives.

        Returns:
            The array without `band`; NaN where a token has no value.

        Raises:
            SpecError: The place lies outside, or the vector has another length or model.
        """
        array = self._tokens()
        if (like is None) == (lon is None or lat is None):
            raise SpecError("Expected a place or a vector, got both or neither.", fix="similar(lon, lat)")
        vector = self.at(lon, lat) if lon is not None and lat is not None else _vector(like)
        _require_same_model(array, vector)
        if vector.sizes.get("band") != array.sizes["band"]:
            raise SpecError(
                f"Expected a vector of {array.sizes['band']} numbers, got {dict(vector.sizes)}.",
                fix="compare embeddings of one model",
            )
        return _compared(array, vector).rename("similarity").assign_attrs(long_name="cosine similarity")

    def change(self, other: xr.DataArray) -> xr.DataArray:
        """Compute the change of each token to another array of the same ground: 1 - cosine, 0 to 2.

        Args:
            other: The same grid at another time, such as `array.isel(time=1)`.

        Raises:
            SpecError: The arrays differ in grid or model.
        """
        one, two = self._tokens(), other.emb._tokens()
        _require_same_model(one, two)
        if self.geobox != other.emb.geobox:
            raise SpecError("Expected two arrays of the same ground, got others.", fix="compare equal grids")
        return (1 - _compared(one, two)).rename("change").assign_attrs(long_name="1 - cosine similarity")

    def pca(self) -> xr.DataArray:
        """Return the first three principal components as red, green, blue and opacity, `[..., band, y, x]` in 0..1.

        They are fitted on all tokens, so the colours of several times can be compared.

        Raises:
            NoValidPixels: No token has a value.
        """
        array = self._tokens().transpose(..., "y", "x", "band")
        tokens = array.to_numpy().astype(np.float32, copy=False)
        valid = np.isfinite(tokens).all(axis=-1)
        if not valid.any():
            raise NoValidPixels("Expected tokens with a value, got none.", fix="choose another part or time")
        colours = Components.fit(tokens[valid]).colours(tokens)
        made = array.isel(band=slice(0, 1)).squeeze("band", drop=True).expand_dims(band=list(_COLOURS), axis=-1)
        named = made.copy(data=colours).rename("pca").assign_attrs(long_name="3 principal components")
        return named.transpose(..., "band", "y", "x")

    def to_embedding(self) -> Embedding:
        """Return the `Embedding` again, of the part that is left: to `sample`, `plot`, `explore` or `save` it.

        Raises:
            SpecError: The array lacks the metadata that `Embedding.to_xarray` gave it, or has further dimensions.
        """
        array = self._array
        if META_TAG not in array.attrs:
            raise SpecError(
                f"Expected an array with the attribute {META_TAG}, got one without.",
                fix="keep attributes: xr.set_options(keep_attrs=True)",
            )
        meta = Meta.model_validate_json(str(array.attrs[META_TAG]))
        if set(array.dims) == {"band"}:
            return Embedding(array.to_numpy(), meta, None)
        array = self._tokens().transpose("band", "y", "x")
        geobox = self.geobox
        meta = meta.model_copy(update={"transform": tuple(geobox.affine)[:6], "crs": str(geobox.crs)})
        valid = array.coords[VALID].to_numpy() if VALID in array.coords else None
        return Embedding(array.to_numpy(), meta, geobox, valid)

    def _tokens(self) -> xr.DataArray:
        if not {"band", "y", "x"} <= set(self._array.dims):
            raise SpecError(
                f"Expected an array with the dimensions band, y and x, got {', '.join(map(str, self._array.dims))}.",
                fix="rename them: array.rename(...)",
            )
        return self._array


def _steps(values: NDArray[np.floating], axis: str, known: float | None) -> tuple[float, float]:
    """Return the first of some pixel centres and the step between them."""
    step = known if len(values) == 1 else float(values[-1] - values[0]) / (len(values) - 1)
    if step is None or np.abs(np.diff(values) - step).max(initial=0) > _UNEVEN * abs(step):
        raise SpecError(
            f"Expected evenly spaced coordinates {axis}, got {len(values)} others.", fix="select slices, not lists"
        )
    return float(values[0]), step


def _vector(like: "Vector | None") -> xr.DataArray:
    if isinstance(like, Embedding):
        return like.to_xarray()
    return like if isinstance(like, xr.DataArray) else xr.DataArray(np.asarray(like), dims="band")


def _compared(one: xr.DataArray, other: xr.DataArray) -> xr.DataArray:
    core = [["band"], ["band"]]
    found: xr.DataArray = xr.apply_ufunc(
        cosine, one.drop_vars("band", errors="ignore"), other.drop_vars("band", errors="ignore"), input_core_dims=core
    )
    grid = {name: one.attrs[name] for name in ("grid_mapping",) if name in one.attrs}
    return found.assign_attrs(grid)


def _require_same_model(one: xr.DataArray, other: xr.DataArray) -> None:
    """Compare what the arrays say of their model, if both do."""
    for name in ("long_name", "weights"):
        told = [array.attrs.get(name) for array in (one, other)]
        if None not in told and told[0] != told[1]:
            raise SpecError(
                "Expected two arrays of the same model and weights, got different ones, whose axes are unrelated.",
                one=told[0],
                other=told[1],
                fix="compute both with the same model and weights",
            )
