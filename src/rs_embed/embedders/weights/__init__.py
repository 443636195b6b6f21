"""Weights: found, fetched, checked and loaded strictly."""
