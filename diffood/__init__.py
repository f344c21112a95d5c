"""DiffOOD deployed: calibrated out-of-distribution verdicts from a diffusion model and a classifier."""

__version__ = "0.1.0"
