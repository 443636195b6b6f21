"""Build an index of millions of vectors in bounded memory; see `rs_embed.exports.results.index`."""

from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray
from pydantic import JsonValue

from rs_embed.core.atomic import make_folder, part_of, publish, remove, remove_parts, storing, write_json
from rs_embed.errors import SpecError
from rs_embed.exports.journal import sealed
from rs_embed.exports.records import Stamp
from rs_embed.exports.results.index import (
    CENTRES,
    FACTS,
    ID_BYTES,
    LISTS,
    SIZES,
    Ids,
    IndexFacts,
    VectorIndex,
    Vectors,
    faiss_module,
    of_length_1,
    with_direction,
)

MAX_LISTS = 4096
SAMPLE_PER_LIST = 64
"""Largest number of vectors per list to fit the centres to."""
RECALL = 0.98
"""Share of the ten nearest that `build` aims at when it chooses how many lists a query compares."""
_RECALL_QUERIES, _NEAREST = 128, 10
_ONE_LIST = 2000
"""With fewer vectors, all are compared."""
_SHARD_BYTES = 512e6


def lists_for(count: int) -> int:
    """Return the number of lists for an index of `count` vectors: the power of two next to the square root.

    More lists make the build slower, as every vector is compared with every centre; fewer make queries slower.
    """
    return int(min(MAX_LISTS, 2 ** round(np.log2(count) / 2))) if count >= _ONE_LIST else 1


def sample_for(count: int) -> int:
    """Return the number of vectors that `build` needs as a sample."""
    return min(count, max(1000, SAMPLE_PER_LIST * lists_for(count)))


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
    faiss = faiss_module()
    sample = sample[with_direction(sample)]
    if not len(sample):
        raise SpecError("Expected vectors to index, got none.", fix="export rows that do not fail first")
    with storing(folder):
        make_folder(folder.parent)
        remove_parts(folder.parent, lambda name: name == folder.name)
        part = part_of(folder)
        part.mkdir()
        try:
            facts = _build(faiss, vectors, part, of_length_1(sample), count)
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
        usable = with_direction(block)
        own, mine = of_length_1(block[usable]), np.ascontiguousarray(ids[usable], np.int64)
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
        self.item = index.code_size + ID_BYTES
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
                    ids.append(shard.read(size * ID_BYTES))
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
