"""Get a checkpoint from the Hugging Face cache, or download it from the hub.

The hub's client provides the cache and the transfer. It compares sizes but not hashes, does not retry a 503 on GET,
waits six minutes for a hub that hangs, sleeps as long as a Retry-After header says, and passes on the errors of its
HTTP library. This module therefore sends a HEAD request first, which fails fast and is retried, and hashes every file.

`huggingface_hub` is imported inside functions: its parts take 0.06 to 0.2 s to import, and a checkpoint on this machine
needs only its constants.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from logging import Logger
from pathlib import Path, PurePosixPath
from typing import Literal, TypeVar

from rs_embed.embedders.card import Weights
from rs_embed.embedders.weights.hashes import NOTES, SHA256, remembered_sha256
from rs_embed.errors import WeightsCorrupt, WeightsError, WeightsNotFound, WeightsUnreachable
from rs_embed.redact import cause_of, logger

log: Logger = logger(__name__)
T = TypeVar("T")
Kind = Literal["refused", "repository", "revision", "file", "not a hub", "disk", "network"]
ELSEWHERE = "download it on a machine that reaches the hub, then name the file by RS_EMBED_<MODEL>_CKPT or `ckpt=`"


@dataclass(frozen=True)
class Patience:
    """Timeouts and retries of requests to the hub."""

    waits_s: tuple[float, ...] = (0.5, 1.0, 2.5)
    """Pauses between attempts, seconds; there is one attempt more than pauses."""
    longest_s: float = 30.0
    """Longest wait on behalf of a Retry-After header, seconds."""
    timeout_s: float = 10.0
    """Time for the hub to answer a HEAD request, seconds."""
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True)
class HubFile:
    """A checkpoint in the cache, with its hash."""

    path: Path
    commit: str
    sha256: str
    notes: Path
    """Folder for hashes and converted weights next to the file. It is removed with the repository, and the hub's client
    ignores it."""


@dataclass(frozen=True)
class Hub:
    """One file of one repository: in the cache under `folder`, or on the hub at `endpoint`."""

    weights: Weights
    folder: Path
    endpoint: str
    retry: Patience

    def obtain(self, *, offline: bool) -> HubFile:
        """Return the file from the cache without using the network if it is intact, else download it.

        Raises:
            WeightsUnreachable: The hub refused, failed, or offline mode is on.
            WeightsNotFound: The hub has no such repository, revision or file.
            WeightsCorrupt: The cached file, or the file downloaded twice, has the wrong sha256.
        """
        cached = self._cached()
        if cached is not None:
            found = self._check(cached, announced=None)
            if found is not None:
                return found
            if offline:
                raise self._damaged(cached, f"{ELSEWHERE}, or delete this one and run once online")
            log.warning("The cached file %s is damaged; downloading it again", cached)
            _discard(cached)
        if offline:
            fix = f"unset RS_EMBED_OFFLINE and HF_HUB_OFFLINE once, or {ELSEWHERE}"
            headline = f"{self._name()} is not in the cache, and offline mode is on."
            raise WeightsUnreachable(headline, cache=self.folder, fix=fix)
        return self._download()

    def _cached(self) -> Path | None:
        """Return the file in the cache, found by the hub's documented layout without importing the client."""
        repository = self.folder / f"models--{self.weights.hub.replace('/', '--')}"
        revision = self.weights.revision or "main"
        named = repository / "refs" / revision  # a branch or tag; a commit names its folder
        commit = named.read_text("utf-8").strip() if named.is_file() else revision
        path = repository / "snapshots" / commit / self.weights.file
        return path if path.is_file() else None

    def _download(self) -> HubFile:
        for _ in range(2):  # a transfer that was damaged is repeated once
            announced = self._attempt(self._announced_sha256, after_timeout=True)
            self._compare_with_card(announced)
            path = self._attempt(self._transfer, after_timeout=False)
            found = self._check(path, announced)
            if found is not None:
                return found
            _discard(path)
        raise self._damaged(path, f"try again later, or {ELSEWHERE}")

    def _announced_sha256(self) -> str | None:
        """Return the hub's own sha256, which only LFS files have (as their ETag)."""
        from huggingface_hub import get_hf_file_metadata, hf_hub_url

        w = self.weights
        url = hf_hub_url(w.hub, w.file, revision=w.revision, endpoint=self.endpoint)
        found = get_hf_file_metadata(url, timeout=self.retry.timeout_s, endpoint=self.endpoint)
        return found.etag if found.etag and SHA256.fullmatch(found.etag) else None

    def _transfer(self) -> Path:
        from huggingface_hub import hf_hub_download

        w = self.weights
        path = hf_hub_download(
            w.hub,
            w.file,
            revision=w.revision,
            cache_dir=self.folder,
            endpoint=self.endpoint,
            etag_timeout=self.retry.timeout_s,
        )
        return Path(path)

    def _check(self, path: Path, announced: str | None) -> HubFile | None:
        """Return the file with its hash, or `None` if it is damaged."""
        snapshot = path.parents[len(PurePosixPath(self.weights.file).parts) - 1]
        stored_as = _blob_sha256(path) or announced
        wanted = self.weights.sha256 or stored_as
        notes = snapshot.parents[1] / NOTES
        digest = remembered_sha256(path, notes, wanted)
        if digest == stored_as:
            self._compare_with_card(digest)
        whole = wanted is not None or self.weights.size_bytes in (None, path.stat().st_size)
        return HubFile(path, snapshot.name, digest, notes) if wanted in (None, digest) and whole else None

    def _compare_with_card(self, announced: str | None) -> None:
        if announced and self.weights.sha256 and announced != self.weights.sha256:
            raise WeightsCorrupt(
                f"{self._name()} is not the file that the card describes.",
                wanted=f"sha256 {self.weights.sha256}",
                found=f"sha256 {announced} on the hub",
                fix="upgrade rs_embed, or set RS_EMBED_<MODEL>_CKPT or `ckpt=` to the file that you want",
            )

    def _attempt(self, action: Callable[[], T], *, after_timeout: bool) -> T:
        waits = iter(self.retry.waits_s)
        while True:
            try:
                return action()
            except _failures() as error:
                cause = _cause(error)
                if _kind(cause) == "disk":
                    raise
                wait_s = next(waits, None) if _passes(cause, after_timeout) else None
                if wait_s is None:
                    raise self._explained(cause) from cause_of(error)
                wait_s = max(wait_s, min(_answer(cause)[1], self.retry.longest_s))
                log.info("%s: %s; retrying in %s s", self._name(), _in_a_line(cause), wait_s)
                self.retry.sleep(wait_s)

    def _explained(self, error: BaseException) -> WeightsError:
        hub, message = self.weights.hub, _in_a_line(error)
        page = f"{self.endpoint}/{hub}"
        match _kind(error):
            case "refused":
                fix = f"accept the licence on {page} if it asks you to, then `hf auth login` or set HF_TOKEN"
                return WeightsUnreachable(f"The hub refuses access to {self._name()}.", hub=message, fix=fix)
            case "repository" | "revision" | "file" as what:
                shown = {"repository": hub, "revision": str(self.weights.revision), "file": self.weights.file}
                fix = f"check {page}, set HF_TOKEN if the repository is private, or {ELSEWHERE}"
                headline = f"The hub has no {what} {shown[what]!r}."
                return WeightsNotFound(headline, wanted=self._name(), hub=message, fix=fix)
        facts = {"hub": self.endpoint, "found": message, "cache": self.folder}
        fix = f"check the network, proxy and HF_ENDPOINT, or {ELSEWHERE}"
        return WeightsUnreachable(f"Cannot download {self._name()} from the hub.", fix=fix, **facts)

    def _damaged(self, path: Path, fix: str) -> WeightsCorrupt:
        wanted = self.weights.sha256 or "the hash that the hub announced"
        headline = f"{self._name()} is damaged: its sha256 or size is wrong."
        return WeightsCorrupt(headline, wanted=wanted, where=path, fix=fix)

    def _name(self) -> str:
        revision = f"@{self.weights.revision}" if self.weights.revision else ""
        return f"{self.weights.hub}{revision}:{self.weights.file}"


