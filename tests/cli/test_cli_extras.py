"""Without the extras everything else runs, and what needs one says so before the work begins."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]  # gives conftest.Done
MACHINE = ("--batch", 8, "--threads", 1)
WITHOUT = "import sys; sys.modules.update(dict.fromkeys(('scipy', 'matplotlib', 'pyarrow', 'jinja2', 'fsspec')))"


@pytest.fixture(autouse=True)
def _plain_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("matplotlib", "pyarrow", "jinja2"):
        monkeypatch.setitem(sys.modules, name, None)  # makes its import fail


def test_serving_needs_no_extra_and_no_scipy(start: Run, calibrated: Path, folders: Path, tmp_path: Path) -> None:
    done = start("serve-batch", calibrated, folders / "ind", "--output", tmp_path / "rows.csv", before=WITHOUT)
    assert (done.code, done.err) == (0, "")
    assert len((tmp_path / "rows.csv").read_text().splitlines()) == 11


def test_pictures_name_their_extra_before_anything_is_opened(run: Run, tmp_path: Path) -> None:
    missing, picture = tmp_path / "missing", ("--output", tmp_path / "picture.png")
    for words in (
        ("tune", missing, "--ind", missing, "--budget", 2),
        ("bench", missing),
        ("monitor", missing, "--bundle", missing),
    ):
        run(*words, *picture).assert_one_line(1, "picture.png needs matplotlib", "pip install 'diffood[pictures]'")


def test_signatures_name_their_extra(
    run: Run, calibrated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)
    for words in (("sign", calibrated, "--key", tmp_path / "key.pem"), ("inspect", calibrated, "--trust", "key.pub")):
        run(*words).assert_one_line(1, "Signatures need cryptography", "pip install 'diffood[trust]'")
    assert run("inspect", calibrated).code == 0  # nothing else does


def test_parquet_names_its_extra_before_an_image_is_scored(run: Run, calibrated: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.parquet"
    table.write_bytes(b"PAR1")
    rows = ("--output", tmp_path / "rows.csv")
    for words in (
        ("serve-batch", calibrated, calibrated, "--output", tmp_path / "rows.parquet"),
        ("serve-batch", calibrated, calibrated, "--output", tmp_path / "rows"),
        ("serve-batch", calibrated, table, *rows),
        ("serve-batch", calibrated, tmp_path / "*.parquet", *rows),
        ("calibrate", calibrated, "--images", table),
        ("evaluate", calibrated, "--ind", table, "--ood", f"digits={table}"),
        ("monitor", table, "--bundle", calibrated),
    ):
        run(*words).assert_one_line(1, "Parquet", "pyarrow", "pip install 'diffood[parquet]'")
    assert [path.name for path in tmp_path.iterdir()] == ["table.parquet"]


def test_a_table_in_a_list_is_set_aside_and_the_rest_is_scored(
    run: Run, calibrated: Path, folders: Path, tmp_path: Path
) -> None:
    first, *others = sorted((folders / "ind").iterdir())
    (tmp_path / "list.txt").write_text("\n".join(map(str, [first, "table.parquet", *others])))
    rows = tmp_path / "rows.jsonl"
    done = run("serve-batch", calibrated, f"@{tmp_path / 'list.txt'}", "--output", rows, *MACHINE)
    assert done.code == 3
    found = {row["id"]: row for row in map(json.loads, rows.read_text().splitlines())}
    assert len(found) == 11
    assert "pip install 'diffood[parquet]'" in found["table.parquet"]["error"]


def test_an_evaluation_says_at_once_that_it_has_no_pictures(
    run: Run, calibrated: Path, folders: Path, tmp_path: Path
) -> None:
    sets = ("--ind", folders / "ind", "--ood", f"digits={folders / 'digits'}")
    done = run("evaluate", calibrated, *sets, "--output", tmp_path / "out", *MACHINE)
    assert done.code == 0
    assert done.err.startswith(f"warning     no pictures in {tmp_path / 'out'}, since matplotlib is not installed: pip")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["evaluation.json"]
