"""The grids of an exported run, by id."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rs_embed.embedding.embedding import Embedding
from rs_embed.errors import SpecError, StorageError
from rs_embed.formats.files import load

if TYPE_CHECKING:
    import xarray as xr


class Grids(Mapping[str, "xr.DataArray"]):
    """A mapping of id to grid; a grid is read when it is accessed.

    Args:
        folder: The folder to which paths are relative.
        places: Id and path of each grid.
        faults: Full path -> function that returns what is wrong with the file, or `None`.
    """

    def __init__(
        self, folder: Path, places: Sequence[tuple[str, str]], faults: Mapping[str, Callable[[Path], str | None]]
    ) -> None:
        self._folder, self._faults = folder, faults
        self._places: dict[str, list[str]] = {}
        for name, href in places:
            self._places.setdefault(name, []).append(href)

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __getitem__(self, name: str) -> "xr.DataArray":
        """Return a grid as an array `[band, y, x]` with coordinates and CRS."""
        return self.embedding(name).to_xarray()

    def embedding(self, name: str) -> Embedding:
        """Return a grid as an `Embedding` with its metadata.

        Raises:
            KeyError: No grid has this id.
            SpecError: Several rows have this id.
            StorageError: The file is missing or damaged.
        """
        hrefs = self._places[name]
        if len(hrefs) > 1:
            raise SpecError(
                f"Expected one grid with the id {name!r}, got {len(hrefs)}.",
                fix="read them by their paths in Run.to_frame()['href']",
                files=", ".join(hrefs),
            )
        path = Path(os.path.normpath(self._folder / hrefs[0]))
        fault = self._faults[str(path)](path) if str(path) in self._faults and path.exists() else None
        if fault is not None:
            raise StorageError(
                f"Expected the grid written to {str(path)!r}, got a file {fault}.",
                fix="repeat the export with verify=True (rs-embed export --verify) to compute damaged files again",
            )
        return load(path)
