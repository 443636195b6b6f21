"""Find nearest neighbours by cosine among millions of vectors, with an index in a folder.

`build` takes blocks of vectors and `VectorIndex` answers queries; both use bounded memory. The vectors are cut into
lists around centres (faiss, IVF). A vector is stored as its difference from the centre, eight bits per dimension.
A query compares the vectors of the nearest lists. Every list has a checksum, which is compared before its first use.
"""

import math
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Self

import numpy as np
import xxhash
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, JsonValue

from rs_embed.core.atomic import make_folder, part_of, publish, read_text, remove, remove_parts, storing, write_json
from rs_embed.core.optional import require
from rs_embed.errors import SpecError, StorageError
from rs_embed.exports.journal import sealed, unsealed
from rs_embed.exports.records import Stamp

FACTS = "index.json"
CENTRES = "centres.faiss"
LISTS = "lists.bin"
SIZES = "lists.npy"
"""For each list: the number of its vectors, and the xxh3 of its bytes."""
MAX_LISTS = 4096
SAMPLE_PER_LIST = 64
"""Largest number of vectors per list to fit the centres to."""
RECALL = 0.98
"""Share of the ten nearest that `build` aims at when it chooses how many lists a query compares."""
_RECALL_QUERIES, _NEAREST = 128, 10
_ONE_LIST = 2000
"""With fewer vectors, all are compared."""
_FEW = 0.1
"""If a filter leaves a smaller share of the vectors, all lists are searched."""
_SHARD_BYTES = 512e6
_ID_BYTES = 8

Vectors = NDArray[np.float32]
Ids = NDArray[np.int64]


def lists_for(count: int) -> int:
    """Return the number of lists for an index of `count` vectors: the power of two next to the square root.

    More lists make the build slower, as every vector is compared with every centre; fewer make queries slower.
    """
    return int(min(MAX_LISTS, 2 ** round(np.log2(count) / 2))) if count >= _ONE_LIST else 1


def sample_for(count: int) -> int:
    """Return the number of vectors that `build` needs as a sample."""
    return min(count, max(1000, SAMPLE_PER_LIST * lists_for(count)))


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


def build(
    vectors: Iterable[tuple[Ids, Vectors]],
    folder: Path,
    *,
    sample: Vectors,
    count: int,
    about: Mapping[str, JsonValue] | None = None,
    beside: Mapping[str, Path] | None = None,
) -> IndexFacts:
    """Build an index of blocks of vectors. An existing index is replaced once the new one is complete.

    Memory: the sample, one block and 1 GB, whatever the number of vectors. Disk: while it is built, twice the size of
    the index, which is `count * (D + 8)` bytes.

    Args:
        vectors: Blocks of ids and their vectors `[n, D]`. Vectors that are zero or not finite are left out.
        folder: Where the index goes; its parent folders are made.
        sample: A representative sample of the vectors; `sample_for(count)` are enough.
        count: Number of vectors, at least roughly.
        about: Stored in `index.json`.
        beside: Finished files to keep in the folder, by name; they are moved.

    Raises:
        SpecError: There is no vector in the sample.
        StorageError: The index cannot be written.
        MissingDependency: The extra `search` is not installed.
    """
    faiss = _faiss()
    sample = sample[_usable(sample)]
    if not len(sample):
        raise SpecError("Expected vectors to index, got none.", fix="export rows that do not fail first")
    with storing(folder):
        make_folder(folder.parent)
        remove_parts(folder.parent, lambda name: name == folder.name)
        part = part_of(folder)
        part.mkdir()
        try:
            facts = _build(faiss, vectors, part, _unit(sample), count)
            for name, path in (beside or {}).items():
                path.replace(part / name)
            others = {name: Stamp.of(part / name) for name in beside or {}}
            facts = facts.model_copy(update={"about": dict(about or {}), "files": {**facts.files, **others}})
            write_json(part / FACTS, sealed(facts.model_dump(mode="json")))
            _replace(folder, part)
        finally:
            if part.exists():
                remove(part)
    return facts


def _replace(folder: Path, part: Path) -> None:
    """Give a finished index its name. An existing one is moved away first, so that no index is ever incomplete."""
    aside = part.with_name(f"{part.name.removesuffix(folder.name)[:-1]}0-{folder.name}")
    if folder.exists():
        folder.replace(aside)
    publish(part, folder)
    if aside.exists():
        remove(aside)


def _build(
    faiss: Any,  # noqa: ANN401  (untyped)
    vectors: Iterable[tuple[Ids, Vectors]],
    part: Path,
    sample: Vectors,
    count: int,
) -> IndexFacts:
    index = _trained(faiss, sample, count)
    faiss.write_index(index, str(part / CENTRES))
    queries = sample[np.random.default_rng(0).permutation(len(sample))[:_RECALL_QUERIES]]
    nearest = _Nearest(queries, _NEAREST + 1)
    shards = _Shards(faiss, index, part)
    for ids, block in vectors:
        usable = _usable(block)
        own, mine = _unit(block[usable]), np.ascontiguousarray(ids[usable], np.int64)
        shards.add(own, mine)
        nearest.look(own, mine)
    shards.merge()
    total = int(np.load(part / SIZES)["size"].sum())
    facts = IndexFacts(
        library=f"faiss-cpu {version('faiss-cpu')}", dim=index.d, count=total, lists=index.nlist, probes=1, recall=1.0,
        files={name: Stamp.of(part / name) for name in (CENTRES, LISTS, SIZES)},
    )  # fmt: skip
    probes, recall = _measured(VectorIndex(part, facts), nearest)
    return facts.model_copy(update={"probes": probes, "recall": round(recall, 4)})


