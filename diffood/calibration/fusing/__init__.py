"""Fits how several witnesses are combined into one score."""
