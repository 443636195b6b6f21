"""The long job: a table of places to a folder of files."""
