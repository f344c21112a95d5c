"""Output files that survive a kill."""
