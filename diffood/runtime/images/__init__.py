"""Hostile image files to arrays."""
