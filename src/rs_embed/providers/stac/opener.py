"""Give GDAL the current names and options to open the files of a catalogue."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from rs_embed.errors import SpecError
from rs_embed.providers.stac.access import Access, Opened
from rs_embed.providers.stac.http import Credentials, Http
from rs_embed.providers.stac.links import is_local, path_of


@dataclass(frozen=True)
class Opener:
    """Opens files with the catalogue's `Access`, sends headers to their hosts only, and protects local files."""

    access: Access
    http: Http
    credentials: Credentials
    local: bool = False
    """Whether files on this machine may be opened; a catalogue on the web must not name them."""

    def opened(self, href: str, service: str | None) -> Opened:
        """Return how GDAL opens a file; see `Access.open`.

        Raises:
            SpecError: The link is of an unsupported kind, or leads to this machine from a catalogue on the web.
            NotConfigured: Keys are missing.
            Refusal: The service that signs or hosts the file refuses.
            Silence: The service does not answer.
        """
        if is_local(href) and self.local:
            return Opened(path_of(href))
        if urlsplit(href).scheme not in ("http", "https", "s3", "gs"):
            raise SpecError(
                "Expected a link to a file on the web or in a bucket, got another link.",
                href=href.partition("?")[0],
                fix="use https, s3 or gs; files on this machine can only be named by a catalogue on this machine",
            )
        opened = self.access.open(href, service)
        name, options = opened.name, dict(opened.options)
        if name.startswith("/vsicurl/"):
            url = name.removeprefix("/vsicurl/")
            headers = self.credentials.of(url)
            if headers:  # GDAL would send them to any host that it is redirected to
                url = self.http.landed(url)
                headers = self.credentials.of(url)
            if headers:
                options["GDAL_HTTP_HEADERS"] = ",".join(f'"{name}: {value}"' for name, value in headers.items())
            name = f"/vsicurl/{url}"
        elif not name.startswith("/vsi"):
            raise SpecError(
                "Expected a GDAL file name that begins with /vsi from an Access, got another name.",
                href=href.partition("?")[0],
                fix='return for example Opened("/vsicurl/https://...")',
            )
        return Opened(name, {"CPL_VSIL_CURL_ALLOWED_EXTENSIONS": _ending(name), **options})


def _ending(url: str) -> str:
    """The file extension that GDAL sees, without the query; the user's GDAL options may forbid some extensions."""
    name = url.partition("?")[0].rsplit("/", 1)[-1]
    return f".{name.rpartition('.')[2]}" if "." in name else name[-4:]
