"""Write the names that the Tab key offers, from the catalogue, to `src/rs_embed/data/completion.json`."""

import json
from pathlib import Path

from rs_embed.cli.completion import FILE, collect_names

if __name__ == "__main__":
    path = Path(__file__).parents[1] / "src/rs_embed/data" / FILE
    path.write_text(json.dumps(collect_names(), indent=1) + "\n", encoding="utf-8")
    print(f"wrote {path}")
