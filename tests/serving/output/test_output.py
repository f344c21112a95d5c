"""An output is complete or can be resumed: after any end each row so far exists once, with the bytes of one run."""

import itertools
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from written import MANY, NAMES, ROWS, finish, open_at, read, resume, without_journal, write

from diffood.errors import DiffoodError, UsageError


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


def test_a_crash_between_any_two_changes_of_the_disk_loses_and_repeats_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, subtests: pytest.Subtests
) -> None:
    """The folder as it is before each write, sync, renaming and removal is what a crash there leaves."""
    for name, fdr in [*((name, None) for name in NAMES), ("rows.csv", 0.3), ("rows", 0.3)]:
        with subtests.test(name=name, fdr=fdr):
            seen: list[Path] = []
            working = tmp_path / f"{name}-{fdr}"
            working.mkdir()
            changes = {} if fdr is None else {"fdr": fdr}
            rows = [replace(row, p_value=(place + 1) ** 2 / 50) for place, row in enumerate(MANY[:5])]

            def snapshot() -> None:
                seen.append(Path(shutil.copytree(working, tmp_path / f"{name}-{fdr}-{len(seen)}")))

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
            assert [row.selected for row in read(working / name)] == (
                [None] * 5 if fdr is None else [True] * 3 + [False] * 2
            )
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


def test_every_kind_of_row_comes_back_after_a_resume(tmp_path: Path) -> None:
    finite = [row for row in ROWS if row.status != "invalid"]
    for name in NAMES:
        resume(tmp_path / name, finite[:3], ends=False)
        with open_at(tmp_path / name, "resume") as output:
            assert [row.id for row in output.done()] == [row.id for row in finite[:3]]
            output.write(finite[3])
            finish(output)
        assert [row.id for row in read(tmp_path / name)] == [row.id for row in finite]
