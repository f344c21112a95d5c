"""Fuzz targets, one a file: `use` takes hostile bytes; `change`, where there is one, damages what they say."""
