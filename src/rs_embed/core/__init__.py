"""The basic types: places, times, bands, grids, chips, settings. No torch, and no imagery service."""
