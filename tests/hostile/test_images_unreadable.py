"""Attack: an image file whose permissions forbid reading it."""

import os
from pathlib import Path

import pytest

from diffood.errors import RejectedImage
from diffood.runtime.images.decode import ImageLimits, read_file


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read any file, whatever its permissions")
def test_it_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(b"bytes")
    path.chmod(0)
    with pytest.raises(RejectedImage, match="Permission denied"):
        read_file(path, ImageLimits())
