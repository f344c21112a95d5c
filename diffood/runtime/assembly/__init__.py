"""Assembles a bundle's parts into the graphs that run: a stage of a plan, and the whole detector. Runs nothing."""
