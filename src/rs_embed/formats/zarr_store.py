"""Grids as Zarr v3 stores, georeferenced for xarray, GDAL and the geo-embeddings convention."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from odc.geo.geobox import GeoBox
from pydantic import JsonValue
from pyproj import CRS

from rs_embed.core.geo import pixel_size_m
from rs_embed.core.optional import require
from rs_embed.embedding.embedding import Embedding
from rs_embed.errors import StorageError
from rs_embed.formats.base import Dtype
from rs_embed.formats.fields import model_uri, source_uris
from rs_embed.formats.netcdf import from_dataset, to_dataset
from rs_embed.formats.parts import VALID

CHUNK_PX = 256
"""Largest side of a chunk. Chunks hold all channels, because the vector of a token is read as a whole."""
CHUNK_BYTES = 64 * 2**20
_REPOSITORY = "https://raw.githubusercontent.com"


class Zarr:
    """See `FileFormat`. Stores are unsharded, because GDAL cannot read sharded ones yet."""

    name: str = "zarr"
    suffix: str = ".zarr"
    media_type: str = "application/vnd.zarr; version=3"
    grids_only: bool = True

    def room(self, embedding: Embedding) -> int:
        """See `FileFormat`; chunks at the edges have full size."""
        return 2 * embedding.data.nbytes

    def write(self, embedding: Embedding, path: Path) -> None:
        """See `FileFormat`.

        Raises:
            MissingDependency: zarr is not installed.
        """
        require("zarr", "export")
        from zarr.codecs import BloscCodec

        if embedding.geobox is None:
            raise StorageError(
                "Expected a georeferenced grid for a Zarr store, got an array without a place.",
                fix="save it as .npz or .nc",
            )
        store = to_dataset(embedding).assign_attrs(_group_attributes(embedding, embedding.geobox))
        codec = BloscCodec(cname="zstd", clevel=5, shuffle="shuffle", typesize=4)
        chunks = _chunks(embedding.data.shape)
        encoding = {"embedding": {"chunks": chunks, "compressors": [codec], "_FillValue": np.nan}}
        if VALID in store:
            encoding[VALID] = {"chunks": chunks[1:], "compressors": [codec]}
        for name in encoding:
            store[name].attrs["_CRS"] = gdal_crs(embedding.geobox)
        store.to_zarr(path, mode="w-", zarr_format=3, consolidated=False, encoding=encoding)

    def read(self, path: Path) -> Embedding:
        """See `FileFormat`.

        Raises:
            MissingDependency: zarr is not installed.
        """
        require("zarr", "export")
        import xarray as xr  # imported late because it is slow: exports of vectors do without

        with xr.open_zarr(path, consolidated=False, chunks=None) as store:
            return from_dataset(store)


def _chunks(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the chunk shape: all channels of a square, at most `CHUNK_BYTES`."""
    side = min(CHUNK_PX, max(1, int((CHUNK_BYTES / (4 * shape[0])) ** 0.5)))
    return shape[0], min(side, shape[1]), min(side, shape[2])


def gdal_crs(geobox: GeoBox) -> dict[str, JsonValue]:
    """Return the attribute `_CRS`, as GDAL reads no convention. Source: GDAL, Zarr driver, "SRS encoding"."""
    crs = CRS(str(geobox.crs))
    epsg = crs.to_epsg()
    return {"url": f"http://www.opengis.net/def/crs/EPSG/0/{epsg}"} if epsg else {"wkt": crs.to_wkt()}


def _group_attributes(embedding: Embedding, geobox: GeoBox) -> dict[str, JsonValue]:
    meta = embedding.meta
    cell_px = max(1, round(pixel_size_m(geobox) / meta.gsd_m))
    sources = dict.fromkeys(one.collection for one in meta.inputs)
    return describe_grid(
        geobox,
        model_id=meta.model_id,
        sources=sources,
        dim=embedding.data.shape[0],
        dtype="float32",
        cell_px=cell_px,
        version=meta.versions.get("rs_embed", ""),
    )


def describe_grid(
    geobox: GeoBox, *, model_id: str, sources: Iterable[str], dim: int, dtype: Dtype, cell_px: int, version: str
) -> dict[str, JsonValue]:
    """The attributes of a group by the conventions for embeddings, for projections and for grids.

    Args:
        geobox: Of the tokens.
        model_id: Whose they are.
        sources: Collections of the imagery.
        dim: Channels.
        dtype: How they are stored.
        cell_px: Side of a token, pixels of the imagery.
        version: Of this package.
    """
    code = CRS(str(geobox.crs)).to_epsg()
    left, bottom, right, top = geobox.boundingbox
    return {
        "zarr_conventions": list(_CONVENTIONS),
        "geoemb:type": "chip",
        "geoemb:dimensions": dim,
        "geoemb:model": model_uri(model_id),
        "geoemb:source_data": list(source_uris(sources)),
        "geoemb:data_type": dtype,
        "geoemb:gsd": pixel_size_m(geobox),
        "geoemb:chip_layout": {"layout_type": "regular_grid", "chip_size": [cell_px, cell_px]},
        "geoemb:build_version": f"rs_embed {version}".strip(),
        **({"proj:code": f"EPSG:{code}"} if code else {"proj:wkt2": CRS(str(geobox.crs)).to_wkt()}),
        "spatial:dimensions": ["y", "x"],
        "spatial:shape": list(geobox.shape),
        "spatial:transform": list(tuple(geobox.affine)[:6]),
        "spatial:bbox": [left, bottom, right, top],
        "spatial:registration": "pixel",
    }


def _convention(uuid: str, name: str, repository: str, description: str) -> dict[str, JsonValue]:
    return {
        "uuid": uuid,
        "name": name,
        "schema_url": f"{_REPOSITORY}/{repository}/refs/tags/v1/schema.json",
        "spec_url": f"https://github.com/{repository}/blob/v1/README.md",
        "description": description,
    }


_CONVENTIONS: tuple[dict[str, JsonValue], ...] = (
    _convention(
        "61c12cc5-0e28-4056-999a-480cf3fb7e4c",
        "geoemb:",
        "geo-embeddings/embeddings-zarr-convention",
        "Geoembeddings convention for geospatial embedding arrays with model provenance",
    ),
    _convention(
        "f17cb550-5864-4468-aeb7-f3180cfb622f",
        "proj:",
        "zarr-conventions/geo-proj",
        "Coordinate reference system information for geospatial data",
    ),
    _convention(
        "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4",
        "spatial:",
        "zarr-conventions/spatial",
        "Spatial coordinate information",
    ),
)
"""Source: the README of each repository; uuid, name and description are fixed there."""
