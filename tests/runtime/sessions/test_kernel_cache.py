"""Kernels are kept in the user's own folder, and are read from nowhere that somebody else could have written."""

import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from diffood.runtime.sessions import kernel_cache
from diffood.runtime.sessions.engines import EngineHost
from diffood.runtime.sessions.kernel_cache import KernelFile

HERE = EngineHost("tensorrt-rtx", "1.7.1", "8.9", "a GPU")
KERNELS = KernelFile(HERE, "0" * 64, 32)
POSIX = pytest.mark.skipif(os.name != "posix", reason="owners and modes as POSIX has them")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder of the user."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_what_is_written_is_read_again() -> None:
    assert KERNELS.read() is None
    KERNELS.write(b"old")
    KERNELS.write(b"new")
    assert KERNELS.read() == b"new"
    assert [path.name for path in KERNELS.path.parent.iterdir()] == [KERNELS.path.name]


def test_other_engines_batches_gpus_and_versions_have_their_own() -> None:
    others = [
        replace(KERNELS, engine_sha256="1" * 64),
        replace(KERNELS, batch=16),
        replace(KERNELS, machine=replace(HERE, gpu="another GPU")),
        replace(KERNELS, machine=replace(HERE, library_version="1.7.2")),
    ]
    assert len({file.path for file in (KERNELS, *others)}) == 5


def test_the_oldest_of_many_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_cache, "MOST_FILES", 3)
    files = [replace(KERNELS, batch=batch) for batch in range(5)]
    for age, file in enumerate(files):
        file.write(b"kernels")
        os.utime(file.path, (age, age))
    assert [file.read() is not None for file in files] == [False, False, True, True, True]


def test_more_than_the_limit_is_neither_written_nor_read(monkeypatch: pytest.MonkeyPatch) -> None:
    KERNELS.write(b"12345")
    monkeypatch.setattr(kernel_cache, "MOST_BYTES", 4)
    assert KERNELS.read() is None
    replace(KERNELS, batch=1).write(b"12345")
    assert not replace(KERNELS, batch=1).path.exists()


@POSIX
def test_a_folder_or_file_that_others_may_write_is_not_read() -> None:
    KERNELS.write(b"kernels")
    folder = KERNELS.path.parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for path, mode, restored in ((folder, 0o777, 0o700), (KERNELS.path, 0o666, 0o600), (KERNELS.path, 0o620, 0o600)):
        path.chmod(mode)
        assert KERNELS.read() is None
        path.chmod(restored)
        assert KERNELS.read() == b"kernels"


@POSIX
def test_links_and_pipes_are_not_read(tmp_path: Path) -> None:
    KERNELS.write(b"kernels")
    moved = KERNELS.path.rename(tmp_path / "kernels")
    KERNELS.path.symlink_to(moved)
    assert KERNELS.read() is None
    KERNELS.path.unlink()
    os.mkfifo(KERNELS.path, 0o600)
    assert KERNELS.read() is None
    folder = KERNELS.path.parent
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    assert KERNELS.read() is None


def test_a_cache_that_cannot_be_written_is_done_without(cache: Path) -> None:
    cache.write_text("a file where the folder should be")
    KERNELS.write(b"kernels")
    assert KERNELS.read() is None
