"""Undoing what an attack did to a bundle, so that a table of attacks needs one copy of it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def undone(folder: Path) -> Iterator[None]:
    """Give a folder back, afterwards, the files that it has now."""
    kept = folder.with_name(f"{folder.name}.kept")
    shutil.copytree(folder, kept, symlinks=True)
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        kept.rename(folder)
