"""A secret that must come out nowhere, and where to look for it."""

import traceback

CANARY = "s3cr3tCANARY123456"
LINK = f"https://store.blob.core.windows.net/x/B02.tif?st=2024&se=2025&sp=rl&sig={CANARY}%2Bab%3D"
QUOTED = f"Refused: Authorization: Bearer {CANARY} for {LINK}"
"""What a careless service answers."""


def told(error: BaseException) -> str:
    """Everything that a traceback of it shows, its causes included."""
    return "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))
