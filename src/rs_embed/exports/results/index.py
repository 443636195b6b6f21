"""Find nearest neighbours by cosine among millions of vectors, with an index in a folder.

`index_build.build` takes blocks of vectors and `VectorIndex` answers queries; both use bounded memory. The vectors are
cut into lists around centres (faiss, IVF). A vector is stored as its difference from the centre, eight bits per
dimension. A query compares the vectors of the nearest lists. Every list has a checksum, which is compared before its
first use.
"""

import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Self

import numpy as np
import xxhash
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, JsonValue

from rs_embed.core.atomic import read_text
from rs_embed.core.optional import require
from rs_embed.errors import SpecError, StorageError
from rs_embed.exports.journal import unsealed
from rs_embed.exports.records import Stamp

FACTS = "index.json"
CENTRES = "centres.faiss"
LISTS = "lists.bin"
SIZES = "lists.npy"
"""For each list: the number of its vectors, and the xxh3 of its bytes."""
_FEW = 0.1
"""If a filter leaves a smaller share of the vectors, all lists are searched."""
ID_BYTES = 8

Vectors = NDArray[np.float32]
Ids = NDArray[np.int64]


class IndexFacts(BaseModel):
    """The metadata of an index, in `index.json`."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    format: int = 1
    library: str
    """Library and version, such as "faiss-cpu 1.15.1"."""
    dtype: str = "int8"
    """Encoding of the stored vectors: eight bits per dimension."""
    dim: int
    count: int
    """Number of vectors; those without a value are left out."""
    lists: int
    probes: int
    """Number of lists that a query compares."""
    recall: float
    """Share of the ten nearest that queries found, measured when the index was built."""
    files: dict[str, Stamp]
    about: dict[str, JsonValue] = {}
    """Information of the caller."""
    digest: str = ""
    """sha256 of all other fields."""

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Read the metadata of the index in a folder; `None` if there is none.

        Raises:
            StorageError: They are damaged.
        """
        path = folder / FACTS
        try:
            return cls.model_validate(unsealed(read_text(path)))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            raise damaged(folder, f"{FACTS}: {str(error).splitlines()[0]}") from error


@dataclass(frozen=True)
class _List:
    start: int
    bytes: int
    hash: int


