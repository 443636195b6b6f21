"""The manifest of a run folder: what the run was made for."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, JsonValue

from rs_embed.core.atomic import read_text, write_json
from rs_embed.core.hashing import json_digest
from rs_embed.errors import StorageError

MANIFEST = "run.json"
PLACES = "places.npz"
FORMAT = "rs_embed export"
FORMAT_VERSION = 1


class Manifest(BaseModel):
    """The manifest of a run folder."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    format: str = FORMAT
    format_version: int = FORMAT_VERSION
    created: str
    """ISO 8601, UTC: when the export was started first."""
    request: dict[str, JsonValue]
    """Everything that determines the numbers and files. A run is resumed only by an equal request."""
    fingerprint: str
    """sha256 of `request`."""
    command: dict[str, JsonValue]
    """The arguments of the call, for `rs-embed retry`."""
    versions: dict[str, str]
    """Package versions at the first start; those that can change numbers are in `request` as well."""
    digest: str = ""
    """sha256 of all other fields; empty in runs of older versions."""

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Read the manifest of a folder; `None` if there is none.

        Raises:
            StorageError: It cannot be read, or has another format version.
        """
        path = folder / MANIFEST
        try:
            found = cls.model_validate(unsealed(read_text(path)))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            raise _damaged(path, str(error).splitlines()[0]) from error
        if (found.format, found.format_version) != (FORMAT, FORMAT_VERSION):
            raise StorageError(
                f"Expected an export of format version {FORMAT_VERSION}, got version {found.format_version}.",
                fix="use the version of rs_embed that wrote it, or export to a new folder",
            )
        return found

    def write(self, folder: Path) -> None:
        """Write the manifest into a folder."""
        write_json(folder / MANIFEST, sealed(self.model_dump(mode="json")))

    def refuse_change(self, request: Mapping[str, JsonValue], folder: Path) -> None:
        """Raise `StorageError` if `request` differs from the manifest's; the error lists the differences."""
        changed = differences(self.request, request)
        if changed:
            raise StorageError(
                f"Expected the request that the export in {str(folder)!r} was made for, got a different one.",
                changed="\n".join(changed),
                fix="use the old values, or export to a new folder: results of two requests are never mixed",
            )


def _damaged(path: Path, found: str) -> StorageError:
    return StorageError(
        f"Expected the manifest of an export at {str(path)!r}, got: {found}.",
        fix="restore a copy of it, or export to a new folder (if you edited it yourself, remove its `digest`)",
    )


def sealed(content: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Add a `digest`, the sha256 of all other fields, to a JSON object."""
    others = {name: value for name, value in content.items() if name != "digest"}
    return {**others, "digest": digest_of(others)}


def unsealed(text: str) -> dict[str, JsonValue]:
    """Return the content of a sealed text; a text of an older version, which has no digest, is accepted.

    Raises:
        ValueError: The content does not match its digest.
    """
    content = json.loads(text)
    if not isinstance(content, dict) or (content.get("digest") and sealed(content) != content):
        raise ValueError("its content does not match its digest")
    return content


def differences(old: JsonValue | Mapping[str, JsonValue], new: JsonValue | Mapping[str, JsonValue]) -> list[str]:
    """List what changed, one line each: `models.thor.knobs.patch_size: 16 -> 8`."""
    before, after = _flat(old), _flat(new)
    names = [*before, *(name for name in after if name not in before)]
    return [
        f"{name}: {before.get(name, 'missing')} -> {after.get(name, 'missing')}"
        for name in names
        if before.get(name) != after.get(name)
    ]


def _flat(value: JsonValue | Mapping[str, JsonValue], path: str = "") -> dict[str, str]:
    if isinstance(value, Mapping) and value:
        parts = (_flat(one, f"{path}.{name}" if path else name) for name, one in value.items())
        return {name: text for part in parts for name, text in part.items()}
    return {path: json.dumps(value, ensure_ascii=False)}


def digest_of(content: Mapping[str, JsonValue]) -> str:
    """Return the sha256 of the canonical JSON, with non-ASCII characters unescaped."""
    return json_digest(content, ascii_only=False)
