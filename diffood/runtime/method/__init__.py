"""The arithmetic of DiffOOD: numpy only, no I/O."""
