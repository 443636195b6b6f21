"""Exports: embed a table of places into a folder of files."""
