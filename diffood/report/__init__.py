"""Pages and charts about a calibrated bundle; the only room with matplotlib and jinja."""
