"""The grids of a run, by id."""

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
    """Grids by id, read one at a time.

    Args:
        folder: That paths are relative to.
        places: Id and path of each.
        faults: By the whole path: says what is wrong with a file by what is known of its bytes.
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
        """`[band, y, x]` with coordinates and CRS."""
        return self.embedding(name).to_xarray()

    def embedding(self, name: str) -> Embedding:
        """The same with its metadata.

        Raises:
            SpecError: Several rows have that id.
            StorageError: The file is gone or damaged.
        """
        hrefs = self._places[name]
        if len(hrefs) > 1:
            raise SpecError(
                f"Expected one grid of the id {name!r}, got {len(hrefs)}.",
                fix="read them by Run.to_frame()['href']",
                files=", ".join(hrefs),
            )
        path = Path(os.path.normpath(self._folder / hrefs[0]))
        fault = self._faults[str(path)](path) if str(path) in self._faults and path.exists() else None
        if fault is not None:
            raise StorageError(
                f"Expected the grid that was written to {str(path)!r}, got a file {fault}.",
                fix="it is damaged: run the export again with verify=True (rs-embed export --verify) to make it again",
            )
        return load(path)
