"""Model cards and the adapters that put an encoder to use."""
