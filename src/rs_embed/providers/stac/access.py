"""How GDAL opens the files of a catalogue: openly, or with the keys of a bucket. `sign` handles signed links."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urlsplit

from rs_embed.errors import NotConfigured, SpecError
from rs_embed.providers.stac.links import in_a_bucket, web_address
from rs_embed.providers.stac.settings import aws_keys


@dataclass(frozen=True)
class Opened:
    """What GDAL needs to open a file: a name, and options that apply while it reads."""

    name: str
    """The name for GDAL: "/vsicurl/https://...", "/vsis3/bucket/key", "/vsigs/bucket/key"."""
    options: Mapping[str, str] = field(default_factory=dict, repr=False)
    """GDAL options while it reads this file. They may hold keys, so they are never shown."""


class Access(Protocol):
    """Opens the files of a catalogue. It is called from several threads, and must be picklable for use with Ray."""

    @property
    def renews(self) -> bool:
        """Whether a file that was refused may be readable after opening it again."""
        ...

    def open(self, href: str, service: str | None) -> Opened:
        """Prepare a file for reading; called just before it is read.

        Args:
            href: An absolute `https://`, `s3://` or `gs://` link. Files on this machine are opened without it.
            service: Endpoint of the service that hosts the bucket, if it is known not to be Amazon.

        Raises:
            SpecError: It cannot open such a link.
            NotConfigured: It lacks keys.
        """
        ...

    def renew(self, name: str) -> None:
        """Discard the token or keys that opened `name`: the service refused them."""
        ...


@dataclass(frozen=True)
class OpenAccess:
    """Access to public files: on the web, and in open buckets of Amazon and Google."""

    renews = False

    def open(self, href: str, service: str | None) -> Opened:
        """See `Access`."""
        bucket = in_a_bucket(href)
        if bucket is not None and service is not None:
            raise SpecError(
                f"Expected an Access for s3://{bucket[0]}, a bucket of {service}, got OpenAccess.",
                fix=f"use StacCatalog(..., access=S3Access({service!r})), with its keys in AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY",
            )
        return Opened(f"/vsicurl/{web_address(href)}")

    def renew(self, name: str) -> None:
        """Do nothing: there is nothing to renew."""


@dataclass(frozen=True)
class S3Access:
    """Access to S3-compatible buckets with keys; other files are read as with `OpenAccess`.

    Example:
        >>> S3Access("https://eodata.dataspace.copernicus.eu").endpoint
        'https://eodata.dataspace.copernicus.eu'
    """

    endpoint: str
    """Host or URL of the service; `https://` by default."""
    key_id: str | None = field(default=None, repr=False)
    secret: str | None = field(default=None, repr=False)
    """Key id and secret. If left out, they are read each time a file is opened, from `AWS_ACCESS_KEY_ID` and
    `AWS_SECRET_ACCESS_KEY`, else from the profile in `~/.aws/credentials`."""
    profile: str | None = None
    """Profile in `~/.aws/credentials`; `None` means `AWS_PROFILE`, else "default"."""
    virtual_hosting: bool = False
    """Whether the bucket is part of the host name; every service also accepts it in the path."""
    get_keys_at: str | None = None
    """Where to get keys, for the error message."""
    gdal: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Further GDAL options, such as `AWS_REGION` or `AWS_REQUEST_PAYER`."""
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
        """Do nothing: keys are read again in any case."""

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
