"""Pictures, one file for each: as PNG files, and as data URIs for light and dark pages."""
