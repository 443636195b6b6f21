"""The name of the THOR authors' extension, for their scripts and configs: importing it registers our THOR and AnySat."""

import rs_embed.terratorch  # noqa: F401
