"""Whether a result can be written is known before the work."""

from pathlib import Path

from refusals import assert_refused

from diffood.errors import UsageError
from diffood.runtime.writable import require_writable


def test_places_that_can_be_written_pass_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    for path, folder in (
        (tmp_path / "new.csv", False),
        (tmp_path / "file", False),
        (tmp_path / "a" / "b" / "new.csv", False),
        (tmp_path / "a" / "b", True),
        (tmp_path / "folder", True),
        (Path("/dev/null"), False),
    ):
        require_writable(path, "--output", folder=folder)
    assert {entry.name for entry in tmp_path.iterdir()} == {"folder", "file"}
    assert not list((tmp_path / "folder").iterdir())


def test_places_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    cases = [
        ({"path": tmp_path / "folder"}, "--output .*folder is a folder; name a file"),
        ({"path": tmp_path / "file", "folder": True}, "--output .*file is not a folder"),
        ({"path": tmp_path / "file" / "b"}, "nothing can be in .*file .Not a directory.; choose another place"),
        ({"path": tmp_path / "b", "needed": 10**18}, "needs at least 1000000000000 MB, and .* MB free"),
    ]
    assert_refused(UsageError, cases, lambda options: require_writable(option="--output", **options))
