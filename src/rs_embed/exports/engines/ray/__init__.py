"""The Ray engine: units run on a Ray cluster."""
