"""Trains a UNet for `diffood export` on a user's own images."""
