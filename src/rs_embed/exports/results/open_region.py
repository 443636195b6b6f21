"""Find and open the map of a region."""

from pathlib import Path

from rs_embed.core.optional import require
from rs_embed.errors import SpecError, StorageError
from rs_embed.exports.object_store import local_place
from rs_embed.exports.results.embedding_map import EmbeddingMap
from rs_embed.exports.results.map_store import crs_named
from rs_embed.exports.unit import MAP


def open_region(path: str | Path, *, crs: str | None = None) -> EmbeddingMap:
    """Open a map that `embed_region` made, finished or not. Reads only metadata.

    Args:
        path: The folder that was its `out`, the folder of a zone in it, or the `map.zarr` itself.
        crs: Which map, if the region spans several zones; for example "EPSG:32632".

    Raises:
        StorageError: There is no map, or it is damaged.
        SpecError: There are several maps, or none in that CRS; the message lists them. Or the folder is in an object
            store.
        MissingDependency: zarr is not installed.
    """
    require("zarr", "export")
    folder = local_place(path)
    found = [EmbeddingMap(one) for one in _maps_in(folder)]
    if not found:
        raise StorageError(
            f"Expected a map of embed_region in {str(path)!r}, got none.", fix="give the folder that was its `out`"
        )
    wanted = None if crs is None else crs_named(crs)
    chosen = [one for one in found if wanted is None or one.crs == wanted]
    if len(chosen) == 1:
        return chosen[0]
    first = found[0]
    raise SpecError(
        f"Expected one map in {str(path)!r}{f' in {crs}' if crs else ''}, got {len(chosen)}.",
        maps="; ".join(f"{one.geobox.crs} in {str(one.path.parent)!r}" for one in found),
        fix=f'open_region({str(path)!r}, crs="{first.geobox.crs}") or open_region({str(first.path.parent)!r})',
    )


def _maps_in(folder: Path) -> list[Path]:
    if folder.suffix == ".zarr" or (folder / "zarr.json").is_file():
        return [folder] if folder.is_dir() else []
    return sorted(one for depth in ("", "*/", "*/*/") for one in folder.glob(f"{depth}{MAP}"))
