"""Units on a Ray cluster."""