def _trained(faiss: Any, sample: Vectors, count: int) -> Any:  # noqa: ANN401  (untyped)
    """An empty index with centres.

    Squared distances between vectors of length 1 rank like cosines, and resolve small differences: with inner products,
    the recall with the same eight bits was 0.68 instead of 0.985 (benchmarks/search.py).
    """
    lists = min(lists_for(count), max(1, len(sample) // 16))
    index = faiss.index_factory(sample.shape[1], f"IVF{lists},SQ8", faiss.METRIC_L2)
    index.cp.niter, index.cp.seed = 10, 0
    index.cp.min_points_per_centroid, index.cp.max_points_per_centroid = 1, SAMPLE_PER_LIST
    index.train(sample)
    return index


class _Shards:
    """Sorts vectors into lists: some are in memory, the others on disk in the order of the lists."""

    def __init__(self, faiss: Any, index: Any, part: Path) -> None:  # noqa: ANN401  (untyped)
        self.faiss, self.index, self.part = faiss, index, part
        self.item = index.code_size + _ID_BYTES
        self.sizes: list[NDArray[np.int64]] = []

    def add(self, vectors: Vectors, ids: Ids) -> None:
        self.index.add_with_ids(vectors, ids)
        if self.index.ntotal * self.item >= _SHARD_BYTES:
            self.flush()

    def flush(self) -> None:
        inverted = self.index.invlists
        sizes = np.array([inverted.list_size(number) for number in range(self.index.nlist)], np.int64)
        with (self.part / f"shard-{len(self.sizes)}").open("wb") as file:
            for number in np.flatnonzero(sizes).tolist():
                size = int(sizes[number])
                file.write(self.faiss.rev_swig_ptr(inverted.get_codes(number), size * self.index.code_size).data)
                file.write(self.faiss.rev_swig_ptr(inverted.get_ids(number), size).data)
        self.sizes.append(sizes)
        self.index.reset()

    def merge(self) -> None:
        """Write all lists to one file: for each, the codes, then the ids."""
        if self.index.ntotal or not self.sizes:
            self.flush()
        shards = [(self.part / f"shard-{number}").open("rb") for number in range(len(self.sizes))]
        table = np.zeros(self.index.nlist, [("size", np.int64), ("hash", np.uint64)])
        with (self.part / LISTS).open("wb") as file:
            for number, sizes in enumerate(np.stack(self.sizes, axis=1).tolist()):
                codes, ids = [], []
                for shard, size in zip(shards, sizes, strict=True):
                    codes.append(shard.read(size * self.index.code_size))
                    ids.append(shard.read(size * _ID_BYTES))
                content = b"".join(codes + ids)
                file.write(content)
                table[number] = sum(sizes), xxhash.xxh3_64_intdigest(content)
        np.save(self.part / SIZES, table)
        for number, shard in enumerate(shards):
            shard.close()
            remove(self.part / f"shard-{number}")


class _Nearest:
    """Finds the exact nearest neighbours of some vectors, in one pass over all others."""

    def __init__(self, queries: Vectors, top: int) -> None:
        self.queries, self.top = queries, top
        self.ids = np.zeros((len(queries), 0), np.int64)
        self.scores = np.zeros((len(queries), 0), np.float32)

    def look(self, vectors: Vectors, ids: Ids) -> None:
        scores = np.hstack([self.scores, self.queries @ vectors.T])
        both = np.hstack([self.ids, np.broadcast_to(ids, (len(self.queries), len(ids)))])
        best = np.argpartition(-scores, min(self.top, scores.shape[1]) - 1, axis=1)[:, : self.top]
        self.ids, self.scores = np.take_along_axis(both, best, 1), np.take_along_axis(scores, best, 1)


def _measured(index: "VectorIndex", nearest: _Nearest) -> tuple[int, float]:
    """The number of lists to compare, with its recall: the smallest power of two that reaches `RECALL`, or a quarter.

    Each query is one of the vectors, so its nearest neighbour is itself, which is not counted.
    """
    order = np.argsort(-nearest.scores, axis=1)[:, 1:]
    others = np.take_along_axis(nearest.ids, order, 1)
    probes = 1
    while others.size:
        found, _ = index.search(nearest.queries, nearest.ids.shape[1], probes=probes)
        recall = float(np.mean([np.isin(right, one).mean() for right, one in zip(others, found, strict=True)]))
        if recall >= RECALL or probes * 4 > index.facts.lists:
            return probes, recall
        probes *= 2
    return 1, 1.0


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
        faiss = _faiss()
        self._index = faiss.read_index(str(folder / CENTRES))
        sizes = np.load(folder / SIZES)
        each = sizes["size"] * (self._index.code_size + _ID_BYTES)
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
        if not _usable(vectors).all():
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
        found, squares = self._search(_unit(vectors), wanted, only, probes)
        while probes < self.facts.lists and (found < 0).any():
            probes = min(self.facts.lists, 2 * probes)
            found, squares = self._search(_unit(vectors), wanted, only, probes)
        ids[:, :wanted] = found
        cosines[:, :wanted] = np.where(found < 0, np.nan, np.clip(1 - squares / 2, -1, 1))
        return ids, cosines

    def _search(self, vectors: Vectors, top: int, only: NDArray[np.bool_] | None, probes: int) -> tuple[Ids, Vectors]:
        faiss = _faiss()
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


def _usable(vectors: Vectors) -> NDArray[np.bool_]:
    """Which vectors have a direction."""
    squares = np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64)
    usable: NDArray[np.bool_] = np.isfinite(squares) & (squares > 0)
    return usable


def _unit(vectors: Vectors) -> Vectors:
    lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64))
    return np.ascontiguousarray(vectors / lengths[:, None], np.float32)


def _faiss() -> ModuleType:
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
