"""Nouns of the library: places, times, bands, grids, chips, and what every package needs. No torch, no service."""
