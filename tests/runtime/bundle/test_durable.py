import os
from pathlib import Path

import pytest

from diffood.runtime.bundle.durable import write_durably


def test_a_written_file_replaces_the_old_one_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    for data in (b"old", b"new, and longer"):
        write_durably(path, data)
        assert path.read_bytes() == data
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_planted_in_the_way_is_not_followed(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for planted in ["calibration.json", ".calibration.json.tmp"]:
        with subtests.test(planted=planted):
            victim, folder = tmp_path / "victim", tmp_path / planted.strip(".")
            victim.write_bytes(b"untouched")
            folder.mkdir()
            (folder / planted).symlink_to(victim)
            write_durably(folder / "calibration.json", b"new")
            assert victim.read_bytes() == b"untouched"
            assert (folder / "calibration.json").read_bytes() == b"new"
            assert not (folder / "calibration.json").is_symlink()


def test_a_disk_that_fills_up_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, subtests: pytest.Subtests
) -> None:
    for call in ["write", "fsync"]:
        with subtests.test(call=call):
            path = tmp_path / "calibration.json"
            write_durably(path, b"old")

            def full(*_: object) -> int:
                raise OSError(28, "No space left on device")

            monkeypatch.setattr(os, call, full)
            with pytest.raises(OSError, match="No space left"):
                write_durably(path, b"new")
            monkeypatch.undo()
            assert path.read_bytes() == b"old"
            assert list(tmp_path.iterdir()) == [path]
