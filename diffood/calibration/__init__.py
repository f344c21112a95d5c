"""Calibration: from in-distribution scores to a threshold with a guarantee, and from test scores to measured rates."""
