"""Attack: file names that are not UTF-8, hold newlines or a NUL, or are too long."""

import os
import sys
from pathlib import Path

import pytest

from diffood.errors import RejectedImage
from diffood.runtime.images.decode import ImageLimits, read_file


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a file name be any bytes")
def test_any_name_can_be_read(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for name in [b"\xff\xfe\x80.png", b"a\nb\x1b[31m.png", b" ", b"-rf", "ü🙂.png".encode()]:
        with subtests.test(name=name):
            path = tmp_path / os.fsdecode(name)
            path.write_bytes(b"bytes")
            assert read_file(path, ImageLimits()) == b"bytes"


def test_a_refusal_of_an_odd_name_can_be_printed(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for name in [os.fsdecode(b"\xff\xfe\x80.png"), "a\nb.png", "a\0b.png", "x" * 5000 + ".png", "\ud800.png"]:
        with subtests.test(name=name):
            with pytest.raises(RejectedImage) as refusal:
                read_file(tmp_path / name, ImageLimits())
            str(refusal.value).encode("ascii")
            assert str(refusal.value).isprintable()
