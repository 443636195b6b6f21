"""How many flipped bits of a file pass unnoticed: `python benchmarks/flips.py [--flips 100] [--seed 1]`.

Each format is written once, then one bit of a copy is flipped and the copy is read by the library, again and again.
A flip is "noticed" where reading ends in a typed error, "harmless" where the same comes back, "silent" where something
else does: other numbers, or other metadata. The chip cache must give no chip (it fetches again) or the same one.
"""

import argparse
import random
import shutil
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rs_embed import OutputSpec, PointBuffer, export_embeddings, get_embedding, open_run, verify_run
from rs_embed.embedding.embedding import Embedding
from rs_embed.errors import RSEmbedError
from rs_embed.exports.journal import Manifest
from rs_embed.exports.records import Record
from rs_embed.exports.results.run import read
from rs_embed.places import Places
from rs_embed.providers.base import Query
from rs_embed.providers.cached import CachedProvider
from rs_embed.testing import FieldProvider

MODEL = "mosaiks_rcf"
PLACES = [(12.5 + 0.01 * i, 47.0) for i in range(60)]


@dataclass(frozen=True)
class Case:
    """A file that was written, and how the library reads it."""

    path: Path
    read: Callable[[Path], object]
    """Gives something that is equal where the content is."""


def written(folder: Path) -> dict[str, Case]:
    """One file, or folder, of each format."""
    options = {"buffer_m": 120, "backend": FieldProvider(), "progress": False, "device": "cpu"}
    export_embeddings(MODEL, PLACES, folder / "run", **options)
    run, model = folder / "run", folder / "run" / MODEL
    place = PointBuffer(lon=12.5, lat=47.0, buffer_m=120)
    grid = get_embedding(MODEL, place, backend=FieldProvider(), output=OutputSpec.grid())
    pooled = get_embedding(MODEL, place, backend=FieldProvider())
    found = {
        "GeoParquet table of a run": Case(model / "units/u000000.parquet", _rows_of_run),
        "GeoParquet table by itself": Case(model / "units/u000000.parquet", lambda path: _rows(read(path))),
        "record of a unit": Case(model / "records/u000000.json", Record.load),
        "manifest": Case(run / "run.json", lambda path: Manifest.read(path.parent)),
        "table of places": Case(run / "places.npz", lambda path: Places.load(path).digest()),
    }
    for name, embedding, suffix in [
        ("COG", grid, ".tif"), ("netCDF", grid, ".nc"), ("npz", grid, ".npz"), ("npz of a vector", pooled, ".npz"),
        ("Zarr", grid, ".zarr"),
    ]:  # fmt: skip
        path = folder / f"{name.replace(' ', '-')}{suffix}"
        embedding.save(path)
        found[name] = Case(path, lambda path: _content(Embedding.load(path)))
    asked = FieldProvider()
    get_embedding(MODEL, place, backend=asked)
    query = asked.queries[0]
    CachedProvider(FieldProvider(), folder / "chips", 1.0).fetch(query)
    (chip,) = (folder / "chips").glob("*/*.npz")
    found["chip cache"] = Case(chip, lambda path: _chip(CachedProvider(FieldProvider(), path.parents[1], 1.0), query))
    return found


def _chip(provider: CachedProvider, query: Query) -> tuple[object, ...]:
    chip = provider.fetch(query)
    return chip.values.tobytes(), chip.bands, chip.times, chip.source, str(chip.geobox)


def _content(embedding: Embedding) -> tuple[bytes, str, str]:
    return embedding.data.tobytes(), embedding.meta.model_dump_json(), str(embedding.geobox)


def _rows(table) -> tuple[object, ...]:
    return table.matrix().tobytes(), table.meta, *table.table().drop_columns(["embedding"]).to_pylist()[0].items()


def _rows_of_run(path: Path) -> object:
    run = open_run(path.parents[2])
    return run.matrix().tobytes(), run.header(), run.to_frame(columns=["id", "row", "status", "meta"]).to_csv()


def flip(path: Path, chance: random.Random) -> None:
    """Change one bit, of any file of a folder in proportion to its size."""
    files = [path] if path.is_file() else sorted(one for one in path.rglob("*") if one.is_file())
    at = chance.randrange(sum(file.stat().st_size for file in files))
    for file in files:
        size = file.stat().st_size
        if at < size:
            content = bytearray(file.read_bytes())
            content[at] ^= 1 << chance.randrange(8)
            file.write_bytes(content)
            return
        at -= size


def outcome(case: Case, wanted: object, chance: random.Random) -> str:
    """What one flip does; the file is as it was afterwards."""
    kept = case.path.with_name(f"{case.path.name}.kept")
    copy = shutil.copytree if case.path.is_dir() else shutil.copy2
    copy(case.path, kept)
    try:
        flip(case.path, chance)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = case.read(case.path)
    except RSEmbedError:
        return "noticed"
    except Exception as error:  # noqa: BLE001  (counted: the goal is none)
        return f"raw {type(error).__name__}"
    else:
        return "harmless" if found == wanted else "silent"
    finally:
        shutil.rmtree(case.path) if case.path.is_dir() else case.path.unlink(missing_ok=True)
        kept.rename(case.path)


def count(case: Case, flips: int, seed: int) -> Counter[str]:
    """Outcomes of so many flips."""
    chance, wanted = random.Random(seed), case.read(case.path)
    return Counter(outcome(case, wanted, chance) for _ in range(flips))


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flips", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    print("| format | bytes | noticed | harmless | silent | other errors |\n| --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as text:
        cases = written(Path(text))
        for name, case in cases.items():
            found = count(case, given.flips, given.seed)
            others = ", ".join(f"{n} {what}" for what, n in found.items() if what.startswith("raw")) or "none"
            size = sum(one.stat().st_size for one in [case.path, *case.path.rglob("*")] if one.is_file())
            print(f"| {name} | {size:,} | {found['noticed']} | {found['harmless']} | {found['silent']} | {others} |")
        assert verify_run(Path(text) / "run", progress=False).ok  # every flip was taken back


if __name__ == "__main__":
    main()
