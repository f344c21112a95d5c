"""Chooses a plan by cost and detection."""