class VectorIndex:
    """An open index made by `build`. The vectors stay on disk, memory-mapped.

    Args:
        folder: Folder of the index.
        facts: Its metadata, if they have been read already.

    Raises:
        StorageError: There is no index, or it is damaged.
        MissingDependency: The extra `search` is not installed.
    """

    def __init__(self, folder: Path, facts: IndexFacts | None = None) -> None:
        self.folder = folder
        found = facts or IndexFacts.read(folder)
        if found is None:
            raise StorageError(f"Expected an index in {str(folder)!r}, got none.", fix="build it first")
        self.facts = found
        for name, stamp in found.files.items():
            if (fault := stamp.fault(folder / name, whole=name in (CENTRES, SIZES))) is not None:
                raise damaged(folder, f"{name} is {fault}")
        faiss = faiss_module()
        self._index = faiss.read_index(str(folder / CENTRES))
        sizes = np.load(folder / SIZES)
        each = sizes["size"] * (self._index.code_size + ID_BYTES)
        starts = np.cumsum(each) - each
        self._lists = [_List(*one) for one in zip(starts.tolist(), each.tolist(), sizes["hash"].tolist(), strict=True)]
        self._checked = np.zeros(len(sizes), bool)
        if found.count:
            self._bytes = np.memmap(folder / LISTS, np.uint8, "r")
            _map_lists(faiss, self._index, folder / LISTS, sizes["size"], starts)

    def __len__(self) -> int:
        return self.facts.count

    def search(
        self, vectors: Vectors, top: int, *, only: NDArray[np.bool_] | None = None, probes: int | None = None
    ) -> tuple[Ids, Vectors]:
        """Return the ids of the vectors most similar to each of these, best first, and their cosines.

        Args:
            vectors: `[n, D]`, of any norm except zero.
            top: Number of results for each; if there are fewer, the rest has ids of -1 and cosines of NaN.
            only: For each id from 0 on, whether it may be found. Then more lists are compared: all of them, if less
                than a tenth of the vectors may be found.
            probes: Number of lists to compare. Default: the number for which the recall was measured.

        Raises:
            SpecError: The vectors differ from those of the index in length.
            StorageError: A list is damaged.
        """
        if vectors.ndim != 2 or vectors.shape[1] != self.facts.dim:
            raise SpecError(
                f"Expected vectors [n, {self.facts.dim}], got {vectors.shape}.", fix="use vectors of the same model"
            )
        if not with_direction(vectors).all():
            raise SpecError(
                "Expected vectors with a direction, got one that is zero or has no value.", fix="leave it out"
            )
        allowed = self.facts.count if only is None else int(np.count_nonzero(only))
        ids, cosines = np.full((len(vectors), top), -1, np.int64), np.full((len(vectors), top), np.nan, np.float32)
        wanted = min(top, allowed, self.facts.count)
        if not wanted:
            return ids, cosines
        share = min(1.0, allowed / self.facts.count)
        probes = self.facts.lists if share < _FEW else math.ceil((probes or self.facts.probes) / share)
        probes = min(self.facts.lists, probes)
        found, squares = self._search(of_length_1(vectors), wanted, only, probes)
        while probes < self.facts.lists and (found < 0).any():
            probes = min(self.facts.lists, 2 * probes)
            found, squares = self._search(of_length_1(vectors), wanted, only, probes)
        ids[:, :wanted] = found
        cosines[:, :wanted] = np.where(found < 0, np.nan, np.clip(1 - squares / 2, -1, 1))
        return ids, cosines

    def _search(self, vectors: Vectors, top: int, only: NDArray[np.bool_] | None, probes: int) -> tuple[Ids, Vectors]:
        faiss = faiss_module()
        _, near = self._index.quantizer.search(vectors, probes)
        for number in np.unique(near[near >= 0]).tolist():
            self._check(number)
        bits = None if only is None else np.packbits(only, bitorder="little")
        picked = {} if bits is None else {"sel": faiss.IDSelectorBitmap(bits)}
        squares, found = self._index.search(vectors, top, params=faiss.SearchParametersIVF(nprobe=probes, **picked))
        return found, squares

    def _check(self, number: int) -> None:
        if self._checked[number]:
            return
        one = self._lists[number]
        if one.bytes and xxhash.xxh3_64_intdigest(self._bytes[one.start : one.start + one.bytes].data) != one.hash:
            raise damaged(self.folder, f"list {number} in {LISTS} is of another content")
        self._checked[number] = True


def _map_lists(faiss: Any, index: Any, path: Path, sizes: Ids, starts: Ids) -> None:  # noqa: ANN401  (untyped)
    """Attach the lists of a file to an empty index."""
    lists = faiss.OnDiskInvertedLists()
    lists.nlist, lists.code_size, lists.filename, lists.read_only = index.nlist, index.code_size, str(path), True
    lists.totsize = path.stat().st_size
    for size, start in zip(sizes.tolist(), starts.tolist(), strict=True):
        one = faiss.OnDiskOneList()
        one.size = one.capacity = size
        one.offset = start
        lists.lists.push_back(one)
    lists.do_mmap()
    index.replace_invlists(lists, True)
    lists.this.disown()
    index.ntotal = int(sizes.sum())


def with_direction(vectors: Vectors) -> NDArray[np.bool_]:
    """Which vectors have a direction."""
    squares = np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64)
    usable: NDArray[np.bool_] = np.isfinite(squares) & (squares > 0)
    return usable


def of_length_1(vectors: Vectors) -> Vectors:
    """Scale vectors to length 1."""
    lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64))
    return np.ascontiguousarray(vectors / lengths[:, None], np.float32)


def faiss_module() -> ModuleType:
    """Import faiss.

    Raises:
        MissingDependency: The extra `search` is not installed.
    """
    require("faiss", "search")
    with warnings.catch_warnings():  # code generated by SWIG warns from Python 3.12 on
        warnings.simplefilter("ignore", DeprecationWarning)
        import faiss
    return faiss


def damaged(folder: Path, found: str) -> StorageError:
    """Return the error for an index that is not as it was built."""
    return StorageError(
        f"Expected an index as it was built in {str(folder)!r}, got a damaged one: {found}.",
        fix="build it again: rs-embed index RUN, or Run.build_index()",
    )
