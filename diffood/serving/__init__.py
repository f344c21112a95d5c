"""serve-batch: one row per file, none lost and none twice."""
