"""An output is complete or can be resumed: after any end each row so far exists once, with the bytes of one run."""

import contextlib
import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up import fingerprint_of
from written import MANY, ROWS, finish, open_at, read, write

from diffood.errors import DiffoodError, UsageError
from diffood.runtime.sessions.cores import usable_cores
from diffood.serving.output.layout import OutputLayout
from diffood.serving.rows.formats.registry import FORMATS
from diffood.serving.rows.row import Row

NAMES = [*(f"rows.{name}" for name in FORMATS), "rows"]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def without_journal(folder: Path) -> dict[str, bytes]:
    """Every file below a folder except journals, in which the checkpoints differ."""
    return {name: data for name, data in contents(folder).items() if "journal" not in name}


def resume(path: Path, rows: Sequence[Row], *, ends: bool = True, **changes: object) -> None:
    """Resume a run over these rows as `serve-batch` does: skip those that exist, write the others."""
    with open_at(path, "resume", **changes) as output:
        if output.finished:
            return
        done = list(output.done())
        for found, row in zip(done, rows, strict=False):
            assert found is None or replace(found, selected=None) == row
        for row in [row for found, row in zip(done, rows, strict=False) if found is None] + list(rows[len(done) :]):
            output.write(row)
        if ends:
            finish(output)


@given(
    name=st.sampled_from(NAMES),
    count=st.integers(0, 40),
    splits=st.lists(st.integers(0, 40), max_size=4),
    part_rows=st.integers(1, 45),
)
def test_any_splits_give_the_bytes_of_one_run(
    tmp_path_factory: pytest.TempPathFactory, name: str, count: int, splits: list[int], part_rows: int
) -> None:
    whole, parted = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("parted")
    rows = MANY[:count]
    write(whole / name, rows, part_rows=part_rows)
    for split in sorted(splits):
        resume(parted / name, rows[:split], ends=False, part_rows=part_rows)
    resume(parted / name, rows, part_rows=part_rows)
    assert without_journal(parted) == without_journal(whole)
    assert read(parted / name) == rows


