"""Restrict what a raster may use: its own bytes, and other rasters on this disk, unless the user allows more.

GDAL opens anything that a VRT names (URLs, any file as raw numbers), and it accepts descriptions of web services as
files. So each file is checked before GDAL opens it, and so is every file that a VRT names. GDAL treats XML attributes
like elements, and ignores the case of names; so does this module.
"""

import re
import stat
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from rs_embed.errors import ReadError

ALLOW = "allow_foreign=True"
"""How a user allows a file to use anything."""
LARGEST_VRT_B = 64_000_000
"""Enough for ten thousand tiles with twelve bands."""
VRT = "VRT"
_HEAD_B = 1024
"""The number of bytes from which GDAL recognises formats."""
_MAGIC = {
    b"II*\0": "GTiff", b"MM\0*": "GTiff", b"II+\0": "GTiff", b"MM\0+": "GTiff",
    b"\0\0\0\x0cjP  ": None, b"\xff\x4f\xff\x51": None, b"EHFA_HEADER_TAG": "HFA",
    b"CDF\x01": None, b"CDF\x02": None, b"CDF\x05": None, b"\x89HDF\r\n\x1a\n": None,
    b"\x89PNG": None, b"\xff\xd8\xff": None, b"NITF": None,
}  # fmt: skip
"""First bytes of formats that contain their pixels -> the driver that reads them; `None`: GDAL chooses."""
_SUBDATASET = re.compile(
    r'(?:NETCDF|HDF5|ZARR|GTIFF_DIR:(?:off:)?\d+):(?:"([^"]+)"|([^":]+))(?::(?!//).*)?', re.I | re.S
)
_BANDS = ("vrtsourcedrasterband", "vrtderivedrasterband", "vrtwarpedrasterband", "vrtpansharpenedrasterband")
_KINDS = (*_BANDS, "vrtwarpeddataset", "vrtpansharpeneddataset")
"""Kinds of bands and VRTs whose pixels come from rasters (not from raw bytes of a file)."""
_ELSEWHERE = re.compile(r"(?![A-Za-z]:[\\/])(?:[A-Za-z][\w+.]*:|<|\{|/vsi|//|\\\\)")
"""URLs, inline text, archives and memory; but not the drive of a Windows path."""
_FILES = ("sourcedataset", "overview_file", "x_dataset", "y_dataset")
"""Elements and metadata keys, besides "...Filename", that name a file."""
_TEXTS = ("description", "srs", "projection", "categorynames", "gcpprojection")
"""Free text, in which URLs are harmless; metadata are free text as well, except keys in `_FILES`."""


def driver_of(path: Path) -> str | None:
    """Return the driver for a file whose pixels are its own, or come from rasters on this disk; `None`: GDAL chooses.

    Raises:
        ReadError: It is not a regular file, not a known format of this kind, or a VRT that uses something else.
    """
    driver = _kind(path)
    if driver == VRT:
        _refuse_foreign(path)
    return driver


def require_regular(path: Path) -> None:
    """Refuse anything but a regular file: reading a pipe would wait forever.

    Raises:
        ReadError: It is a pipe, a socket or a device, or cannot be accessed.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise ReadError(f"Expected a raster, got {path}: {error.strerror}.", fix="check the path") from error
    if not stat.S_ISREG(mode):
        kind = "pipe" if stat.S_ISFIFO(mode) else "directory" if stat.S_ISDIR(mode) else "socket or device"
        raise ReadError(f"Expected a raster, got the {kind} {path}.", fix="copy its content to a file")


def _kind(path: Path) -> str | None:
    require_regular(path)
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_B)
    except OSError as error:
        raise ReadError(f"Expected a raster, got {path}: {error.strerror}.", fix="check its permissions") from error
    for magic, driver in _MAGIC.items():
        if head.startswith(magic):
            return driver
    if re.match(rb"(?:\xef\xbb\xbf)?\s*<", head) and b"<VRTDataset" in head:
        return VRT
    raise ReadError(
        f"Expected a raster that contains its pixels, got {path}, {'of another format' if head else 'empty'}.",
        fix=f"convert it, for example with gdal_translate; if you trust it, use LocalRasters(path, {ALLOW})",
    )


def _refuse_foreign(first: Path) -> None:
    """Check a VRT, the files that it names, and so on."""
    seen: set[Path] = set()
    waiting = [first]
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        if path == first or _kind_named(path, first) == VRT:
            waiting += _named_files(path, first)


def _kind_named(path: Path, first: Path) -> str | None:
    try:
        return _kind(path)
    except ReadError as error:
        raise _foreign(first, f"names {path} ({error.headline.rstrip('.')})") from error


def _named_files(vrt: Path, first: Path) -> Iterator[Path]:
    """Yield the files on this disk that a VRT names; GDAL reports missing ones."""
    folders = {True: vrt.resolve().parent, False: Path.cwd()}
    for name, beside in _names(vrt, first):
        inner = _SUBDATASET.fullmatch(name)
        text = (inner[1] or inner[2]) if inner else name
        if _ELSEWHERE.match(text):
            raise _foreign(first, f"names {name[:200]!r}")
        found = folders[beside] / text
        if inner is None and not found.exists():
            continue
        if inner is None or not found.is_dir():  # a Zarr store is a directory
            yield found


def _names(vrt: Path, first: Path) -> Iterator[tuple[str, bool]]:
    """Yield every file name in a VRT, and whether it is relative to the folder of the VRT.

    Raises:
        ReadError: The VRT is not XML, is too large, or contains something that is not read as a raster.
    """
    root = _parsed(vrt, first)
    texts = {child for one in root.iter() if one.tag.casefold() in _TEXTS for child in one.iter()}
    free_text = {child for one in root.iter() if one.tag.casefold() == "metadata" for child in one.iter()} | texts
    for one in root.iter():
        attributes = {name.casefold(): value for name, value in one.attrib.items()}
        beside = attributes.get("relativetovrt", "0") == "1"
        entries = [(one.tag.casefold(), "".join(one.itertext())), *attributes.items()]
        if one.tag.casefold() == "mdi":
            entries[0] = (attributes.get("key", "").casefold(), entries[0][1])
        for name, value in entries:
            if name == "subclass" and value.casefold() not in _KINDS:
                raise _foreign(first, f"has a {value}, which reads the bytes of any file")
            if name == "pixelfunctioncode" or (name == "pixelfunctionlanguage" and value.casefold() == "python"):
                raise _foreign(first, "has a function in Python")
            if name.endswith("filename") or name in _FILES:
                yield value.strip(), beside
            elif one not in free_text and not len(one) and re.search(r"/vsi|://", value):
                raise _foreign(first, f"names {value.strip()[:200]!r}")


def _parsed(vrt: Path, first: Path) -> ElementTree.Element:
    size = vrt.stat().st_size
    if size > LARGEST_VRT_B:
        raise _foreign(first, f"has a VRT of {size / 1e6:.0f} MB, too large to be looked at")
    text = vrt.read_bytes()
    if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
        raise _foreign(first, "defines entities (DOCTYPE)")
    try:
        return ElementTree.fromstring(text)  # noqa: S314  (of limited size, and without entities)
    except (ElementTree.ParseError, LookupError, ValueError, RecursionError) as error:
        raise _foreign(first, f"is not XML ({error})") from error


def _foreign(vrt: Path, found: str) -> ReadError:
    return ReadError(
        f"Expected a VRT of rasters on this disk, got {vrt}, which {found}.",
        fix=f"if you trust the file, use LocalRasters(path, {ALLOW})",
    )
