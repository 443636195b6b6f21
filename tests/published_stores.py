"""Public stores of embeddings on loopback: real sharded Zarr v3, laid out as the publishers', behind byte ranges."""

import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import zarr
from pyproj import Transformer
from zarr.codecs import BloscCodec, ZstdCodec

from rs_embed.testing import directions

STEP = 8.983111749910169e-05
TOP = 83.68570533713473
"""Pixel size and northern edge of AlphaEarth's mosaic, degrees."""
YEARS = range(2017, 2026)


@dataclass
class Asked:
    """One request: the path, the range, the status, and the bytes of the answer."""

    path: str
    span: str | None
    status: int
    size: int


@dataclass
class Served:
    """A folder on loopback."""

    folder: Path
    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    faults: list[Callable[[str, str | None], int | str | None]] = field(default_factory=list)
    """Each is asked with path and range: a status to answer, "drop", "short", "garble", "whole", or `None`."""

    @property
    def data(self) -> list[Asked]:
        """Requests for chunks and indexes, without those for metadata."""
        return [one for one in self.asked if not one.path.endswith("zarr.json")]

    def fail(self, pattern: str, what: int | str, times: int = 1_000_000) -> None:
        """Answer the next requests that match with a fault."""
        left = [times]

        def fault(path: str, span: str | None) -> int | str | None:
            if left[0] and re.search(pattern, f"{path} {span}"):
                left[0] -= 1
                return what
            return None

        self.faults.append(fault)


