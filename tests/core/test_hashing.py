"""Digests that runs and fingerprints are known by: they never change."""

import hashlib
import json
from datetime import date
from pathlib import Path

import pytest

from rs_embed.core.hashing import json_digest, sha256_of


def of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_the_order_of_names_does_not_count_and_dates_paths_and_tuples_have_a_form():
    facts = {"b": (1, 2.5), "a": date(2020, 1, 2), "c": Path("x/y"), "d": None}
    assert json_digest(facts) == of('{"a":"2020-01-02","b":[1,2.5],"c":"x/y","d":null}')
    assert json_digest(dict(reversed(facts.items()))) == json_digest(facts)


def test_other_characters_are_escaped_or_kept_as_asked():
    assert json_digest("Fläche") == of(json.dumps("Fläche"))
    assert json_digest("Fläche", ascii_only=False) == of('"Fläche"')


def test_what_has_no_stable_text_form_is_refused():
    with pytest.raises(TypeError, match="no stable text form"):
        json_digest({"a": object()})


def test_a_folder_counts_by_the_names_and_bytes_of_its_files(tmp_path):
    (tmp_path / "folder" / "sub").mkdir(parents=True)
    (tmp_path / "folder" / "b").write_bytes(b"2")
    (tmp_path / "folder" / "sub" / "a").write_bytes(b"1")
    assert sha256_of(tmp_path / "folder") == of("b2sub/a1")
    assert sha256_of(tmp_path / "folder" / "b") == of("2")
