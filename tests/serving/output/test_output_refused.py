"""Outputs that are not entered: another run's, those of other settings, with other files, damaged or not writable."""

import contextlib
import sys
from pathlib import Path

import pytest
from made_up import fingerprint_of
from written import MANY, NAMES, ROWS, contents, finish, open_at, read, resume, run_python, write

from diffood.errors import DiffoodError, UsageError
from diffood.runtime.sessions.cores import usable_cores
from diffood.serving.output.layout import OutputLayout


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
