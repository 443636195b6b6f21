"""Chips kept on disk."""

import io
import json
import os
import threading
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import warm
from asking import S1, ask, grid

from rs_embed import OutputSpec, PointBuffer, TemporalSpec, get_embedding
from rs_embed.core.specs import SensorSpec, Series
from rs_embed.errors import NoImagery, StorageError
from rs_embed.providers.base import Query
from rs_embed.providers.cached import SWEEP_EVERY, CachedProvider
from rs_embed.providers.sample import SampleScene
from rs_embed.testing import FieldProvider

YEAR = TemporalSpec.year(2022)
ASKED = replace(ask(geobox=grid(0, 0, 9, 8)), window=YEAR)


@pytest.fixture
def field():
    return FieldProvider()


@pytest.fixture
def cached(field, tmp_path):
    return CachedProvider(field, tmp_path / "chips", limit_gb=1)


def same(one, other):
    np.testing.assert_array_equal(one.values, other.values)
    assert (one.bands, one.geobox, one.times, one.source) == (other.bands, other.geobox, other.times, other.source)


@pytest.mark.parametrize("query", [ASKED, replace(ASKED, series=Series(4, "composite"))], ids=["composite", "series"])
def test_a_chip_is_fetched_once_and_comes_back_whole(field, cached, query):
    first = cached.fetch(query)
    same(cached.fetch(query), first)
    same(field.fetch(query), first)
    assert len(field.queries) == 2  # the second was ours


def test_a_chip_of_the_sample_comes_back_with_its_scene_and_nodata(tmp_path):
    query = Query("s1", SensorSpec(S1, ("VV", "VH")), None, None)
    provider = CachedProvider(SampleScene(), tmp_path, limit_gb=1)
    same(provider.fetch(query), provider.fetch(query))
    assert provider.fetch(query).source.scene_ids


def test_what_a_model_calls_it_and_what_nodata_becomes_make_no_other_chip(field, cached):
    cached.fetch(ASKED)
    cached.fetch(replace(ASKED, modality="other", sensor=replace(ASKED.sensor, fill_value="mean")))
    assert len(field.queries) == 1


@pytest.mark.parametrize(
    "other",
    [
        replace(ASKED, geobox=grid(1, 0, 9, 8)),
        replace(ASKED, window=TemporalSpec.year(2021)),
        replace(ASKED, series=Series(4, "scenes")),
        replace(ASKED, sensor=replace(ASKED.sensor, bands=("B2", "B3", "B4"))),
        replace(ASKED, sensor=replace(ASKED.sensor, composite="mean")),
        replace(ASKED, sensor=replace(ASKED.sensor, cloudy_pct=10)),
    ],
)
def test_another_request_is_another_chip(field, cached, other):
    cached.fetch(ASKED)
    cached.fetch(other)
    assert len(field.queries) == 2


def test_another_provider_has_other_chips(tmp_path, field):
    CachedProvider(field, tmp_path, 1).fetch(ASKED)
    other = FieldProvider(name="other")
    CachedProvider(other, tmp_path, 1).fetch(ASKED)
    assert len(other.queries) == 1


@pytest.mark.parametrize("damage", [b"", b"PK", b"\x00" * 500])
def test_half_a_chip_is_fetched_again(field, cached, tmp_path, damage):
    whole = cached.fetch(ASKED)
    (file,) = (tmp_path / "chips").glob("*/*.npz")
    file.write_bytes(file.read_bytes()[:200] if damage == b"PK" else damage)
    same(cached.fetch(ASKED), whole)
    assert len(field.queries) == 2
    same(cached.fetch(ASKED), whole)
    assert len(field.queries) == 2


def bomb(path):
    """Hundreds of bytes that unpack to gigabytes."""
    zeros = np.lib.format.header_data_from_array_1_0(np.zeros(1, np.float32)) | {"shape": (1, 3, 60_000, 60_000)}
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, zeros)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("facts.npy", b"")
        packed.writestr("values.npy", head.getvalue() + bytes(1_000_000))


def with_facts(path, change):
    """The same file with other facts."""
    with np.load(path) as kept:
        values, facts = kept["values"], json.loads(kept["facts"].tobytes())
    text = change if isinstance(change, bytes) else json.dumps(facts | change).encode()
    np.savez(path, values=values, facts=np.frombuffer(text, np.uint8))


def packed(path):
    with np.load(path) as kept:
        arrays = dict(kept)
    np.savez_compressed(path, **arrays)


def with_values(path, values):
    with np.load(path) as kept:
        facts = kept["facts"]
    np.savez(path, values=values, facts=facts)


