"""AnySat."""
