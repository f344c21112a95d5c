"""Scripts that trained, built and compared the embedded models and images. Run from a clone; not in the wheel."""
