"""Loads classifiers."""
