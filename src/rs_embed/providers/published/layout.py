"""What a Zarr v3 store says of itself. Shapes, chunks, axes and codecs are read, never assumed."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np

from rs_embed.core.checks import short
from rs_embed.errors import ReadError
from rs_embed.providers.published.codecs import CHECKSUM_B, KNOWN, Codec

Json = Mapping[str, object]
_NUMBERS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_TYPES = (*(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)), "float32", "float64")
ENTRY_B = 16
"""Bytes of a chunk's entry in the index of a shard: where it begins and how long it is, 64 bits each."""


def changed(where: str, expected: str, got: object) -> ReadError:
    """Return the error for a store that is laid out in another way than documented."""
    return ReadError(
        f"Expected {expected} in {where}, got {got if isinstance(got, str) else short(got)}.",
        fix="its layout may have changed: update eo-rs-embed, or set the address of a copy with the documented layout",
    )


@dataclass(frozen=True)
class ArrayLayout:
    """Where the numbers of an array are."""

    path: str
    """Path in the store."""
    shape: tuple[int, ...]
    axes: tuple[str, ...]
    """Names of the axes, in order."""
    dtype: np.dtype[np.generic]
    fill: float
    """The value of everything that is not stored."""
    file_shape: tuple[int, ...]
    """What a file holds: a shard, or without sharding one chunk."""
    chunk_shape: tuple[int, ...]
    codecs: tuple[Codec, ...]
    """How a chunk is encoded."""
    index_codecs: tuple[Codec, ...] = ()
    """How the index of a shard is encoded; empty without sharding."""
    index_first: bool = False
    """Whether the index is at the start of a shard, not at its end."""
    keys: str = "c/{}"
    separator: str = "/"
    attributes: Json = field(default_factory=dict, compare=False)

    @property
    def chunks_per_file(self) -> tuple[int, ...]:
        """Number of chunks along each axis of a file."""
        return tuple(whole // part for whole, part in zip(self.file_shape, self.chunk_shape, strict=True))

    @property
    def chunk_b(self) -> int:
        """Size of a decoded chunk, bytes."""
        return math.prod(self.chunk_shape) * self.dtype.itemsize

    @property
    def index_b(self) -> int:
        """Size of the index of a shard, bytes."""
        checksums = sum(codec.name == "crc32c" for codec in self.index_codecs)
        return ENTRY_B * math.prod(self.chunks_per_file) + CHECKSUM_B * checksums

    def file(self, position: Sequence[int]) -> str:
        """Return the path of a file, by its position among the files."""
        return f"{self.path}/{self.keys.format(self.separator.join(map(str, position)))}"

    def axis(self, name: str) -> int:
        """Return the number of an axis.

        Raises:
            ReadError: The array has no such axis.
        """
        if name not in self.axes:
            raise changed(self.path, f"an axis {name!r}", f"the axes {', '.join(self.axes)}")
        return self.axes.index(name)


def parsed(text: bytes, where: str) -> Json:
    """Return the content of a `zarr.json`.

    Raises:
        ReadError: It is not one of Zarr version 3.
    """
    try:
        found = json.loads(text)
    except ValueError:  # also bytes that are not UTF-8
        found = text[:80].decode("utf-8", "replace")
    if not isinstance(found, dict) or found.get("zarr_format") != 3:
        raise changed(where, "metadata of Zarr version 3", found)
    return found


def attributes_of(node: Json) -> Json:
    """Return the attributes of a group or array."""
    return _mapping(node.get("attributes")) or {}


def array_of(node: Json, path: str) -> ArrayLayout:
    """Return the layout of an array.

    Args:
        node: Its `zarr.json`.
        path: Its path in the store.

    Raises:
        ReadError: It is no array, or uses a feature that this reader does not know; the error names it.
    """
    if node.get("node_type") != "array":
        raise changed(path, "an array", node.get("node_type"))
    shape = _sizes(node.get("shape"), path, "a shape")
    axes = node.get("dimension_names")
    if not isinstance(axes, list) or len(axes) != len(shape) or not all(isinstance(name, str) for name in axes):
        raise changed(path, "a name for each axis", axes)
    file_shape = _sizes(_option(node.get("chunk_grid"), "regular", "chunk_shape", path), path, "a chunk shape")
    codecs = _codecs(node.get("codecs"), path)
    chunk_shape, index_codecs, sharding = file_shape, tuple[Codec, ...](), codecs[0].options
    if [codec.name for codec in codecs] == ["sharding_indexed"]:
        chunk_shape = _sizes(sharding.get("chunk_shape"), path, "a chunk shape")
        index_codecs = _known(_codecs(sharding.get("index_codecs"), path), ("bytes", "crc32c"), path)
        codecs = _codecs(sharding.get("codecs"), path)
    if not len(shape) == len(file_shape) == len(chunk_shape) or any(
        not part or whole % part for whole, part in zip(file_shape, chunk_shape, strict=False)
    ):
        raise changed(path, f"chunks that divide {file_shape}", chunk_shape)
    keys, separator = _keys(node.get("chunk_key_encoding"), path)
    dtype = _dtype(node.get("data_type"), path)
    return ArrayLayout(
        path=path,
        shape=shape,
        axes=tuple(axes),
        dtype=dtype,
        fill=_fill(node.get("fill_value"), path),
        file_shape=file_shape,
        chunk_shape=chunk_shape,
        codecs=_known(codecs, KNOWN, path),
        index_codecs=index_codecs,
        index_first=bool(index_codecs) and sharding.get("index_location") == "start",
        keys=keys,
        separator=separator,
        attributes=attributes_of(node),
    )


def _mapping(value: object) -> Json | None:
    return cast("Json", value) if isinstance(value, dict) else None


def _sizes(value: object, path: str, what: str) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(isinstance(size, int) and size >= 0 for size in value):
        raise changed(path, what, value)
    return tuple(value)


def _option(value: object, name: str, option: str, path: str) -> object:
    """Return an option of the named extension point, such as the shape of a regular grid."""
    found = _mapping(value)
    if found is None or found.get("name") != name:
        raise changed(path, f"{name!r}", value)
    return (_mapping(found.get("configuration")) or {}).get(option)


def _codecs(value: object, path: str) -> tuple[Codec, ...]:
    steps = (
        [_mapping({"name": one} if isinstance(one, str) else one) for one in value] if isinstance(value, list) else []
    )
    if not steps or any(step is None or not isinstance(step.get("name"), str) for step in steps):
        raise changed(path, "a list of codecs", value)
    return tuple(
        Codec(str(step["name"]), _mapping(step.get("configuration")) or {}) for step in steps if step is not None
    )


def _known(codecs: tuple[Codec, ...], known: Sequence[str], path: str) -> tuple[Codec, ...]:
    names = [codec.name for codec in codecs]
    if not set(names) <= set(known) or names.count("bytes") != 1:
        raise changed(path, f"codecs among {', '.join(known)}", ", ".join(names))
    return codecs


def _keys(value: object, path: str) -> tuple[str, str]:
    """Return the pattern of file names and the separator in them."""
    found = _mapping(value) or {}
    name, options = found.get("name"), _mapping(found.get("configuration")) or {}
    separator = options.get("separator", "." if name == "v2" else "/")
    if name not in ("default", "v2") or separator not in ("/", "."):
        raise changed(path, "the chunk keys 'default' or 'v2'", value)
    return ("{}" if name == "v2" else f"c{separator}{{}}"), str(separator)


def _dtype(value: object, path: str) -> np.dtype[np.generic]:
    if value not in _TYPES:
        raise changed(path, f"one of the types {', '.join(_TYPES)}", value)
    return np.dtype(str(value))


def _fill(value: object, path: str) -> float:
    number = _NUMBERS.get(value) if isinstance(value, str) else value
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise changed(path, "a number as fill value", value)
    return number