@pytest.mark.parametrize(("name", "fdr"), [*((name, None) for name in NAMES), ("rows.csv", 0.3), ("rows", 0.3)])
def test_a_crash_between_any_two_changes_of_the_disk_loses_and_repeats_nothing(
    tmp_path: Path, name: str, fdr: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder as it is before each write, sync, renaming and removal is what a crash there leaves."""
    seen: list[Path] = []
    working = tmp_path / "working"
    working.mkdir()
    changes = {} if fdr is None else {"fdr": fdr}
    rows = [replace(row, p_value=(place + 1) ** 2 / 50) for place, row in enumerate(MANY[:5])]

    def snapshot() -> None:
        seen.append(Path(shutil.copytree(working, tmp_path / f"crash-{len(seen)}")))

    def before(act: Callable[..., object]) -> Callable[..., object]:
        def watched(*words: object, **named: object) -> object:
            snapshot()
            return act(*words, **named)

        return watched

    with monkeypatch.context() as patch:
        for name_of in ("write", "fsync", "ftruncate", "unlink", "rmdir"):
            patch.setattr(f"os.{name_of}", before(getattr(os, name_of)))
        for name_of in ("replace", "unlink"):
            patch.setattr(Path, name_of, before(getattr(Path, name_of)))
        write(working / name, rows, part_rows=2, **changes)
    snapshot()
    assert len(seen) > 20
    assert [row.selected for row in read(working / name)] == ([None] * 5 if fdr is None else [True] * 3 + [False] * 2)
    expected = without_journal(working)
    for crash in seen:
        resume(crash / name, rows, **changes)
        assert without_journal(crash) == expected, crash


def test_an_error_keeps_the_rows_for_a_resume(tmp_path: Path) -> None:
    for error in (RuntimeError, KeyboardInterrupt):
        for name in NAMES:
            path = tmp_path / error.__name__ / name
            with pytest.raises(error), open_at(path) as output:
                for row in MANY[:5]:
                    output.write(row)
                raise error
            assert output.resumable, path
            with pytest.raises(UsageError, match=r"has 5 rows of a run that did not finish: continue it with --resume"):
                write(path, MANY)
            resume(path, MANY)
            assert read(path) == MANY, path


def test_an_end_before_the_first_row_leaves_nothing(tmp_path: Path) -> None:
    for name in NAMES:
        with pytest.raises(RuntimeError), open_at(tmp_path / name):
            raise RuntimeError
        assert list(tmp_path.iterdir()) == [], name


def test_an_old_file_is_replaced_whole_or_left_alone(tmp_path: Path) -> None:
    for name in NAMES[:-1]:
        path = tmp_path / name
        path.write_bytes(b"old")
        with open_at(path) as output:
            for row in MANY[:5]:
                output.write(row)
                assert path.read_bytes() == b"old", name
            finish(output)
        assert read(path) == MANY[:5], name


def test_a_finished_folder_is_replaced_only_by_overwrite(tmp_path: Path) -> None:
    path = write(tmp_path / "rows", MANY)
    with pytest.raises(UsageError, match="has the 40 rows of a finished run: give another --output, or --overwrite"):
        write(path, MANY[:3])
    with open_at(path, "overwrite") as output:
        output.write(MANY[0])
        finish(output)
    assert read(path) == MANY[:1]
    assert len(list(path.glob("part-*"))) == 1
    with pytest.raises(RuntimeError), open_at(path, "overwrite"):
        raise RuntimeError
    assert not path.exists() or not any(path.iterdir())
    assert read(write(path, MANY[:3])) == MANY[:3]


def test_a_folder_of_parts_is_a_dataset_to_others_even_before_its_end(tmp_path: Path) -> None:
    resume(tmp_path / "rows", MANY[:9], ends=False)
    assert pq.read_table(tmp_path / "rows").num_rows == 8
    resume(tmp_path / "rows", MANY)
    assert pq.read_table(tmp_path / "rows")["id"].to_pylist() == [row.id for row in MANY]


def test_overwriting_drops_an_unfinished_run(tmp_path: Path) -> None:
    for name in NAMES:
        resume(tmp_path / name, MANY[:9], ends=False)
        with open_at(tmp_path / name, "overwrite") as output:
            assert list(output.done()) == [], name
            output.write(MANY[0])
            finish(output)
        assert read(tmp_path / name) == MANY[:1], name


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    for mode in ("new", "resume", "overwrite"):
        with pytest.raises(UsageError, match="contains other files; give --output a new"), open_at(tmp_path, mode):
            pytest.fail("entered")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_planted_links_are_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    (tmp_path / "folder").mkdir()
    for link in ("rows.jsonl.partial", ".rows.jsonl.summary.json.tmp", "rows.parquet.partial", "folder/_journal"):
        (tmp_path / link).symlink_to(victim)
    for name in ("rows.jsonl", "rows.parquet"):
        assert read(write(tmp_path / name, MANY)) == MANY
    with pytest.raises(DiffoodError, match="symbolic links"), open_at(tmp_path / "folder"):
        pytest.fail("entered")
    assert victim.read_bytes() == b"mine"


# Another process that tries to enter outputs which this one has open.
INTRUDER = """
import sys
from pathlib import Path
from diffood.errors import UsageError
from written import open_at
for path in sys.argv[1:]:
    for mode in ("new", "resume", "overwrite"):
        try:
            with open_at(Path(path), mode):
                print("entered")
        except UsageError as error:
            print(error)
"""


def run_python(program: str, *words: object) -> str:
    """Standard output of a program in a process of its own, which finds the modules of the tests."""
    command = [sys.executable, "-c", f"import sys; sys.path[:0] = {sys.path!r}\n{program}", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_two_runs_do_not_write_to_one_output(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in NAMES]
    with contextlib.ExitStack() as stack:
        outputs = [stack.enter_context(open_at(path)) for path in paths]
        for output in outputs:
            output.write(MANY[0])
        said = run_python(INTRUDER, *paths)
        for output in outputs:
            finish(output)
    assert said.count("Another run is writing there") == 3 * len(NAMES)
    assert "entered" not in said
    for path in paths:
        assert read(path) == MANY[:1], path


def test_rows_of_runs_with_other_settings_are_not_mixed(tmp_path: Path) -> None:
    cases: list[tuple[dict[str, object], str]] = [
        ({"batch": 4}, "batch: 8 there, 4 here"),
        ({"max_bytes": 1}, "max bytes: 1000 there, 1 here"),
        ({"image_column": "photo"}, "image column: image there, photo here"),
        ({"part_rows": 3}, "part rows: 2 there, 3 here"),
        ({"diffood": "1"}, "diffood: 0 there, 1 here"),
        ({"calibration_sha256": "f" * 64}, "calibration sha256: 0000"),
    ]
    for name in NAMES:
        resume(tmp_path / name, MANY[:9], ends=False)
    before = contents(tmp_path)
    for changes, message in cases:
        for name in NAMES:
            with pytest.raises(UsageError, match=message), open_at(tmp_path / name, "resume", **changes):
                pytest.fail("entered")
    assert contents(tmp_path) == before


def test_a_resume_needs_as_many_threads_as_before(tmp_path: Path) -> None:
    cases = [
        ("onnxruntime-cpu", 0, usable_cores(), True),  # older records hold 0 for all cores
        ("onnxruntime-cpu", 0, usable_cores() + 1, False),
        ("onnxruntime-cpu", 2, 3, False),
        ("tensorrt", 4, 0, True),  # older records hold what was asked for, which has no effect on a GPU
    ]
    for number, (backend, there, here, allowed) in enumerate(cases):
        path, fingerprint = tmp_path / f"{number}.jsonl", fingerprint_of(backend=backend)
        with open_at(path, threads=there, fingerprint=fingerprint) as output:
            output.write(ROWS[0])
        if allowed:
            resume(path, ROWS, threads=here, fingerprint=fingerprint)
            assert len(read(path)) == len(ROWS)
        else:
            with pytest.raises(UsageError, match=rf"threads: {there or usable_cores()} there, {here} here"):
                resume(path, ROWS, threads=here, fingerprint=fingerprint)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-40]),
    "altered": lambda path: path.write_bytes(path.read_bytes()[:50] + b"#" + path.read_bytes()[51:]),
    "removed": lambda path: path.unlink(),
    "a link": lambda path: (path.rename(path.with_name(".moved")), path.symlink_to(".moved")),
    "a FIFO": lambda path: (path.unlink(), os.mkfifo(path)),
}


def test_a_resume_makes_damaged_rows_again_and_no_others(tmp_path: Path) -> None:
    for name, ends in (*((name, False) for name in NAMES), ("rows", True)):
        folder = tmp_path / f"{ends}-{name}"
        resume(folder / name, MANY[:9], ends=ends)
        before = without_journal(folder)
        paths = [folder / file for file in sorted(before) if "summary" not in file]
        for path, damage in zip(itertools.cycle(paths), DAMAGES.values(), strict=False):
            damage(path)
            with open_at(folder / name, "resume") as output:
                missing = list(output.done()).count(None)
            assert (output.finished, output.resumed + output.damaged) == (False, 9), path
            assert output.damaged > 0
            assert missing == (output.damaged if path.name.startswith("part") else 0)
            resume(folder / name, MANY[:9], ends=ends)
            path.with_name(".moved").unlink(missing_ok=True)
            assert without_journal(folder) == before, path
        if not ends:
            resume(folder / name, MANY)
            assert read(folder / name) == MANY, name


def test_a_finished_file_that_was_changed_is_not_called_done(tmp_path: Path) -> None:
    for name, damage in itertools.product(NAMES[:-1], ("cut", "altered", "a link")):
        path = write(tmp_path / f"{damage}-{name}", MANY[:5])
        DAMAGES[damage](path)
        with pytest.raises(DiffoodError, match=r"changed by something else .* Make it again with --overwrite"):
            resume(path, MANY)


def test_a_damaged_journal_is_refused_and_a_torn_one_is_not(tmp_path: Path) -> None:
    path, journal = tmp_path / "rows.jsonl", tmp_path / "rows.jsonl.journal"
    resume(path, MANY[:9], ends=False)
    data = journal.read_bytes()
    lines = data.splitlines(keepends=True)
    for before, after in (
        (b'"rows":4', b'"rows":"x"'),
        (b'"part":0', b'"part":7'),
        (b'"part_rows":2', b'"part_rows":0'),
    ):
        assert before in data
        journal.write_bytes(data.replace(before, after, 1))
        with pytest.raises(DiffoodError, match=r"line \d+ is invalid: .*start over with --overwrite"):
            resume(path, MANY)
    for damaged in (b"{}\n" + data, data + lines[0]):
        journal.write_bytes(damaged)
        with pytest.raises(DiffoodError, match=r"line \d+ is invalid: .*start over with --overwrite"):
            resume(path, MANY)
    journal.write_bytes(data + lines[-1][:30])
    resume(path, MANY)
    assert read(path) == MANY


def test_an_unknown_ending_is_wrong_usage(tmp_path: Path) -> None:
    for name in ("rows.txt", "rows.csv.gz", ".csv", "rows.CSV"):
        with pytest.raises(UsageError, match=r"no known ending: use one of \.jsonl, \.csv, \.parquet"):
            OutputLayout.of(tmp_path / name)


def test_an_output_that_cannot_be_written_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in NAMES:
        with pytest.raises(DiffoodError, match="or choose another --output"), open_at(tmp_path / "file" / name):
            pytest.fail("entered")
    for name in NAMES[:-1]:
        (tmp_path / name).mkdir()
        with pytest.raises(DiffoodError, match="or choose another --output"), open_at(tmp_path / name):
            pytest.fail("entered")


def test_without_pyarrow_parquet_names_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for name in ("rows.parquet", "rows"):
        with pytest.raises(DiffoodError, match=r"pip install 'diffood\[parquet\]', or use \.jsonl"):
            OutputLayout.of(tmp_path / name)
    assert OutputLayout.of(tmp_path / "rows", "jsonl").format.name == "jsonl"


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


def test_every_kind_of_row_comes_back_after_a_resume(tmp_path: Path) -> None:
    finite = [row for row in ROWS if row.status != "invalid"]
    for name in NAMES:
        resume(tmp_path / name, finite[:3], ends=False)
        with open_at(tmp_path / name, "resume") as output:
            assert [row.id for row in output.done()] == [row.id for row in finite[:3]]
            output.write(finite[3])
            finish(output)
        assert [row.id for row in read(tmp_path / name)] == [row.id for row in finite]
