"""Cards: one file a family, data only."""
