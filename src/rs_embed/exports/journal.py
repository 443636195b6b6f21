"""What a run folder knows of itself: the manifest, which says what it was made for."""

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
    """What a run folder was made for."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    format: str = FORMAT
    format_version: int = FORMAT_VERSION
    created: str
    """ISO 8601, UTC: when the export was first started."""
    request: dict[str, JsonValue]
    """All that decides the numbers and the files. A run is only ever continued with an equal one."""
    fingerprint: str
    """sha256 of `request`."""
    command: dict[str, JsonValue]
    """The arguments of the call, for `rs-embed retry`."""
    versions: dict[str, str]
    """Packages of the first start; those that change numbers stand in `request` as well."""
    digest: str = ""
    """sha256 of all other fields; empty in runs of older versions."""

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """The manifest of a folder; `None` where there is none.

        Raises:
            StorageError: It cannot be read, or is of another format.
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
        """Put it into the folder."""
        write_json(folder / MANIFEST, sealed(self.model_dump(mode="json")))

    def refuse_change(self, request: Mapping[str, JsonValue], folder: Path) -> None:
        """Raise `StorageError` naming what differs from what this folder was made for."""
        changed = differences(self.request, request)
        if changed:
            raise StorageError(
                f"Expected to go on with the export in {str(folder)!r}, got a request for something else.",
                changed="\n".join(changed),
                fix="give the old values, or export to a new folder: results of two requests are never mixed",
            )


def _damaged(path: Path, found: str) -> StorageError:
    return StorageError(
        f"Expected the manifest of an export at {str(path)!r}, got: {found}.",
        fix="put a copy of it back, or export to a new folder (if you changed it yourself: remove its `digest`)",
    )


def sealed(content: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """JSON that knows itself again: with a sha256 of all other fields as `digest`."""
    others = {name: value for name, value in content.items() if name != "digest"}
    return {**others, "digest": digest_of(others)}


def unsealed(text: str) -> dict[str, JsonValue]:
    """The content of a sealed text; of one without a digest, too, as older versions wrote none.

    Raises:
        ValueError: It is not what was written.
    """
    content = json.loads(text)
    if not isinstance(content, dict) or (content.get("digest") and sealed(content) != content):
        raise ValueError("other content than was written")
    return content


def differences(old: JsonValue | Mapping[str, JsonValue], new: JsonValue | Mapping[str, JsonValue]) -> list[str]:
    """What changed, one line each: `models.thor.knobs.patch_size: 16 -> 8`."""
    before, after = _flat(old), _flat(new)
    names = [*before, *(name for name in after if name not in before)]
    return [
        f"{name}: {before.get(name, 'not there')} -> {after.get(name, 'not there')}"
        for name in names
        if before.get(name) != after.get(name)
    ]


def _flat(value: JsonValue | Mapping[str, JsonValue], path: str = "") -> dict[str, str]:
    if isinstance(value, Mapping) and value:
        parts = (_flat(one, f"{path}.{name}" if path else name) for name, one in value.items())
        return {name: text for part in parts for name, text in part.items()}
    return {path: json.dumps(value, ensure_ascii=False)}


def digest_of(content: Mapping[str, JsonValue]) -> str:
    """sha256 of the canonical JSON, with all characters as they are."""
    return json_digest(content, ascii_only=False)
