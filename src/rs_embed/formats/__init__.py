"""Embeddings on disk: tables (GeoParquet, CSV), grids (COG, Zarr, netCDF, npz) and STAC beside them."""
