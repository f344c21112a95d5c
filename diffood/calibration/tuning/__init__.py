"""Measures plans on images and chooses one by cost and detection."""
