"""Nearest neighbours by cosine among millions of embeddings: libraries beside an exact scan of memory-mapped int8.

`python benchmarks/search.py --sizes 1000000 10000000 --libraries index exact`. The libraries usearch, hnswlib and
lancedb must be installed to be measured. The table goes to `RESULTS.md`.

Vectors: tokens of Galileo nano (2 x 2 pixels) and Presto (single pixels), both with their published weights, on two
scenes of TerraMesh that lie beside the checkout (../shared). There are some 125,000; each further vector lies between
two tokens that are at most 5 cells apart, and is moved by up to half of the difference between two other such tokens.
Blocks are made when they are needed and never kept, so `--sizes` costs no disk but that of the index.

Each figure comes from a process of its own. Recall is over queries made in the same way, which are not in the index.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SCENES = {"38D_378R_2_3": (34.06, -3.4), "433D_629L_3_1": (-72.5, -38.8)}
"""Of TerraMesh: a longitude and latitude near the middle, which Presto is told."""
S2 = ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B11", "B12")
SEEN = ("B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B11", "B12")
MODELS = {
    "nano": ("galileo_1_0_nano", "galileo_nano/encoder.pt", {"patch_size": 2}),
    "presto": ("presto_1_0", "presto/default_model.pt", {}),
}
BLOCK, QUERIES, TOP, NEAR = 100_000, 200, 10, 5
Vectors = NDArray[np.float32]
Search = Callable[[Vectors], NDArray[np.int64]]
"""The ids of the `TOP` nearest of each vector."""


def tokens(model: str, cache: Path) -> NDArray[np.float32]:
    """`[scene, y, x, D]`: what everything else is made of."""
    path = cache / f"{model}.npy"
    if not path.exists():
        import rasterio

        from rs_embed import OutputSpec, PointBuffer, get_embedding

        warnings.simplefilter("ignore")
        name, file, knobs = MODELS[model]
        root = next(one / "shared" for one in Path(__file__).resolve().parents if (one / "shared/weights").exists())
        found = []
        for scene, (lon, lat) in SCENES.items():
            with rasterio.open(root / f"data/terramesh/S2L2A/{scene}.tif") as image:
                pixels = image.read([S2.index(band) + 1 for band in SEEN]).astype(np.float32)
            place = {"spatial": PointBuffer(lon, lat, 1120)} if model == "presto" else {}
            found.append(
                get_embedding(
                    name, output=OutputSpec.grid(), ckpt=root / "weights" / file, input_chw={"s2": pixels},
                    dates=["2020-06-15"], unit={"s2": "dn"}, **place, **knobs,
                ).data.transpose(1, 2, 0)
            )  # fmt: skip
        np.save(path, np.stack(found))
    grid: Vectors = np.load(path)
    return grid


def block(base: Vectors, number: int, count: int) -> Vectors:
    """A block of vectors: the same for the same number."""
    rng = np.random.default_rng([2026, number])
    scenes, height, width, _ = base.shape

    def pairs() -> tuple[Vectors, Vectors]:
        scene, row, column = rng.integers(0, (scenes, height, width), (count, 3)).T
        near_row = np.clip(row + rng.integers(-NEAR, NEAR + 1, count), 0, height - 1)
        near_column = np.clip(column + rng.integers(-NEAR, NEAR + 1, count), 0, width - 1)
        return base[scene, row, column], base[scene, near_row, near_column]

    (one, other), (here, there) = pairs(), pairs()
    along, aside = rng.random((2, count, 1), np.float32)
    one += along * (other - one)
    one += (aside - np.float32(0.5)) * (there - here)
    return one


def blocks(base: Vectors, size: int) -> Iterator[tuple[NDArray[np.int64], Vectors]]:
    """Ids and vectors of all, a block at a time."""
    for start in range(0, size, BLOCK):
        count = min(BLOCK, size - start)
        yield np.arange(start, start + count), block(base, start // BLOCK, count)


def queries(base: Vectors) -> Vectors:
    """Those of which the neighbours are sought."""
    return block(base, 10**6, QUERIES)


def unit(vectors: Vectors) -> Vectors:
    """Each of length 1."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def truth(base: Vectors, size: int) -> NDArray[np.int64]:
    """The ids of the nearest, exact to float32."""
    asked = unit(queries(base))
    ids = np.zeros((QUERIES, 0), np.int64)
    scores = np.zeros((QUERIES, 0), np.float32)
    for its, vectors in blocks(base, size):
        found = asked @ unit(vectors).T
        best = np.argpartition(-found, TOP, axis=1)[:, :TOP]
        ids = np.hstack([ids, its[best]])
        scores = np.hstack([scores, np.take_along_axis(found, best, 1)])
        order = np.argsort(-scores, axis=1)[:, :TOP]
        ids, scores = np.take_along_axis(ids, order, 1), np.take_along_axis(scores, order, 1)
    return ids