def obtain(
    weights: Weights, *, offline: bool, cache_dir: Path | None, endpoint: str | None, retry: Patience
) -> HubFile:
    """Call `Hub.obtain`, with the hub client's own settings for arguments that are `None`.

    Raises:
        WeightsError: As `Hub.obtain`, or the cache cannot be used.
    """
    from huggingface_hub import constants

    folder = Path(cache_dir or constants.HF_HUB_CACHE).expanduser()
    hub = Hub(weights, folder, endpoint or constants.ENDPOINT, retry)
    try:
        return hub.obtain(offline=offline or constants.HF_HUB_OFFLINE)
    except OSError as error:
        fix = "free some disk space, correct the permissions, or set another cache folder (HF_HOME)"
        raise WeightsError(f"Cannot use the cache {str(folder)!r}.", found=error, fix=fix) from error


def _blob_sha256(path: Path) -> str | None:
    """Return the sha256 by which the cache names an LFS blob, else `None`."""
    # Follow only one link: a blob may itself link into a store that uses other hashes as names.
    name = path.readlink().name if path.is_symlink() else ""
    return name if SHA256.fullmatch(name) else None


def _discard(path: Path) -> None:
    """Remove a cached file, including every link that leads to its content."""
    while path.is_symlink():
        link, path = path, path.parent / path.readlink()
        link.unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def _failures() -> tuple[type[Exception], ...]:
    """Return the exceptions that the client raises: its own, those of its HTTP library, and those of hf_xet."""
    from huggingface_hub.errors import HfHubHTTPError

    bases = [base for base in HfHubHTTPError.__mro__ if issubclass(base, Exception)]
    return (*bases[: bases.index(Exception)], OSError, RuntimeError)


