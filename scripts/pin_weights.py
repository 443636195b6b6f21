"""Ask the hub for the commit, size and sha256 of every published checkpoint, and write them down for the catalog.

Run it before a release, on a machine that reaches the hub; then read the diff of `src/rs_embed/data/pins.json`. What
the hub does not have, or does not show, is named, and keeps the pin that it had.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

from huggingface_hub import get_hf_file_metadata, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError

from rs_embed.embedders.card import Weights
from rs_embed.embedders.catalog import CARDS
from rs_embed.embedders.pins import FILE, Pin, name_of, read_pins

SHA256_DIGITS = 64
"""An etag of that length is the file's sha256; git's are shorter."""


def main(out: str = str(FILE)) -> int:
    """Write the pins; 1 where some file could not be asked for."""
    pins, missing = read_pins(), []
    for weights in {
        name_of(card.weights): card.weights for card in CARDS if isinstance(card.weights, Weights)
    }.values():
        try:
            found = get_hf_file_metadata(hf_hub_url(weights.hub, weights.file))
        except (HfHubHTTPError, OSError) as error:
            missing.append(f"{name_of(weights)}: {str(error).splitlines()[0]}")
            continue
        if found.commit_hash is None or found.size is None:
            missing.append(f"{name_of(weights)}: the hub told neither commit nor size")
            continue
        sha256 = found.etag if found.etag is not None and len(found.etag) == SHA256_DIGITS else None
        pins[name_of(weights)] = Pin(found.commit_hash, sha256, found.size)
    text = json.dumps({name: asdict(pin) for name, pin in sorted(pins.items())}, indent=1)
    Path(out).write_text(text + "\n", "utf-8")
    sys.stdout.write("\n".join([f"{len(pins)} pins in {out}", *(f"not pinned: {line}" for line in missing), ""]))
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
