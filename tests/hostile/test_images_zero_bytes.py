"""Attack: a file of zero bytes, and bytes that are all zero."""

from pathlib import Path

import pytest

from diffood.errors import RejectedImage
from diffood.runtime.images.decode import ImageLimits, ImageShape, decode, read_file


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    with pytest.raises(RejectedImage, match=r"empty \(0 bytes\)"):
        read_file(tmp_path / "empty.png", ImageLimits())


def test_empty_bytes_are_refused() -> None:
    with pytest.raises(RejectedImage, match=r"empty \(0 bytes\)"):
        decode(b"", ImageShape(1, 28, 28), ImageLimits())


def test_bytes_of_value_zero_are_refused() -> None:
    with pytest.raises(RejectedImage, match="not an image in a format"):
        decode(bytes(1000), ImageShape(1, 28, 28), ImageLimits())
