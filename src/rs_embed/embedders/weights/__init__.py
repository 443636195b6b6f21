"""Weights: find, download, verify and load checkpoints strictly."""
