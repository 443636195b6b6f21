"""Providers for the user's rasters: GeoTIFF, COG, VRT, Zarr, and folders of them."""
