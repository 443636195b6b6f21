"""Galileo's encoder."""
