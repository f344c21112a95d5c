"""A folder that cannot be listed, also for who tests as root, whom a mode of 0 does not stop."""

import os

import pytest


def deny(monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
    """Have the operating system refuse to list folders whose path ends so."""
    scan = os.scandir

    def scan_or_refuse(path: str) -> object:
        if os.fspath(path).endswith(ending):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", scan_or_refuse)
