"""TerraMind."""
