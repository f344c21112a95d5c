"""Options that verbs share."""
