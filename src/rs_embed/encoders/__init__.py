"""The networks in plain torch: they know tensors and tokens, not places, sensors or files."""
