"""Judges variants of a bundle by the verdicts they give."""
