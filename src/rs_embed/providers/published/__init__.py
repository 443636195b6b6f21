"""Published maps of embeddings, read from public Zarr stores without an account."""
