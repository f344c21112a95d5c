"""Detectors of the field, for comparison only: fitted on what a classifier says of in-distribution images."""
