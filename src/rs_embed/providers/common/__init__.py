"""What providers share: composites, limits, retries, units."""
