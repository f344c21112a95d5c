"""Kills Python processes while they start, as the kernel does where memory is short."""

import os
from pathlib import Path

import pytest

PROGRAM = """
import os, signal
for number in range({times}):
    try:
        os.close(os.open(f"{folder}/{{number}}", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        continue
    os.kill(os.getpid(), signal.SIGKILL)
"""


def kill_at_start(folder: Path, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """Let the next `times` Python processes end before their first line; each leaves a file, named by its number."""
    (folder / "sitecustomize.py").write_text(PROGRAM.format(times=times, folder=folder))
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
