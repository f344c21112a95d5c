"""What one pass over an image says against it: one module per family of witnesses, and their registry."""