HOSTILE = {
    "a bomb": bomb,
    "packed": packed,
    "recursive": lambda path: with_facts(path, b"[" * 100_000),
    "no mapping": lambda path: with_facts(path, b"[]"),
    "no text": lambda path: with_facts(path, b"\xff\xfe"),
    "a lone surrogate": lambda path: with_facts(path, {"asked": "\ud800"}),
    "of another request": lambda path: with_facts(path, {"asked": "0" * 64}),
    "of another place": lambda path: with_facts(path, {"grid": ["EPSG:32633", [10, 0, 0, 0, -10, 0], [9, 8]]}),
    "of no place": lambda path: with_facts(path, {"grid": None}),
    "of a CRS that is none": lambda path: with_facts(path, {"grid": ["nonsense", [10, 0, 0, 0, -10, 0], [9, 8]]}),
    "of a grid of huge numbers": lambda path: with_facts(path, {"grid": ["EPSG:32633", [1e999] * 6, [10**30, 8]]}),
    "of unknown facts": lambda path: with_facts(path, {"source": {"scene_times": [], "planet": "Mars"}}),
    "of a unit that is none": lambda path: with_facts(path, {"units": ["inch"] * 3}),
    "of fewer units": lambda path: with_facts(path, {"units": []}),
    "of times that are none": lambda path: with_facts(path, {"times": ["yesterday"]}),
    "float64": lambda path: with_values(path, np.zeros((1, 3, 9, 8))),
    "objects": lambda path: with_values(path, np.array([{}], object)),
    "of three axes": lambda path: with_values(path, np.zeros((3, 9, 8), np.float32)),
    "of another shape": lambda path: with_values(path, np.zeros((1, 3, 9, 9), np.float32)),
    "a folder of text": lambda path: path.write_bytes(b"PK\x05\x06" + bytes(18)),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_that_is_hostile_or_anothers_is_not_believed_and_the_chip_is_fetched_again(
    field, cached, tmp_path, name
):
    whole = cached.fetch(ASKED)
    (file,) = (tmp_path / "chips").glob("*/*.npz")
    HOSTILE[name](file)
    same(cached.fetch(ASKED), whole)
    assert len(field.queries) == 2


def test_what_others_keep_in_the_folder_is_never_removed(tmp_path, field):
    (tmp_path / "photos").mkdir()
    mine = tmp_path / "photos" / "holiday.npz"
    mine.write_bytes(bytes(1000))
    cached = CachedProvider(field, tmp_path, limit_gb=1e-9)
    cached.fetch(ASKED)
    assert mine.exists() and not list(tmp_path.glob("*/" + "[0-9a-f]" * 64 + ".npz"))


def test_a_failure_is_not_kept(tmp_path):
    class Fails(FieldProvider):
        def fetch(self, query):
            super().fetch(query)
            raise NoImagery("none")

    provider = Fails()
    for _ in range(2):
        with pytest.raises(NoImagery):
            CachedProvider(provider, tmp_path, 1).fetch(ASKED)
    assert len(provider.queries) == 2
    assert list(tmp_path.iterdir()) == []


def test_the_folder_is_kept_under_its_size_and_what_was_used_last_stays(tmp_path, field):
    size = 4 * 3 * 72 + 2000
    provider = CachedProvider(field, tmp_path, limit_gb=20 * size / 1e9)
    for i in range(101):
        provider.fetch(replace(ASKED, geobox=grid(i, 0, 9, 8)))
    kept = list(tmp_path.glob("*/*.npz"))
    assert len(kept) < 20 + SWEEP_EVERY
    provider.fetch(replace(ASKED, geobox=grid(100, 0, 9, 8)))
    assert len(field.queries) == 101
    assert not list(tmp_path.glob("*/*.tmp"))


def test_many_threads_share_a_folder(tmp_path, field):
    provider = CachedProvider(field, tmp_path, limit_gb=20 * 3000 / 1e9)
    wrong = []

    def work(seed):
        for i in np.random.default_rng(seed).integers(0, 30, 60):
            query = replace(ASKED, geobox=grid(int(i), 0, 9, 8))
            if not np.array_equal(provider.fetch(query).values, FieldProvider().fetch(query).values):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_folder_that_cannot_be_made_is_said_so(field, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="Expected a folder for chips"):
        CachedProvider(field, tmp_path / "file" / "chips", 1)


@pytest.mark.slow
def test_the_variable_turns_it_on_for_every_call_and_every_process(tmp_path, monkeypatch):
    monkeypatch.setenv("RS_EMBED_CHIP_CACHE", str(tmp_path / "chips"))
    provider = FieldProvider()
    place = PointBuffer(lon=12.94, lat=47.77, buffer_m=480)
    one = get_embedding("mosaiks_rcf", place, YEAR, backend=provider)
    get_embedding("mosaiks_rcf", place, YEAR, OutputSpec.grid(), provider)
    assert len(provider.queries) == 1
    code = (
        "from rs_embed import *; from rs_embed.testing import FieldProvider; p = FieldProvider(); "
        f"e = get_embedding('mosaiks_rcf', {place!r}, TemporalSpec.year(2022), backend=p); "
        "print(len(p.queries), e.meta.fingerprint)"
    )
    done = warm.run(code)
    assert done.stdout.split() == ["0", one.meta.fingerprint]
