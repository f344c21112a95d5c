"""Attack: what lies where feedback is kept is a link, a FIFO, too large, or the record of another calibration."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from made_up import calibration_of

from diffood.errors import BundleError, UsageError
from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.bundle.feedback import (
    MAX_RECORD_BYTES,
    begin_feedback,
    feedback_path,
    find_feedback,
)
from diffood.serving.feedback_record import changing_feedback, save_feedback

pytestmark = pytest.mark.skipif(os.name != "posix", reason="special files as POSIX has them")

CALIBRATION, OTHER = calibration_of([1.0, 2.0], 1.0), calibration_of([1.0, 3.0], 1.0)


def test_a_planted_record_is_refused_and_never_followed(
    small_bundle_copy: Path, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    bundle = open_bundle(small_bundle_copy)
    with changing_feedback(bundle, OTHER):
        theirs = save_feedback(bundle, OTHER, begin_feedback(bundle, OTHER))
    assert find_feedback(bundle, OTHER) is not None
    assert find_feedback(bundle, CALIBRATION) is None
    path = feedback_path(bundle, CALIBRATION)
    outside = Path(shutil.copy(theirs, tmp_path / "outside.json"))
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: path.symlink_to(outside), "cannot be opened"),
        (lambda: os.mkfifo(path), "is not a regular file"),
        (lambda: os.truncate(shutil.copy(theirs, path), MAX_RECORD_BYTES + 1), "where at most"),
        (lambda: shutil.copy(theirs, path), "is about another calibration"),
        (lambda: path.write_text("{}"), "it has no content_sha256"),
        (lambda: path.write_bytes(theirs.read_bytes().replace(b'"withdrawn": ""', b'"withdrawn": "x"')), "was changed"),
    ]
    for plant, message in cases:
        with subtests.test(message):
            plant()
            with pytest.raises(BundleError, match=message):
                find_feedback(bundle, CALIBRATION)
            path.unlink()
    with subtests.test("the folder is a link"):
        shutil.move(path.parent, tmp_path / "moved")
        path.parent.symlink_to(tmp_path / "moved")
        with pytest.raises(BundleError, match="is a link"):
            find_feedback(bundle, OTHER)
        with pytest.raises(BundleError, match="is a link"), changing_feedback(bundle, OTHER):
            pytest.fail("a link was followed")
    with subtests.test("a file where the folder belongs"):
        path.parent.unlink()
        path.parent.write_bytes(b"")
        with pytest.raises((BundleError, UsageError), match="not a folder"), changing_feedback(bundle, OTHER):
            pytest.fail("a file was taken for a folder")
