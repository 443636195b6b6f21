"""Make the links of items absolute, and find where their files are."""

import os.path
import re
from collections.abc import Mapping
from urllib.parse import unquote, urljoin, urlsplit

_BUCKETS = {"s3": "https://{}.s3.amazonaws.com/{}", "gs": "https://storage.googleapis.com/{}/{}"}
"""URL prefixes of open buckets, which can be read without an account."""


def is_local(source: str) -> bool:
    """Return whether it is a path on this machine."""
    return urlsplit(source).scheme in ("", "file") and not source.startswith("/vsi")


def path_of(source: str) -> str:
    """Return a local path; accepts `file://` links."""
    return unquote(urlsplit(source).path) if source.startswith("file:") else source


_ELSEWHERE = {"eodata": "https://eodata.dataspace.copernicus.eu"}
"""Services of well-known buckets outside Amazon, for items that do not state them."""


def in_a_bucket(href: str) -> tuple[str, str] | None:
    """Return bucket and key of an `s3://` link; `None` for other links."""
    found = re.fullmatch(r"s3://([^/]+)/(.+)", href)
    return None if found is None else (found[1], found[2])


def web_address(href: str) -> str | None:
    """Return the `https://` address of a link; `None` if it has none."""
    parts = urlsplit(href)
    if parts.scheme in _BUCKETS and parts.netloc:
        return _BUCKETS[parts.scheme].format(parts.netloc, parts.path.lstrip("/"))
    return href if parts.scheme in ("http", "https") else None


def joined(base: str | None, href: str) -> str:
    """Make a link of a document absolute."""
    if base is None or urlsplit(href).scheme or href.startswith("/vsi"):
        return href
    if is_local(base):
        return os.path.normpath(os.path.join(os.path.dirname(path_of(base)), href))
    return urljoin(base, href)


def file_link(asset: Mapping[str, object], properties: Mapping[str, object], base: str | None) -> str:
    """Return the best link of an asset to read.

    For a bucket outside Amazon and Google, this is an open copy on the web, if there is one.
    """
    href = joined(base, str(asset["href"]))
    others = asset.get("alternate")
    if href.startswith("s3://") and isinstance(others, Mapping) and s3_service(asset, properties) is not None:
        for other in others.values():
            if isinstance(other, Mapping) and str(other.get("href", "")).startswith("https://"):
                return href if other.get("auth:refs") else str(other["href"])
    return href


def s3_service(asset: Mapping[str, object], properties: Mapping[str, object]) -> str | None:
    """Return the service that hosts an asset's bucket, if it is known not to be Amazon.

    It is known if the item states it (storage extension 2), or if the bucket is well known.
    """
    bucket = in_a_bucket(str(asset.get("href", "")))
    stated = _stated_service(asset, properties)
    return stated or (_ELSEWHERE.get(bucket[0]) if bucket is not None else None)


def _stated_service(asset: Mapping[str, object], properties: Mapping[str, object]) -> str | None:
    schemes, names = properties.get("storage:schemes"), asset.get("storage:refs")
    if not isinstance(schemes, Mapping) or not isinstance(names, list):
        return None
    for name in names:
        scheme = schemes.get(name)
        platform = str(scheme.get("platform", "")) if isinstance(scheme, Mapping) else ""
        if platform.startswith("http") and "amazonaws.com" not in platform:
            return platform.replace("{bucket}.", "")
    return None
