"""One file per format of rows, and the registry that lists them."""
