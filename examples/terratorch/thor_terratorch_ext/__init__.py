"""The name of the THOR authors' extension, for their scripts and configs: it registers our THOR and AnySat."""

import rs_embed.terratorch  # noqa: F401
