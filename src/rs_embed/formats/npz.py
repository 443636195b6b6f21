"""Embeddings as `.npz` files, which need only numpy to read."""

import math
from pathlib import Path
from zipfile import ZipFile

import numpy as np

from rs_embed.embedding.embedding import Embedding
from rs_embed.formats.parts import POSITION, from_parts, position_of, texts_of, windows_text

WINDOWS = "windows"


class Npz:
    """See `FileFormat`."""

    name: str = "npz"
    suffix: str = ".npz"
    media_type: str = "application/octet-stream"
    grids_only: bool = False

    def room(self, embedding: Embedding) -> int:
        """See `FileFormat`."""
        return embedding.data.nbytes

    def write(self, embedding: Embedding, path: Path) -> None:
        """See `FileFormat`."""
        meta, checksum = (np.array(text) for text in texts_of(embedding).values())
        arrays = {} if embedding.valid is None else {"valid": embedding.valid}
        if (means := embedding.position_means) is not None:
            arrays |= {POSITION: means.values, WINDOWS: np.array(windows_text(means))}
        with path.open("wb") as file:  # given a path, savez would add its suffix
            np.savez(file, allow_pickle=False, embedding=embedding.data, meta=meta, checksum=checksum, **arrays)

    def read(self, path: Path) -> Embedding:
        """See `FileFormat`."""
        _refuse_bomb(path)
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:  # np.load leaves a bad file open
            checksum = str(arrays["checksum"]) if "checksum" in arrays else None
            means = position_of(arrays[POSITION], str(arrays[WINDOWS])) if POSITION in arrays else None
            return from_parts(arrays["embedding"], str(arrays["meta"]), arrays.get("valid"), checksum, means)


def _refuse_bomb(path: Path) -> None:
    """Refuse a file that would expand to more than its size; `np.savez` does not compress.

    Raises:
        ValueError: An array is larger than the file.
    """
    with ZipFile(path) as packed:
        for entry in packed.infolist():
            with packed.open(entry) as file:
                version = np.lib.format.read_magic(file)
                read_header = {(1, 0): np.lib.format.read_array_header_1_0}.get(
                    version, np.lib.format.read_array_header_2_0
                )
                shape, _, kind = read_header(file)
            size = max(entry.file_size, math.prod(shape) * kind.itemsize)
            if size > path.stat().st_size:
                raise ValueError(f"{entry.filename} declares {size / 1e9:.3g} GB in a file of {path.stat().st_size} B")
