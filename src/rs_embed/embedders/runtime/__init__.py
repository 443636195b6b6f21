"""Devices, precision, and the cache of networks."""
