"""How GDAL opens the files of a catalogue: as anybody may, or with keys of a bucket; links that are signed: `sign`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urlsplit

from rs_embed.errors import NotConfigured, SpecError
from rs_embed.providers.stac.links import in_a_bucket, web_address
from rs_embed.providers.stac.settings import aws_keys


@dataclass(frozen=True)
class Opened:
    """What GDAL needs to open a file just now."""

    name: str
    """For GDAL: "/vsicurl/https://...", "/vsis3/bucket/key", "/vsigs/bucket/key"."""
    options: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Its configuration while it reads this file; may hold keys, so it is never shown."""


class Access(Protocol):
    """Opens the files of a catalogue. Called from several threads; must be picklable to be used with Ray."""

    @property
    def renews(self) -> bool:
        """Whether what is refused may be readable once it is opened again."""
        ...

    def open(self, href: str, service: str | None) -> Opened:
        """How a file is opened, at the last moment before it is read.

        Args:
            href: `https://`, `s3://`, `gs://`, absolute. Files of this machine are opened without it.
            service: That keeps its bucket, if it is known not to be Amazon's.

        Raises:
            SpecError: It cannot open such a link.
            NotConfigured: It lacks keys.
        """
        ...

    def renew(self, name: str) -> None:
        """The service refused what was opened by that name: what opened it is not to be used again."""
        ...


@dataclass(frozen=True)
class OpenAccess:
    """What anybody can read: the web, and open buckets of Amazon and Google by their address there."""

    renews = False

    def open(self, href: str, service: str | None) -> Opened:
        """See `Access`."""
        bucket = in_a_bucket(href)
        if bucket is not None and service is not None:
            raise SpecError(
                f"Expected to know how to read s3://{bucket[0]}, got a bucket of {service}.",
                fix=f"StacCatalog(..., access=S3Access({service!r})), with its keys in AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY",
            )
        return Opened(f"/vsicurl/{web_address(href)}")

    def renew(self, name: str) -> None:
        """Nothing to renew."""


@dataclass(frozen=True)
class S3Access:
    """Buckets of a service that speaks S3, with keys; all else as anybody reads it.

    Example:
        >>> S3Access("https://eodata.dataspace.copernicus.eu").endpoint
        'https://eodata.dataspace.copernicus.eu'
    """

    endpoint: str
    """Of the service; `http://` is taken as it is said."""
    key_id: str | None = field(default=None, repr=False)
    secret: str | None = field(default=None, repr=False)
    """Left out, as is usual: `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, else the profile of
    `~/.aws/credentials`, each time a file is opened."""
    profile: str | None = None
    """`None`: `AWS_PROFILE`, else "default"."""
    virtual_hosting: bool = False
    """Whether the bucket is part of the host's name; in the path, every such service knows it."""
    get_keys_at: str | None = None
    """Where people get keys, for the message to those who have none."""
    gdal: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Further options of GDAL, such as `AWS_REGION` or `AWS_REQUEST_PAYER`."""
    renews = False

    def open(self, href: str, service: str | None) -> Opened:
        """See `Access`.

        Raises:
            NotConfigured: There are no keys.
        """
        bucket = in_a_bucket(href)
        if bucket is None:
            return OpenAccess().open(href, service)
        key_id, secret, session = self._keys(bucket[0])
        parts = urlsplit(self.endpoint if "://" in self.endpoint else f"https://{self.endpoint}")
        options = {
            "AWS_S3_ENDPOINT": parts.netloc,
            "AWS_HTTPS": "NO" if parts.scheme == "http" else "YES",
            "AWS_VIRTUAL_HOSTING": "TRUE" if self.virtual_hosting else "FALSE",
            "AWS_ACCESS_KEY_ID": key_id,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_SESSION_TOKEN": session,
        }
        return Opened(f"/vsis3/{bucket[0]}/{bucket[1]}", {**options, **self.gdal})

    def renew(self, name: str) -> None:
        """Keys are read again in any case."""

    def _keys(self, bucket: str) -> tuple[str, str, str]:
        if self.key_id and self.secret:
            return self.key_id, self.secret, ""
        found = aws_keys(self.profile)
        if found is None:
            where = f"get them at {self.get_keys_at}, then " if self.get_keys_at else ""
            raise NotConfigured(
                f"Expected keys to read s3://{bucket} of {self.endpoint}, got none.",
                fix=f"{where}set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or write them to ~/.aws/credentials",
            )
        return found
