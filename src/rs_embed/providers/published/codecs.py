"""Decode the chunks of a Zarr v3 array. Source: the Zarr core specification 3.0 and its codec specifications."""

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


class Damaged(Exception):
    """Bytes that are not what the metadata of the store says."""


@dataclass(frozen=True)
class Codec:
    """One step of an encoding, as `zarr.json` names it."""

    name: str
    options: Mapping[str, object] = field(default_factory=dict)


KNOWN = ("transpose", "bytes", "blosc", "zstd", "gzip", "crc32c")
"""The codecs that `decoded` understands."""
CHECKSUM_B = 4


def decoded(
    stored: bytes, codecs: Sequence[Codec], dtype: np.dtype[np.generic], shape: tuple[int, ...]
) -> NDArray[np.generic]:
    """Return the array that a chunk holds.

    Args:
        stored: The chunk.
        codecs: Their order is that of encoding; all are `KNOWN`.
        dtype: Type of the array.
        shape: Its shape.

    Raises:
        Damaged: The chunk is cut off, fails its checksum or does not decompress to that shape.
    """
    orders = [_order(codec, len(shape)) for codec in codecs if codec.name == "transpose"]
    as_stored = shape
    for order in orders:
        as_stored = tuple(as_stored[axis] for axis in order)
    for codec in reversed(codecs):
        if codec.name == "bytes":
            dtype = dtype.newbyteorder(">" if codec.options.get("endian") == "big" else "<")
        elif codec.name != "transpose":
            stored = _bytes_before(stored, codec)
    expected_b = math.prod(shape) * dtype.itemsize
    if len(stored) != expected_b:
        raise Damaged(f"{len(stored):,} bytes after decompression instead of {expected_b:,}")
    array = np.frombuffer(stored, dtype).reshape(as_stored)
    for order in reversed(orders):
        array = array.transpose(np.argsort(order))
    return array


def _order(codec: Codec, axes: int) -> tuple[int, ...]:
    order = codec.options.get("order")
    if not isinstance(order, list) or sorted(order) != list(range(axes)):
        raise Damaged(f"a transposition by {order!r} instead of an order of {axes} axes")
    return tuple(order)


def _bytes_before(stored: bytes, codec: Codec) -> bytes:
    """Undo one step from bytes to bytes."""
    if codec.name == "crc32c":
        return _checked(stored)
    try:
        if codec.name == "gzip":
            return zlib.decompress(stored, wbits=31)
        if codec.name == "zstd":
            from numcodecs.zstd import Zstd

            return bytes(Zstd().decode(stored))
        from numcodecs.blosc import Blosc

        return bytes(Blosc().decode(stored))
    except (RuntimeError, ValueError, zlib.error) as error:
        raise Damaged(f"bytes that {codec.name} cannot decompress ({error})") from error


def _checked(stored: bytes) -> bytes:
    """Check and remove the checksum at the end."""
    import google_crc32c

    body, checksum = stored[:-CHECKSUM_B], stored[-CHECKSUM_B:]
    if google_crc32c.value(body) != int.from_bytes(checksum, "little"):
        raise Damaged("a wrong checksum")
    return body
