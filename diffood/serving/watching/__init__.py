"""What an operator sees of a run: event log, metrics, flagged images, reject limit."""
