"""Rows of verdicts and their file formats."""
