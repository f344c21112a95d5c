"""Undoing what an attack did to a bundle, and opening it anew, so that a table of attacks needs one copy of it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from diffood.runtime.bundle.bundle import Bundle
from diffood.runtime.bundle.unlisted import UnlistedFiles


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


def reopened(bundle: Bundle) -> Bundle:
    """A bundle whose records will be read again, without hashing the files of its manifest again."""
    return replace(bundle, unlisted=UnlistedFiles(bundle.path))