def exact(base: Vectors, size: int, folder: Path, _: str) -> Search:
    """numpy: int8 with the length of each vector, memory-mapped, every vector compared."""
    dim = base.shape[-1]
    factors = np.empty(size, np.float32)
    stored = np.lib.format.open_memmap(folder / "int8.npy", "w+", np.int8, (size, dim))
    for ids, vectors in blocks(base, size):
        whole = np.rint(vectors * (127 / np.abs(vectors).max(axis=1, keepdims=True)))
        stored[ids[0] : ids[-1] + 1], factors[ids] = whole, 1 / np.linalg.norm(whole, axis=1)
    stored.flush()
    mapped = np.load(folder / "int8.npy", mmap_mode="r")

    def search(asked: Vectors) -> NDArray[np.int64]:
        scores = np.empty((len(asked), size), np.float32)
        for start in range(0, size, BLOCK):
            part = slice(start, start + BLOCK)
            scores[:, part] = (asked @ mapped[part].astype(np.float32).T) * factors[part]
        best = np.argpartition(-scores, TOP, axis=1)[:, :TOP]
        return np.take_along_axis(best, np.argsort(-np.take_along_axis(scores, best, 1), axis=1), 1)

    return search


def faiss(base: Vectors, size: int, folder: Path, kind: str) -> Search:
    """A factory string of faiss and, behind `/`, how many lists are searched; all in memory."""
    import faiss as lib

    lib.omp_set_num_threads(1)
    name, _, probes = kind.partition("/")
    index = lib.index_factory(base.shape[-1], name, lib.METRIC_L2)
    index.train(unit(block(base, 10**7, min(size, 200_000))))
    for _, vectors in blocks(base, size):
        index.add(unit(vectors))
    lib.write_index(index, str(folder / "index"))
    if name.startswith("IVF"):
        index.nprobe = int(probes)
    else:
        index.hnsw.efSearch = int(probes)
    return lambda asked: index.search(asked, TOP)[1]


def usearch(base: Vectors, size: int, folder: Path, kind: str) -> Search:
    """HNSW in a type; behind `/`, the expansion while searching. Read back memory-mapped."""
    from usearch.index import Index

    dtype, _, expansion = kind.partition("/")
    index = Index(ndim=base.shape[-1], metric="cos", dtype=dtype, expansion_search=int(expansion))
    for ids, vectors in blocks(base, size):
        index.add(ids, vectors, threads=1)
    index.save(folder / "index")
    view = Index(ndim=base.shape[-1], metric="cos", dtype=dtype, expansion_search=int(expansion))
    view.view(str(folder / "index"))
    return lambda asked: view.search(asked, TOP, threads=1).keys.reshape(len(asked), -1).astype(np.int64)


def hnswlib(base: Vectors, size: int, folder: Path, kind: str) -> Search:
    """HNSW in float32; behind `/`, `ef`."""
    import hnswlib as lib

    index = lib.Index("cosine", base.shape[-1])
    index.init_index(size, M=16, ef_construction=128)
    for ids, vectors in blocks(base, size):
        index.add_items(vectors, ids, num_threads=1)
    index.save_index(str(folder / "index"))
    index.set_ef(int(kind.partition("/")[2]))
    return lambda asked: index.knn_query(asked, TOP, num_threads=1)[0].astype(np.int64)


