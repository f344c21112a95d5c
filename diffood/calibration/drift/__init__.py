"""Monitors served scores for drift."""
