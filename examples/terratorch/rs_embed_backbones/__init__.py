"""What `custom_modules_path` points to: importing it registers THOR and AnySat in TerraTorch."""

import rs_embed.terratorch  # noqa: F401