def lancedb(base: Vectors, size: int, folder: Path, kind: str) -> Search:
    """A table of its own with an index; behind `/`, how many lists are searched. Candidates are scored again."""
    import lancedb as lib
    import pyarrow as pa

    name, _, probes = kind.partition("/")
    dim = base.shape[-1]

    def batches() -> Iterator[pa.RecordBatch]:
        for ids, vectors in blocks(base, size):
            column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dim)
            yield pa.record_batch({"id": ids, "vector": column})

    schema = pa.schema({"id": pa.int64(), "vector": pa.list_(pa.float32(), dim)})
    table = lib.connect(folder).create_table("vectors", batches(), schema=schema)
    table.create_index(metric="cosine", vector_column_name="vector", index_type=name)

    def search(asked: Vectors) -> NDArray[np.int64]:
        found = (
            table.search(one).distance_type("cosine").nprobes(int(probes)).refine_factor(4).limit(TOP).select(["id"])
            for one in asked
        )
        return np.stack([one.to_arrow()["id"].to_numpy() for one in found])

    return search


def index(base: Vectors, size: int, folder: Path, _: str) -> Search:
    """What `Run.build_index` and `Run.similar` use."""
    from rs_embed.exports.results.index import VectorIndex
    from rs_embed.exports.results.index_build import build, sample_for

    build(blocks(base, size), folder / "index", sample=block(base, 10**7, sample_for(size)), count=size)
    opened = VectorIndex(folder / "index")
    facts = opened.facts
    print(
        f"{facts.lists} lists, {facts.probes} compared, recall as measured by the build {facts.recall}", file=sys.stderr
    )
    return lambda asked: opened.search(asked, TOP)[0]


LIBRARIES = {
    "index": (index, ["faiss, IVF, SQ8"]),
    "exact": (exact, ["int8"]),
    "faiss": (faiss, ["IVF2048,SQ8/16", "IVF2048,SQfp16/16", "IVF2048,PQ32/16", "HNSW16_SQ8/64"]),
    "usearch": (usearch, ["i8/64", "f16/64"]),
    "hnswlib": (hnswlib, ["f32/64"]),
    "lancedb": (lancedb, ["IVF_SQ/20", "IVF_PQ/20", "IVF_HNSW_SQ/20"]),
}


def measure(library: str, kind: str, model: str, size: int, cache: Path) -> dict[str, float]:
    """Build and search in this process."""
    base = tokens(model, cache)
    wanted = np.load(cache / f"truth-{model}-{size}.npy")
    asked = unit(queries(base))
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        start, busy = time.perf_counter(), time.process_time()
        search = LIBRARIES[library][0](base, size, Path(folder), kind)
        built, used = time.perf_counter() - start, time.process_time() - busy
        bytes_ = sum(one.stat().st_size for one in Path(folder).rglob("*") if one.is_file())
        seconds, found = [], []
        for one in asked if library != "exact" else asked[:20]:
            start = time.perf_counter()
            found.append(search(one[None])[0])
            seconds.append(time.perf_counter() - start)
    right = [len(set(a.tolist()) & set(b.tolist())) / TOP for a, b in zip(found, wanted, strict=False)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "recall": float(np.mean(right)), "build_s": built, "build_cpu_s": used, "mb": bytes_ / 1e6,
        "peak_mb": peak / 1e3, "ms": 1e3 * float(np.median(seconds)), "worst_ms": 1e3 * max(seconds),
    }  # fmt: skip


