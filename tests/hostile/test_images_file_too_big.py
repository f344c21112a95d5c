"""Attack: a file with more bytes than the limit, also one that grows or shrinks while it is read."""

import os
from pathlib import Path

import pytest

from diffood.errors import RejectedImage
from diffood.runtime.images.decode import ImageLimits, read_file


def test_a_sparse_terabyte_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "x.png").open("wb") as stream:
        stream.truncate(2**40)
    with pytest.raises(RejectedImage, match=f"has {2**40} bytes and the limit is {64 * 2**20}"):
        read_file(tmp_path / "x.png", ImageLimits())


def test_the_limit_itself_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"12345")
    assert read_file(tmp_path / "x.png", ImageLimits(max_bytes=5)) == b"12345"
    with pytest.raises(RejectedImage, match="has 5 bytes and the limit is 4"):
        read_file(tmp_path / "x.png", ImageLimits(max_bytes=4))


def test_a_size_that_changes_after_it_was_checked_is_refused(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for new_size in [3, 10**6]:
        with subtests.test(new_size=new_size), pytest.MonkeyPatch.context() as patch:
            path = tmp_path / "x.png"
            path.write_bytes(b"12345")
            really_fstat = os.fstat

            def fstat_then_resize(descriptor: int) -> os.stat_result:
                status = really_fstat(descriptor)
                os.truncate(path, new_size)
                return status

            patch.setattr(os, "fstat", fstat_then_resize)
            with pytest.raises(RejectedImage, match="changed from 5 bytes"):
                read_file(path, ImageLimits())
