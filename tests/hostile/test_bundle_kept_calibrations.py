"""Attack: the folder of kept calibrations, or a file in it, is a link, a pipe, damaged or changed."""

import os
from pathlib import Path

import made_up
import pytest
from made_up import fingerprint_of

from diffood.errors import BundleError
from diffood.runtime.bundle.bundle import Bundle, open_bundle
from diffood.runtime.bundle.calibration import Calibration, list_kept, load_calibration, save_calibration

posix = pytest.mark.skipif(os.name != "posix", reason="links and FIFOs as POSIX has them")


def calibration_of(bundle: Bundle, threshold: float) -> Calibration:
    fingerprint = fingerprint_of(bundle.plan("plain"))
    return made_up.calibration_of([0.1, 0.2, 0.3], threshold, fingerprint=fingerprint)


@pytest.fixture
def kept(victim: Path) -> Path:
    """The one kept calibration of a bundle that was calibrated twice."""
    bundle = open_bundle(victim)
    for threshold in (0.1, 0.2):
        save_calibration(bundle, calibration_of(bundle, threshold))
    (path,) = (victim / "calibrations").iterdir()
    return path


def refusal(path: Path) -> str:
    bundle = open_bundle(path.parent.parent)
    with pytest.raises(BundleError, match="remove it") as caught:
        list_kept(bundle)
    assert load_calibration(bundle).threshold == 0.2  # what serves does not depend on it
    return str(caught.value)


def test_a_kept_calibration_that_was_changed_is_refused(kept: Path, subtests: pytest.Subtests) -> None:
    other = (kept.parent.parent / "calibration.json").read_bytes()
    for data, message in [(b"", "is invalid"), (b"\xff", "is invalid"), (other, "its name is not its hash")]:
        with subtests.test(data=data):
            kept.write_bytes(data)
            assert message in refusal(kept)


def test_a_kept_file_that_is_no_calibration_is_refused(kept: Path) -> None:
    (kept.parent / "44136fa355b3.json").write_bytes(b"{}")  # named by its hash
    assert "44136fa355b3.json is invalid" in refusal(kept)


@posix
def test_links_and_pipes_are_refused(kept: Path, tmp_path: Path) -> None:
    kept.rename(tmp_path / kept.name)
    kept.symlink_to(tmp_path / kept.name)
    assert "cannot be opened" in refusal(kept)
    kept.unlink()
    os.mkfifo(kept)
    assert "is not a regular file" in refusal(kept)


@posix
def test_a_folder_that_is_a_link_is_refused_and_nothing_is_written_through_it(kept: Path, tmp_path: Path) -> None:
    outside = kept.parent.rename(tmp_path / "outside")
    kept.parent.symlink_to(outside)
    assert "is a link or not a folder" in refusal(kept)
    bundle = open_bundle(kept.parent.parent)
    with pytest.raises(BundleError, match="is a link or not a folder"):
        save_calibration(bundle, calibration_of(bundle, 0.3))
    assert len(list(outside.iterdir())) == 1
    kept.parent.unlink()
    kept.parent.touch()
    assert "is a link or not a folder" in refusal(kept)


@posix
def test_a_calibration_that_is_a_link_is_replaced_and_not_kept(kept: Path, tmp_path: Path) -> None:
    bundle = open_bundle(kept.parent.parent)
    current = bundle.path / "calibration.json"
    current.rename(tmp_path / "outside.json")
    current.symlink_to(tmp_path / "outside.json")
    save_calibration(bundle, calibration_of(bundle, 0.3))
    assert not current.is_symlink()
    assert list(list_kept(bundle)) == [kept.name]
