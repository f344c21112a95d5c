"""Every way in which images come in: files, archives, tables, URLs, watched folders."""
