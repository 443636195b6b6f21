"""A small `.npz` that says that it is large."""

import io
import zipfile

import numpy as np
import pytest

from rs_embed import Embedding, get_embedding
from rs_embed.errors import StorageError


@pytest.fixture
def kept(tmp_path):
    emb = get_embedding("mosaiks_rcf", backend="sample")
    return emb, emb.save(tmp_path / "one.npz")


def declaring(shape: tuple[int, ...]) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return out.getvalue()


def repacked(path, body: bytes, how: int) -> None:
    with zipfile.ZipFile(path) as packed:
        meta = packed.read("meta.npy")
    with zipfile.ZipFile(path, "w", how) as packed:
        packed.writestr("embedding.npy", body)
        packed.writestr("meta.npy", meta)


@pytest.mark.slow
def test_a_header_that_declares_more_than_there_is_is_refused(kept):
    _, path = kept
    repacked(path, declaring((8_500_000_000,)) + bytes(64), zipfile.ZIP_STORED)  # 34 GB
    with pytest.raises(StorageError, match="declares 34 GB"):
        Embedding.load(path)


@pytest.mark.slow
def test_an_array_that_would_unpack_to_more_than_the_file_is_refused(kept):
    _, path = kept
    repacked(path, declaring((10_000_000,)) + bytes(40_000_000), zipfile.ZIP_DEFLATED)
    with pytest.raises(StorageError, match=r"declares 0\.04 GB"):
        Embedding.load(path)


def test_what_was_saved_is_read_back(kept):
    emb, path = kept
    np.testing.assert_array_equal(Embedding.load(path).data, emb.data)
