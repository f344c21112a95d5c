"""Judges variants of a bundle by their verdicts."""
