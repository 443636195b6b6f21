"""Results: one embedding or several, with their metadata, files, pictures and similarity."""
