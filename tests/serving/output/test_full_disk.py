"""An output on a disk that fills up tears nothing, and a resume finishes it."""

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest
from written import MANY, NAMES, read, resume, run_python, without_journal, write

from diffood.errors import UsageError

# Writes MANY so many times to each output, going on after an error; a limit on the size of a file, other than 0, stands
# for a disk that fills up: a write takes a part, and the next one nothing.
LIMITED = """
import resource, sys
from pathlib import Path
from diffood.errors import DiffoodError
from written import MANY, finish, open_at
limit, times = int(sys.argv[1]), int(sys.argv[2])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
for path in sys.argv[3:]:
    try:
        with open_at(Path(path), "resume", part_rows=4) as output:
            for row in (MANY * times)[len(list(output.done())):]:
                output.write(row)
            finish(output)
    except DiffoodError as error:
        print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits on the size of a file")
def test_a_disk_that_fills_up_tears_nothing(tmp_path: Path) -> None:
    said = ""
    for limit in (1000, 1700, 3300, 4700):
        said += run_python(LIMITED, limit, 1, *(tmp_path / f"full-{name}" / name for name in NAMES))
        for name in NAMES:
            with contextlib.suppress(UsageError, FileNotFoundError):
                rows = read(tmp_path / f"full-{name}" / name)
                assert rows == MANY[: len(rows)], (name, limit)
    for name in NAMES:
        path = tmp_path / f"full-{name}" / name
        assert f"Cannot write {path} (File too large)" in said
        resume(path, MANY, part_rows=4)
        assert read(path) == MANY, name
        write(tmp_path / f"whole-{name}" / name, MANY, part_rows=4)
        assert without_journal(path.parent) == without_journal(tmp_path / f"whole-{name}"), name


def test_a_full_file_system_tears_nothing(tmp_path: Path) -> None:
    """One file system of 16 kilobytes per output, if users may make one; what a run left on it is then copied."""
    mounts = [f"mkdir full-{name} && mount -t tmpfs -o size=16k tmpfs full-{name} || exit 7" for name in NAMES]
    copies = [f"cp -r full-{name} left-{name}" for name in NAMES]
    paths = [f"{tmp_path}/full-{name}/{name}" for name in NAMES]
    script = "\n".join([*mounts, f'{sys.executable} -c "$1" 0 3 {" ".join(paths)} || exit 8', *copies])
    program = f"import sys; sys.path[:0] = {sys.path!r}\n{LIMITED}"
    command = ["unshare", "-rm", "sh", "-c", script, "sh", program]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    except FileNotFoundError:
        pytest.skip("no unshare")
    if done.returncode in (1, 7):
        pytest.skip(f"users may not mount a file system: {done.stderr}")
    assert done.returncode == 0, done.stderr
    for name in NAMES:
        assert f"Cannot write {tmp_path}/full-{name}/{name} (No space left on device)" in done.stdout
        path = tmp_path / f"left-{name}" / name
        resume(path, MANY * 3, part_rows=4)
        assert read(path) == MANY * 3, name
