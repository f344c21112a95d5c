"""Who reads what a run prints may go away: the run ends as it would have ended, with the same exit code."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="pipes and /dev/full as Linux has them")


@contextmanager
def pipe_without_reader() -> Iterator[int]:
    """The end of a pipe to write to, which nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


CLOSED = 'exec "$@" <&- >&- 2>&-'
"""For a shell: start a program without any standard stream."""


def test_a_run_does_not_need_a_reader(
    calibrated: Path, folders: Path, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    written = set()
    with pipe_without_reader() as gone, Path("/dev/full").open("wb") as full:
        for name, (out, err, expected) in {
            "nothing is read": (gone, gone, 3),
            "errors find no space": (subprocess.PIPE, full, 3),
            "results find no space": (full, subprocess.PIPE, 1),
            "closed": (subprocess.PIPE, subprocess.PIPE, 3),
        }.items():
            with subtests.test(name):
                rows = tmp_path / name / "rows.jsonl"
                words = ["serve-batch", calibrated, folders / "broken", "--output", rows, "--metrics-port", 0]
                command = [sys.executable, "-m", "diffood", *map(str, words), "--threads", "1"]
                shell = ["sh", "-c", CLOSED, "sh"] if name == "closed" else []
                done = subprocess.run([*shell, *command], stdout=out, stderr=err, check=False, timeout=120)
                assert done.returncode == expected, done
                assert b"Traceback" not in (done.stderr or b"")
                assert b"Exception ignored" not in (done.stderr or b"")
                written.add(rows.read_bytes())
    assert len(written) == 1


def test_standard_input_that_is_closed_has_no_lines(calibrated: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "diffood", "serve-batch", calibrated, "-", "--output", tmp_path / "rows.jsonl"]
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" <&-', "sh", *map(str, command)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("0 files")
