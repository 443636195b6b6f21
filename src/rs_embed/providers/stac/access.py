"""Where the files of an item are, and how GDAL is to read them: on the web, in a bucket, or on this disk."""

import os.path
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urljoin, urlsplit

from rs_embed.errors import SpecError
from rs_embed.providers.stac.http import Credentials, Http
from rs_embed.providers.stac.sign import Signer

_BUCKETS = {"s3": "https://{}.s3.amazonaws.com/{}", "gs": "https://storage.googleapis.com/{}/{}"}
"""Open buckets can be read without an account, by their address on the web."""


def is_local(source: str) -> bool:
    """Whether it is a path on this machine."""
    return urlsplit(source).scheme in ("", "file") and not source.startswith("/vsi")


def path_of(source: str) -> str:
    """A local path, also from a `file://` link."""
    return unquote(urlsplit(source).path) if source.startswith("file:") else source


def web_address(href: str) -> str | None:
    """Where a link is on the web; `None` if it is not."""
    parts = urlsplit(href)
    if parts.scheme in _BUCKETS and parts.netloc:
        return _BUCKETS[parts.scheme].format(parts.netloc, parts.path.lstrip("/"))
    return href if parts.scheme in ("http", "https") else None


def joined(base: str | None, href: str) -> str:
    """A link as it stands in a document, made absolute by where that document is."""
    if base is None or urlsplit(href).scheme or href.startswith("/vsi"):
        return href
    if is_local(base):
        return os.path.normpath(os.path.join(os.path.dirname(path_of(base)), href))
    return urljoin(base, href)


def file_link(asset: Mapping[str, object], properties: Mapping[str, object], base: str | None) -> str:
    """The link of an asset that is best to read.

    Of a bucket that is neither Amazon's nor Google's, its copy on the web, if it has an open one.
    """
    href = joined(base, str(asset["href"]))
    others = asset.get("alternate")
    if href.startswith("s3://") and isinstance(others, Mapping) and s3_service(asset, properties) is not None:
        for other in others.values():
            if isinstance(other, Mapping) and str(other.get("href", "")).startswith("https://"):
                return href if other.get("auth:refs") else str(other["href"])
    return href


def s3_service(asset: Mapping[str, object], properties: Mapping[str, object]) -> str | None:
    """The service that keeps an asset's bucket, if the item says that it is not Amazon's (storage extension 2)."""
    schemes, names = properties.get("storage:schemes"), asset.get("storage:refs")
    if not isinstance(schemes, Mapping) or not isinstance(names, list):
        return None
    for name in names:
        scheme = schemes.get(name)
        platform = str(scheme.get("platform", "")) if isinstance(scheme, Mapping) else ""
        if platform.startswith("http") and "amazonaws.com" not in platform:
            return platform.replace("{bucket}.", "")
    return None


@dataclass(frozen=True)
class Access:
    """How the files of a catalogue are reached."""

    signer: Signer
    http: Http
    credentials: Credentials
    s3_endpoint: str | None = None
    """Of the service that keeps its `s3://` files."""
    local: bool = False
    """Whether it may name files of this machine: a catalogue on the web may not."""

    def opened_by(self, href: str, service: str | None) -> tuple[str, dict[str, str]]:
        """How GDAL opens a file just now: its name there, and options.

        Args:
            href: Of the asset, absolute.
            service: That keeps its bucket, as far as its item tells.

        Raises:
            SpecError: It is of no kind that we read, or on this machine though its catalogue is not.
            Refusal: The service that signs it, or has it, says no.
            Silence: It does not answer.
        """
        scheme = urlsplit(href).scheme
        if scheme in ("http", "https"):
            return self._on_the_web(href)
        if is_local(href) and self.local:
            return path_of(href), {}
        bucket = re.fullmatch(r"(s3|gs)://([^/]+)/(.+)", href)
        if bucket is None:
            raise SpecError(
                "Expected a link to a file on the web or in a bucket, got another.",
                href=href.partition("?")[0],
                fix="https, s3 and gs are read; files of this machine only from a catalogue on this machine",
            )
        if scheme == "s3" and self.s3_endpoint is not None:
            return self._in_a_bucket(bucket[2], bucket[3], self.s3_endpoint)
        if service is not None:
            raise SpecError(
                f"Expected to know how to read {scheme}://{bucket[2]}, got a bucket of {service}.",
                fix=f"StacCatalog(..., s3_endpoint={service!r}), with its keys in AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY",
            )
        return self._on_the_web(_BUCKETS[scheme].format(bucket[2], bucket[3]))

    def _on_the_web(self, href: str) -> tuple[str, dict[str, str]]:
        url = self.signer.sign(href)
        headers = self.credentials.of(url)
        if headers:  # GDAL would show them to any host that it is redirected to
            url = self.http.landed(url)
            headers = self.credentials.of(url)
        options = {"CPL_VSIL_CURL_ALLOWED_EXTENSIONS": _ending(url)}  # else a user's own list could forbid it
        if headers:
            options["GDAL_HTTP_HEADERS"] = ",".join(f'"{name}: {value}"' for name, value in headers.items())
        return f"/vsicurl/{url}", options

    def _in_a_bucket(self, bucket: str, key: str, endpoint: str) -> tuple[str, dict[str, str]]:
        parts = urlsplit(endpoint if "://" in endpoint else f"https://{endpoint}")
        return f"/vsis3/{bucket}/{key}", {
            "AWS_S3_ENDPOINT": parts.netloc,
            "AWS_HTTPS": "NO" if parts.scheme == "http" else "YES",
            "AWS_VIRTUAL_HOSTING": "FALSE",  # the bucket stands in the path, which every such service knows
            "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": _ending(key),
        }


def _ending(url: str) -> str:
    """What GDAL takes for the extension of a file: it does not count the query."""
    name = url.partition("?")[0].rsplit("/", 1)[-1]
    return f".{name.rpartition('.')[2]}" if "." in name else name[-4:]