@contextmanager
def serving(folder: Path) -> Iterator[Served]:
    served = Served(folder)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path, span = self.path.lstrip("/"), self.headers.get("Range")
            fault = next((what for fault in served.faults if (what := fault(path, span)) is not None), None)
            file = folder / path
            if isinstance(fault, int) or not file.is_file():
                self._answer(path, span, fault if isinstance(fault, int) else 404, b"no")
                return
            status, (body, size) = 200, (b"", file.stat().st_size)
            first, _, last = (span or "").removeprefix("bytes=").partition("-")
            if span is None or fault == "whole":
                body = file.read_bytes()
            elif int(first or 0) >= size:
                status = 416
            else:
                start, stop = (int(first), int(last) + 1) if first else (max(0, size - int(last)), size)
                with file.open("rb") as opened:
                    opened.seek(start)
                    status, body = 206, opened.read(stop - start)
            if fault == "garble":
                body = bytes(byte ^ 0x5A for byte in body)
            if fault == "short":
                body = body[: len(body) // 2]
            self._answer(path, span, status, body, cut=fault == "drop")

        def _answer(self, path: str, span: str | None, status: int, body: bytes, *, cut: bool = False) -> None:
            served.asked.append(Asked(path, span, status, len(body)))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if cut else body)
            self.close_connection |= cut

        def log_message(self, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            pass

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    served.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()


# AlphaEarth ------------------------------------------------------------------


def mosaic(folder: Path, *, chunk_px: int = 32, shard_px: int = 128, time: bool = False, **changes) -> zarr.Array:
    """An empty mosaic with the grid of the published one. Its shards are smaller, so that tests are quick."""
    shutil.rmtree(folder, ignore_errors=True)
    attributes = {"proj:code": "EPSG:4326", "spatial:transform": [STEP, 0.0, -180.0, 0.0, -STEP, TOP]}
    group = zarr.open_group(folder, mode="w", zarr_format=3, attributes=attributes | changes.pop("attributes", {}))
    if time:
        put_time(group)
    options = {
        "shape": (len(YEARS), 64, 1_859_584, 4_009_984),
        "dtype": "int8",
        "fill_value": -128,
        "shards": (1, 64, shard_px, shard_px),
        "chunks": (1, 64, chunk_px, chunk_px),
        "compressors": ZstdCodec(level=3),
        "dimension_names": ("time", "band", "y", "x"),
    }
    return group.create_array("embeddings", **(options | changes))


def put_time(group: zarr.Group, values=tuple(YEARS), **options) -> zarr.Array:
    values = np.asarray(values)
    array = group.create_array("time", shape=values.shape, dtype=values.dtype, dimension_names=("time",), **options)
    array[:] = values
    return array


def mosaic_pixel(lon: float, lat: float) -> tuple[int, int]:
    """Row and column of the mosaic at a place."""
    return int((TOP - lat) // STEP), int((lon + 180) // STEP)


def ramp(rows: np.ndarray, cols: np.ndarray, year: int) -> np.ndarray:
    """Bytes -127 to 127 that tell row, column, band and year apart, `[64, H, W]`."""
    bands = np.arange(64)[:, None, None]
    mixed = 3 * rows[None, :, None] + 11 * cols[None, None, :] + 17 * bands + 29 * (year - 2017)
    return (mixed % 255 - 127).astype(np.int8)


def unit_vectors(rows: np.ndarray, cols: np.ndarray, year: int) -> np.ndarray:
    """Vectors of length 1 as bytes, `[64, H, W]`."""
    lon, lat = np.meshgrid(-180 + (cols + 0.5) * STEP, TOP - (rows + 0.5) * STEP)
    found = np.stack([directions(lon, lat + 0.001 * (year - 2017), f"A{band:02d}") for band in range(64)])
    return np.rint(127.5 * np.sign(found) * np.sqrt(np.abs(found))).clip(-127, 127).astype(np.int8)


def paint(array: zarr.Array, year: int, rows: slice, cols: slice, field=ramp) -> np.ndarray:
    values = field(np.arange(rows.start, rows.stop), np.arange(cols.start, cols.stop), year)
    array[year - 2017 : year - 2016, :, rows, cols] = values[None]
    return values


def dequantised(q: np.ndarray) -> np.ndarray:
    """The formula itself, in float64, then float32."""
    values = (q.astype(np.float64) / 127.5) ** 2 * np.sign(q.astype(np.float64))
    return np.where((q == -128).any(axis=0), np.nan, values).astype(np.float32)


# TESSERA ---------------------------------------------------------------------

TOP_M, LEFT_M = 9_400_000.0, 160_000.0
"""North-western corner of a zone, which reaches from pole to pole."""


def tessera(folder: Path) -> zarr.Group:
    shutil.rmtree(folder, ignore_errors=True)
    return zarr.open_group(folder, mode="w", zarr_format=3, attributes={"geoemb:type": "pixel"})


def zone(root: zarr.Group, number: int, *, chunk_px: int = 8, shard_px: int = 64, **attributes) -> zarr.Group:
    """An empty zone with the layout of the published ones. Its shards are smaller, so that tests are quick."""
    height, width = 1_940_000, 68_000
    stated = {
        "proj:code": f"EPSG:{32600 + number}",
        "spatial:transform": [10.0, 0.0, LEFT_M, 0.0, -10.0, TOP_M],
        "spatial:shape": [height, width],
    }
    group = root.create_group(f"utm{number:02d}", attributes=stated | attributes)
    put_time(group, np.array(YEARS, np.int64))
    blosc = BloscCodec(cname="zstd", clevel=3)
    group.create_array(
        "embeddings", shape=(len(YEARS), 128, height, width), dtype="int8", fill_value=0, compressors=blosc,
        shards=(1, 128, shard_px, shard_px), chunks=(1, 128, chunk_px, chunk_px),
        dimension_names=("time", "band", "y", "x"),
    )  # fmt: skip
    group.create_array(
        "scales", shape=(len(YEARS), height, width), dtype="float32", fill_value=np.nan, compressors=blosc,
        shards=(1, shard_px, shard_px), chunks=(1, chunk_px, chunk_px), dimension_names=("time", "y", "x"),
    )  # fmt: skip
    return group


def zone_pixel(number: int, lon: float, lat: float) -> tuple[int, int]:
    """Row and column in a zone's grid, which is the northern one."""
    x, y = Transformer.from_crs("EPSG:4326", f"EPSG:{32600 + number}", always_xy=True).transform(lon, lat)
    return int((TOP_M - y) // 10), int((x - LEFT_M) // 10)


def fill_zone(group: zarr.Group, year: int, rows: slice, cols: slice, salt: int = 0) -> np.ndarray:
    """Write embeddings that tell pixels apart; return their values, `[128, H, W]` float32."""
    row, col = np.arange(rows.start, rows.stop)[:, None], np.arange(cols.start, cols.stop)[None, :]
    bands = np.arange(128)[:, None, None]
    q = ((5 * row + 13 * col + 7 * bands + 31 * (year - 2017) + salt) % 255 - 127).astype(np.int8)
    scale = (0.03 + ((row * 3 + col) % 97) / 1000).astype(np.float32)
    group["embeddings"][year - 2017 : year - 2016, :, rows, cols] = q[None]
    group["scales"][year - 2017 : year - 2016, rows, cols] = scale[None]
    return q.astype(np.float32) * scale
