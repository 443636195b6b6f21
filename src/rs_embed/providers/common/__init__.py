"""What several providers share: composites, limits, retries, units."""
