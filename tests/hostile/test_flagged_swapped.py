"""Attack: a flagged image becomes a link to a secret, or other bytes, while it is kept or afterwards."""

import hashlib
import os
from pathlib import Path

import pytest

from diffood.errors import DiffoodError
from diffood.runtime.images.decode import DEFAULT_LIMITS, ImageLimits
from diffood.runtime.inputs.items import LocalFile
from diffood.serving.watching.flagged import FlaggedFolder

SCORED = b"bytes that were scored"


class SwappedAfterReading(LocalFile):
    """A file that is swapped for a link as soon as it has been read."""

    def read(self, limits: ImageLimits) -> bytes:
        data = super().read(limits)
        self.path.unlink()
        self.path.symlink_to("secret")
        return data


def test_the_bytes_that_were_scored_are_kept_and_no_name_leads_to_another_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    folder, digest = FlaggedFolder(tmp_path / "kept", DEFAULT_LIMITS), hashlib.sha256(SCORED).hexdigest()
    for number, kind in enumerate((LocalFile, SwappedAfterReading)):
        path = tmp_path / f"{kind.__name__}.png"
        path.write_bytes(SCORED)
        planted = tmp_path / "kept" / f"{number:07d}-{path.name}"
        planted.symlink_to(tmp_path / "secret")
        folder.keep(number, kind(path.name, path), digest, None)
        path.unlink()
        path.write_bytes(b"overwritten later")
        assert not planted.is_symlink()
        assert planted.read_bytes() == SCORED
        assert planted.stat().st_nlink == 1
    assert (tmp_path / "secret").read_bytes() == b"secret"


def test_a_file_overwritten_in_place_does_not_change_what_was_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(SCORED)
    FlaggedFolder(tmp_path / "kept", DEFAULT_LIMITS).keep(
        0, LocalFile("a.png", path), hashlib.sha256(SCORED).hexdigest(), None
    )
    with path.open("r+b") as file:
        os.pwrite(file.fileno(), b"SECRET", 0)
    assert (tmp_path / "kept" / "0000000-a.png").read_bytes() == SCORED


def test_a_folder_that_is_swapped_for_a_link_gets_nothing(tmp_path: Path, subtests: pytest.Subtests) -> None:
    path, digest = tmp_path / "a.png", hashlib.sha256(SCORED).hexdigest()
    path.write_bytes(SCORED)
    (tmp_path / "elsewhere").mkdir()
    for kind in ("link", "folder", "nothing"):
        with subtests.test(kind):
            kept = tmp_path / kind
            folder = FlaggedFolder(kept, DEFAULT_LIMITS)
            folder.keep(0, LocalFile("a.png", path), digest, b"picture")
            kept.rename(tmp_path / f"{kind}-moved")
            if kind == "link":
                kept.symlink_to("elsewhere")
            elif kind == "folder":
                kept.mkdir()
            with pytest.raises(DiffoodError, match=r"was replaced by another folder|No such file"):
                folder.keep(1, LocalFile("a.png", path), digest, b"picture")
            assert len(list((tmp_path / f"{kind}-moved").iterdir())) == 2
            assert not kept.exists() or list(kept.iterdir()) == []


def test_a_file_that_changed_before_it_was_kept_is_counted(tmp_path: Path) -> None:
    folder, path = FlaggedFolder(tmp_path / "kept", DEFAULT_LIMITS), tmp_path / "a.png"
    path.write_bytes(b"other bytes")
    digest = hashlib.sha256(SCORED).hexdigest()
    folder.keep(0, LocalFile("a.png", path), digest, None)
    path.unlink()
    folder.keep(1, LocalFile("a.png", path), digest, None)
    assert folder.not_kept == 2
    assert list((tmp_path / "kept").iterdir()) == []
