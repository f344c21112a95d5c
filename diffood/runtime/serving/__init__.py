"""serve-batch: many files in, rows out; sources, rows, sinks and the pipeline between them."""
