"""Fits how several witnesses become one score."""
