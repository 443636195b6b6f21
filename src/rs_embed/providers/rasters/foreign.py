"""What a raster on this disk may draw on: its own bytes, and other rasters on this disk, unless the user says more.

GDAL opens whatever a VRT names (web addresses, any file as raw numbers), and descriptions of web services look to it
like files. So a file is looked at before GDAL opens it, and so is every file that a VRT names. GDAL takes attributes
of XML for elements, and names in any case: so does this.
"""

import re
import stat
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from rs_embed.errors import ReadError

ALLOW = "allow_foreign=True"
"""How the user says that a file may draw on anything."""
LARGEST_VRT_B = 64_000_000
"""Ten thousand tiles of twelve bands take less."""
VRT = "VRT"
_HEAD_B = 1024
"""As much as GDAL looks at."""
_MAGIC = {
    b"II*\0": "GTiff", b"MM\0*": "GTiff", b"II+\0": "GTiff", b"MM\0+": "GTiff",
    b"\0\0\0\x0cjP  ": None, b"\xff\x4f\xff\x51": None, b"EHFA_HEADER_TAG": "HFA",
    b"CDF\x01": None, b"CDF\x02": None, b"CDF\x05": None, b"\x89HDF\r\n\x1a\n": None,
    b"\x89PNG": None, b"\xff\xd8\xff": None, b"NITF": None,
}  # fmt: skip
"""First bytes of formats that hold their pixels themselves, and the driver that reads them; `None`: GDAL chooses."""
_SUBDATASET = re.compile(
    r'(?:NETCDF|HDF5|ZARR|GTIFF_DIR:(?:off:)?\d+):(?:"([^"]+)"|([^":]+))(?::(?!//).*)?', re.I | re.S
)
_BANDS = ("vrtsourcedrasterband", "vrtderivedrasterband", "vrtwarpedrasterband", "vrtpansharpenedrasterband")
_KINDS = (*_BANDS, "vrtwarpeddataset", "vrtpansharpeneddataset")
"""Kinds of bands and of whole VRTs whose pixels come from rasters (not: raw bytes of a file)."""
_ELSEWHERE = re.compile(r"(?![A-Za-z]:[\\/])(?:[A-Za-z][\w+.]*:|<|\{|/vsi|//|\\\\)")
"""Addresses, text in place of a file, archives and memory; but not the drive of a Windows path."""
_FILES = ("sourcedataset", "overview_file", "x_dataset", "y_dataset")
"""Besides "...Filename", what names a file: elements, and keys of metadata."""
_TEXTS = ("description", "srs", "projection", "categorynames", "gcpprojection")
"""Words for people, in which addresses do no harm; so are those of metadata, but for keys of `_FILES`."""


def driver_of(path: Path) -> str | None:
    """The driver that reads a file whose pixels are its own, or those of rasters on this disk; `None`: GDAL chooses.

    Raises:
        ReadError: It is no regular file, no format known to be so, or a VRT that draws on something else.
    """
    driver = _kind(path)
    if driver == VRT:
        _refuse_foreign(path)
    return driver


def require_regular(path: Path) -> None:
    """Refuse what is no file: a pipe would be waited for forever.

    Raises:
        ReadError: It is a pipe, a socket, a device, or may not be looked at.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise ReadError(f"Expected a raster, got {path}: {error.strerror}.", fix="check the path") from error
    if not stat.S_ISREG(mode):
        kind = "pipe" if stat.S_ISFIFO(mode) else "directory" if stat.S_ISDIR(mode) else "socket or device"
        raise ReadError(f"Expected a raster, got the {kind} {path}.", fix="copy what it gives to a file")


def _kind(path: Path) -> str | None:
    require_regular(path)
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_B)
    except OSError as error:
        raise ReadError(f"Expected a raster, got {path}: {error.strerror}.", fix="check who may read it") from error
    for magic, driver in _MAGIC.items():
        if head.startswith(magic):
            return driver
    if re.match(rb"(?:\xef\xbb\xbf)?\s*<", head) and b"<VRTDataset" in head:
        return VRT
    raise ReadError(
        f"Expected a raster that holds its pixels itself, got {path}, {'of another format' if head else 'empty'}.",
        fix=f"convert it, for example with gdal_translate; if you trust it: LocalRasters(path, {ALLOW})",
    )


def _refuse_foreign(first: Path) -> None:
    """Look at a VRT, at the files that it names, and so on."""
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
    """The files on this disk that a VRT names; one that is missing is left for GDAL to miss."""
    folders = {True: vrt.resolve().parent, False: Path.cwd()}
    for name, beside in _names(vrt, first):
        inner = _SUBDATASET.fullmatch(name)
        text = (inner[1] or inner[2]) if inner else name
        if _ELSEWHERE.match(text):
            raise _foreign(first, f"names {name[:200]!r}")
        found = folders[beside] / text
        if inner is None and not found.exists():
            continue
        if inner is None or not found.is_dir():  # a Zarr store is one
            yield found


def _names(vrt: Path, first: Path) -> Iterator[tuple[str, bool]]:
    """Every file name in a VRT, and whether it is meant from the folder of the VRT.

    Raises:
        ReadError: It is no XML, too large, or has what is read otherwise than as rasters.
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
        raise _foreign(first, "defines words of its own (DOCTYPE)")
    try:
        return ElementTree.fromstring(text)  # noqa: S314  (of limited size, and without entities)
    except (ElementTree.ParseError, LookupError, ValueError, RecursionError) as error:
        raise _foreign(first, f"is no XML ({error})") from error


def _foreign(vrt: Path, found: str) -> ReadError:
    return ReadError(
        f"Expected a VRT of rasters on this disk, got {vrt}, which {found}.",
        fix=f"if you trust the file: LocalRasters(path, {ALLOW})",
    )
