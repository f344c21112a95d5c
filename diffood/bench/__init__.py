"""Compares speeds side by side, on this machine."""
