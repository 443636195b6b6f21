"""Nearest neighbours by cosine among millions of vectors, from an index in a folder.

`build` takes blocks of vectors and `VectorIndex` answers queries; both use bounded memory. The vectors are cut into
lists around centres (faiss, IVF), each stored as eight bits a dimension of its difference from the centre. A query
compares the vectors of the nearest lists. Every list has a checksum, which is compared before its first use.
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
"""Of each list: how many vectors it has, and the xxh3 of its bytes."""
MAX_LISTS = 4096
SAMPLE_PER_LIST = 64
"""Vectors that the centres are fitted to, at most, for each list."""
RECALL = 0.98
"""What `build` aims at, of the ten nearest, when it chooses how many lists a query compares."""
_RECALL_QUERIES, _NEAREST = 128, 10
_ONE_LIST = 2000
"""Fewer vectors are all compared."""
_FEW = 0.1
"""If a smaller share of the vectors may be found, all lists are searched for them."""
_SHARD_BYTES = 512e6
_ID_BYTES = 8

Vectors = NDArray[np.float32]
Ids = NDArray[np.int64]


def lists_for(count: int) -> int:
    """How many lists an index of that many vectors has: the power of two next to the square root.

    More make the build slower, as every vector is compared with every centre; fewer make queries slower.
    """
    return int(min(MAX_LISTS, 2 ** round(np.log2(count) / 2))) if count >= _ONE_LIST else 1


def sample_for(count: int) -> int:
    """How many vectors `build` wants as a sample."""
    return min(count, max(1000, SAMPLE_PER_LIST * lists_for(count)))


class IndexFacts(BaseModel):
    """What an index says of itself, in `index.json`."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    format: int = 1
    library: str
    """Such as "faiss-cpu 1.15.1"."""
    dtype: str = "int8"
    """Of the stored vectors: eight bits a dimension."""
    dim: int
    count: int
    """Vectors; those without a value are left out."""
    lists: int
    probes: int
    """Lists that a query compares."""
    recall: float
    """Share of the ten nearest that queries found, measured when the index was built."""
    files: dict[str, Stamp]
    about: dict[str, JsonValue] = {}
    """What the caller wanted to know again."""
    digest: str = ""
    """sha256 of all other fields."""

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Those of the index in a folder; `None` if there is none.

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
    """Build an index of blocks of vectors. An index that is there is replaced when the new one is whole.

    Memory: the sample, one block and 1 GB, whatever the number of vectors. Disk: while it is built, twice the size of
    the index, which is `count * (D + 8)` bytes.

    Args:
        vectors: Ids, and the vectors `[n, D]` that they belong to, some at a time. Vectors that are zero or not finite
            are left out.
        folder: Where the index goes; its parent folders are made.
        sample: Vectors from all over; `sample_for(count)` of them are enough.
        count: How many vectors there are, or nearly.
        about: Kept in `index.json`.
        beside: Finished files to keep in the folder, by name; they are moved.

    Raises:
        SpecError: There is no vector in the sample.
        StorageError: The disk refuses.
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
    """Give a finished index its name. One that is there moves aside first, so that there is never half of one."""
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

    Squared distances between vectors of length 1 rank as cosines do, and keep small differences apart: with inner
    products, the recall of the same eight bits was 0.68 instead of 0.985 (benchmarks/search.py).
    """
    lists = min(lists_for(count), max(1, len(sample) // 16))
    index = faiss.index_factory(sample.shape[1], f"IVF{lists},SQ8", faiss.METRIC_L2)
    index.cp.niter, index.cp.seed = 10, 0
    index.cp.min_points_per_centroid, index.cp.max_points_per_centroid = 1, SAMPLE_PER_LIST
    index.train(sample)
    return index


class _Shards:
    """Vectors on their way into lists: some in memory, the others on the disk in the order of the lists."""

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
        """One file of all lists: the codes of each, then its ids."""
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
    """The nearest of some vectors, exact, found while all others pass by."""

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
    """The smallest power of two of lists that reaches `RECALL`, or a quarter of all, and the recall.

    The nearest of each query is the query itself, which is one of the vectors: it is not counted.
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
    """An index that `build` made, opened: the vectors stay on the disk, memory-mapped.

    Args:
        folder: Where it is.
        facts: As in the folder, if they were read already.

    Raises:
        StorageError: There is none, or it is damaged.
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
        """The ids of the vectors most like each of these, best first, and their cosines.

        Args:
            vectors: `[n, D]`, of any length but zero.
            top: How many are wanted of each; where there are fewer, ids are -1 and cosines NaN.
            only: Whether each id from 0 on may be found. More lists are compared then: all of them, if fewer than a
                tenth of the vectors may be found.
            probes: Lists to compare; as many as the index was measured with, if left out.

        Raises:
            SpecError: The vectors have another length than those of the index.
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
    """Let the lists of an empty index be those of a file."""
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
    """Which have a direction."""
    squares = np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64)
    usable: NDArray[np.bool_] = np.isfinite(squares) & (squares > 0)
    return usable


def _unit(vectors: Vectors) -> Vectors:
    lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64))
    return np.ascontiguousarray(vectors / lengths[:, None], np.float32)


def _faiss() -> ModuleType:
    require("faiss", "search")
    with warnings.catch_warnings():  # what SWIG makes warns from Python 3.12 on
        warnings.simplefilter("ignore", DeprecationWarning)
        import faiss
    return faiss


def damaged(folder: Path, found: str) -> StorageError:
    """What to say of an index that is not as it was built."""
    return StorageError(
        f"Expected an index as it was built in {str(folder)!r}, got a damaged one: {found}.",
        fix="build it again: rs-embed index RUN, or Run.build_index()",
    )
