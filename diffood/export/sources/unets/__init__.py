"""Loads denoisers: diffusers folders and checkpoints."""
