"""One run on many machines, through Ray."""
