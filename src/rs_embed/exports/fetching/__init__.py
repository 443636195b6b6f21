"""Bringing the imagery of a long job."""
