"""Watches served scores for drift."""
