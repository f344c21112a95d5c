"""Loads what people have into torch modules with known inputs and outputs."""