def whole_run(model: str, size: int, cache: Path) -> str:
    """Seconds of searches of a run: with its index, with filters, and without."""
    import hashlib

    import pyarrow as pa

    from rs_embed import PointBuffer, export_embeddings, open_run
    from rs_embed.formats.fields import table_fields
    from rs_embed.formats.reading import TableFile
    from rs_embed.formats.table import save_table

    base = tokens(model, cache)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        places = [PointBuffer(12.94 + 0.001 * i, 47.77, 160) for i in range(4)]
        export_embeddings("mosaiks_rcf", places, folder, backend="sample", progress=False)
        home = Path(folder) / "mosaiks_rcf"
        first = TableFile(home / "units/u000000.parquet")
        header = replace(first.meta, dim=base.shape[-1])
        keys = {**first.keys, "emb": json.dumps(table_fields(header))}
        rows, told = first.table().slice(0, 1), json.loads((home / "records/u000000.json").read_text())
        rng = np.random.default_rng(0)
        for number, start in enumerate(range(0, size, 4096)):
            count = min(4096, size - start)
            ids = np.arange(start, start + count)
            made = block(base, 2 * 10**7 + number, count)
            lists = pa.FixedSizeListArray.from_arrays(pa.array(made.ravel()), base.shape[-1])
            columns = {
                "id": pa.array(ids.astype(str)), "row": pa.array(ids), "embedding": lists,
                "center_lon": pa.array(rng.uniform(0, 10, count)), "center_lat": pa.array(rng.uniform(40, 50, count)),
            }  # fmt: skip
            table = rows.take(pa.array(np.zeros(count, int)))
            for name, column in columns.items():
                table = table.set_column(table.column_names.index(name), name, column)
            path = home / f"units/u{number:06}.parquet"
            save_table(table.combine_chunks(), path, header, keys)
            stamp = {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
            record = {**told, "unit": number, "rows": count, "ok": count, "digest": "", "failed": [], "missing": []}
            record["files"] = {f"units/{path.name}": stamp}
            (home / f"records/u{number:06}.json").write_text(json.dumps(record))
        run = open_run(folder)
        start = time.perf_counter()
        print(run.build_index(progress=False))
        told = [f"built in {time.perf_counter() - start:.0f} s"]
        run = open_run(folder)
        asked = {
            "first search": {}, "by id": {}, "one degree": {"within": (4, 44, 5, 45)},
            "one degree again": {"within": (4, 44, 5, 45)}, "half by a column": {"where": {"row": (None, size // 2)}},
            "all vectors": {"exact": True},
        }  # fmt: skip
        for name, options in asked.items():
            start = time.perf_counter()
            run.similar(str(size // 3), **options)
            told.append(f"{name} {time.perf_counter() - start:.2f} s")
    return "; ".join(told)


MAP_BLOCK = 256
"""Side of a block of the map that is searched, tokens."""


def write_map(model: str, size: int, cache: Path) -> Path:
    """A map of about so many tokens, float16, in square blocks; the tokens lie in no order."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from made_region import grid_of, write

    base, out = tokens(model, cache), cache / f"map-{model}-{size}"
    dim, side = base.shape[-1], round((size / MAP_BLOCK**2) ** 0.5)

    def made(_: int, row: int, column: int) -> Vectors:
        values = block(base, 3 * 10**7 + row * side + column, MAP_BLOCK**2)
        return np.ascontiguousarray(values.T).reshape(dim, MAP_BLOCK, MAP_BLOCK)

    if not (out / "done").exists():
        write(out, grid_of(side, side, MAP_BLOCK), dim, made, "float16")
        (out / "done").touch()
    return out


def whole_map(model: str, size: int, cache: Path) -> str:
    """Recall and seconds of searches of a map: with its index, with filters, and without."""
    from rs_embed import BBox, Region, open_region

    one, base = open_region(write_map(model, size, cache)), tokens(model, cache)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, busy = time.perf_counter(), time.process_time()
    print(one.build_index(progress=False))
    told = [
        f"built in {time.perf_counter() - start:.0f} s, {time.process_time() - busy:.0f} s of CPU, peak memory "
        f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f} MB (before: {before / 1e3:.0f} MB)"
    ]
    asked, level = unit(queries(base)[:100]), one.levels[0]
    scores, keys = np.full((len(asked), TOP), -np.inf), np.zeros((len(asked), TOP), np.int64)
    for window in level.windows(0):
        values = unit(level.tokens(0, window).reshape(-1, one.dim))
        rows, cols = np.divmod(np.arange(len(values)), window.width)
        mine = (rows + window.row) * level.whole.width + cols + window.col
        both = np.hstack([scores, asked @ values.T])
        best = np.argpartition(-both, TOP - 1, axis=1)[:, :TOP]
        scores = np.take_along_axis(both, best, 1)
        keys = np.take_along_axis(np.hstack([keys, np.broadcast_to(mine, (len(asked), len(mine)))]), best, 1)
    left, bottom, right, top = one.bounds
    wide, high = right - left, top - bottom
    triangle = [(left, bottom), (left, top), (left + wide / 2, bottom), (left, bottom)]
    box = BBox(left, bottom, left + wide / 10, bottom + high / 5, "EPSG:32633")
    places = {
        "index": None, "index, a polygon of a quarter": Region([triangle], "EPSG:32633"),
        "index, a box of a fiftieth": box, "all tokens": None,
    }  # fmt: skip
    for name, place in places.items():
        seconds, right_ones, exact = [], [], name == "all tokens"
        for number, vector in enumerate(asked[: 2 if exact else len(asked)]):
            start = time.perf_counter()
            found = one.most_similar(like=vector, top=TOP, within=place, exact=exact)
            seconds.append(time.perf_counter() - start)
            got = found["row"].to_numpy() * level.whole.width + found["column"].to_numpy()
            right_ones.append(np.isin(keys[number], got).mean())
        recall = f", recall {np.mean(right_ones):.3f}" if place is None else ""
        told.append(f"{name}: median {np.median(seconds):.3f} s, slowest {max(seconds):.3f} s{recall}")
    return "\n".join(told)


def compare(given: argparse.Namespace) -> None:
    """Print a line for each library, kind and size."""
    print("| vectors | library | recall@10 | build | index | peak memory | a query, median | slowest |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for model in given.models:
        for size in given.sizes:
            path = given.cache / f"truth-{model}-{size}.npy"
            if not path.exists():
                np.save(path, truth(tokens(model, given.cache), size))
            for library in given.libraries:
                for kind in given.kinds or LIBRARIES[library][1]:
                    task = json.dumps([library, kind, model, size])
                    done = subprocess.run(
                        [sys.executable, __file__, "--cache", given.cache, "--one", task],
                        capture_output=True,
                        text=True,
                        check=False,
                    )
                    if done.returncode:
                        print(
                            f"| {size:,} {model} | {library} {kind} | {done.stderr.strip().splitlines()[-1]} |",
                            flush=True,
                        )
                        continue
                    if library == "index":
                        sys.stderr.write(done.stderr)
                    one = json.loads(done.stdout.splitlines()[-1])
                    print(
                        f"| {size:,} {model} | {library} {kind} | {one['recall']:.3f} | {one['build_s']:.0f} s, "
                        f"{one['build_cpu_s']:.0f} s of CPU | {one['mb']:,.0f} MB | {one['peak_mb']:,.0f} MB "
                        f"| {one['ms']:.1f} ms | {one['worst_ms']:.1f} ms |",
                        flush=True,
                    )


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000_000])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["nano"])
    parser.add_argument("--libraries", nargs="+", choices=LIBRARIES, default=["exact", "index"])
    parser.add_argument("--kinds", nargs="+", help="of the library; several of its own if left out")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "rs_embed_search")
    parser.add_argument("--run", type=int, help="search a run of so many rows instead")
    parser.add_argument("--map", type=int, help="search a map of about so many tokens instead")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.cache.mkdir(exist_ok=True)
    if given.run:
        print(whole_run(given.models[0], given.run, given.cache))
        return
    if given.map:
        print(whole_map(given.models[0], given.map, given.cache))
        return
    if given.one:
        library, kind, model, size = json.loads(given.one)
        print(json.dumps(measure(library, kind, model, size, given.cache)))
        return
    compare(given)


if __name__ == "__main__":
    main()