def _cause(error: BaseException) -> BaseException:
    """Return the underlying error: the client wraps most failures of a HEAD request as "not in the cache"."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    return (error.__cause__ or error) if isinstance(error, LocalEntryNotFoundError) else error


def _kind(error: BaseException) -> Kind:
    from huggingface_hub import errors

    kinds: tuple[tuple[type[Exception], Kind], ...] = (
        (errors.GatedRepoError, "refused"),  # before its base class, RepositoryNotFoundError
        (errors.RepositoryNotFoundError, "repository"),
        (errors.RevisionNotFoundError, "revision"),
        (errors.EntryNotFoundError, "file"),
        (errors.FileMetadataError, "not a hub"),
    )
    for cls, kind in kinds:
        if isinstance(error, cls):
            return kind
    if _answer(error)[0] in (401, 403):
        return "refused"
    # The client's HTTP libraries wrap socket errors without their errno, so an errno means the disk.
    return "disk" if isinstance(error, OSError) and error.errno is not None else "network"


def _passes(error: BaseException, after_timeout: bool) -> bool:
    """Return whether another attempt may succeed."""
    status, _ = _answer(error)
    if status is not None:
        return status in (408, 429) or status >= 500
    # On GET the client has already waited six times. The client's HTTP libraries all have "Timeout" in these names.
    timeout = "Timeout" in type(error).__name__
    return _kind(error) == "network" and (after_timeout or not timeout)


def _answer(error: BaseException) -> tuple[int | None, float]:
    """Return the hub's HTTP status, if it answered, and the wait that it requests, in seconds."""
    from huggingface_hub.errors import HfHubHTTPError

    if not isinstance(error, HfHubHTTPError):
        return None, 0.0
    wait = error.response.headers.get("Retry-After", "")
    return error.response.status_code, float(wait) if wait.isdecimal() else 0.0


def _in_a_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
