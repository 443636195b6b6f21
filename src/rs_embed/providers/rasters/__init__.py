"""The user's rasters: GeoTIFF, COG, VRT, Zarr, a folder of them."""
