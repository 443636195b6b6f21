"""Preparation of chips for a network: windows, normalisation, derived bands and location inputs."""
