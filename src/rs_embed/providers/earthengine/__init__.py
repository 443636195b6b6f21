"""Google Earth Engine."""
