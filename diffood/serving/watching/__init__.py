"""What an operator sees of a run: log, metrics, flagged images, reject limit."""
