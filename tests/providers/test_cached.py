"""Chips kept on disk."""

import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
from asking import S1, ask, grid

from rs_embed import OutputSpec, PointBuffer, TemporalSpec, get_embedding
from rs_embed.errors import NoImagery, StorageError
from rs_embed.providers.base import Query
from rs_embed.providers.cached import SWEEP_EVERY, CachedProvider
from rs_embed.providers.sample import SampleScene
from rs_embed.specs import SensorSpec, Series
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
    with pytest.raises(StorageError, match="Wanted a folder for chips"):
        CachedProvider(field, tmp_path / "file" / "chips", 1)


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
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", one.meta.fingerprint]
