"""INT8 graphs of a bundle."""
