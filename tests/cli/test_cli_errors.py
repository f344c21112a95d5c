"""Failures at the command line that are no wrong usage: exit code 1, one line that explains, and nothing left over."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diffood import zoo
from diffood.runtime.bundle import durable
from diffood.zoo.images import unpack_set

MACHINE = ("--batch", "8", "--threads", "1")
PLAIN = (*MACHINE, "--plan", "plain")

Run = Callable[..., Any]  # gives conftest.Done


def test_too_few_images_are_refused_with_the_number_needed(
    run: Run, small_bundle_copy: Path, clothes_folder: Path
) -> None:
    for options, needed in (
        (("--fpr", "0.001"), 2995),
        (("--fpr", "0.01"), 299),
        (("--fpr", "0.05", "--confidence", "0.99"), 90),
        (("--fpr", "0.01", "--method", "conformal"), 99),
    ):
        done = run("calibrate", small_bundle_copy, "--images", clothes_folder, *options, *PLAIN)
        done.assert_one_line(1, "80 images", f"at least {needed} are needed")
        assert not (small_bundle_copy / "calibration.json").exists()


def test_too_few_usable_images_are_refused(run: Run, small_bundle_copy: Path, tmp_path: Path) -> None:
    unpack_set("fashion-validation", tmp_path / "images", 58)
    (tmp_path / "images" / "broken.png").touch()
    done = run("calibrate", small_bundle_copy, "--images", tmp_path / "images", *PLAIN)
    done.assert_one_line(1, "58 given, at least 59 needed")


def test_an_output_that_cannot_be_written_is_refused_before_the_work(
    run: Run, calibrated: Path, folders: Path, tmp_path: Path
) -> None:
    """The images named do not exist, the models are damaged: had any work begun, it would have failed by them."""
    (tmp_path / "file").touch()
    (tmp_path / "rows.csv").mkdir()
    inside, nowhere = tmp_path / "file" / "rows", tmp_path / "nowhere"
    rows, sets = ("--output", tmp_path / "rows.jsonl"), ("--ind", nowhere)
    for words, said in (
        (("serve-batch", calibrated, nowhere, "--output", f"{inside}.csv"), "--output .* nothing can be in .*file"),
        (("serve-batch", calibrated, nowhere, "--output", tmp_path / "rows.csv"), "--output .* is a folder"),
        (
            ("serve-batch", calibrated, nowhere, *rows, "--save-flagged", tmp_path / "file"),
            "--save-flagged .* not a",
        ),
        (("serve-batch", calibrated, nowhere, *rows, "--log", inside), "--log .* nothing can be in .*file"),
        (("evaluate", calibrated, *sets, "--output", tmp_path / "file"), "The folder .*file is not a folder"),
        (("evaluate", calibrated, *sets, "--report", inside), "The report .* nothing can be in .*file"),
        (("tune", calibrated, *sets, "--budget", "2", "--output", f"{inside}.png"), "The picture .* nothing can be in"),
        (("calibrate", calibrated, "--images", nowhere, "--report", inside), "The report .* nothing can be in"),
        (("bench", calibrated, "--output", f"{inside}.png"), "The picture .* nothing can be in"),
    ):
        done = run(*words)
        done.assert_one_line(2)
        assert re.search(said, done.err), (words, done.err)


def test_a_bundle_that_is_not_calibrated_is_refused(
    run: Run, small_bundle_copy: Path, folders: Path, tmp_path: Path
) -> None:
    (tmp_path / "rows.jsonl").touch()
    images, output = folders / "ind", tmp_path / "new"
    for words in (
        ("serve-batch", small_bundle_copy, images, "--output", tmp_path / "new.jsonl", *MACHINE),
        ("export-triton", small_bundle_copy, "--output", output),
        ("export-web", small_bundle_copy, "--output", output),
        ("evaluate", small_bundle_copy, "--ind", images, "--ood", f"x={folders / 'digits'}", *MACHINE),
        ("report", small_bundle_copy, "--ind", images, "--output", output, *MACHINE),
        ("monitor", tmp_path / "rows.jsonl", "--bundle", small_bundle_copy),
    ):
        run(*words).assert_one_line(1, "is not calibrated: run `diffood calibrate")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "rows.jsonl"]


def test_a_damaged_bundle_is_refused(run: Run, small_bundle_copy: Path, subtests: pytest.Subtests) -> None:
    for name in ["manifest.json", "classify.onnx", "golden.npz", "noise_levels.npz"]:
        with subtests.test(name=name):
            path = small_bundle_copy / name
            data = path.read_bytes()
            for damaged in (bytes([data[0] ^ 255]) + data[1:], data[:-10]):
                path.write_bytes(damaged)
                run("inspect", small_bundle_copy).assert_one_line(1, name)
            path.unlink()
            run("inspect", small_bundle_copy).assert_one_line(1, name)
            path.write_bytes(data)


def test_a_folder_that_is_no_bundle_is_refused(run: Run, folders: Path, tmp_path: Path) -> None:
    run("inspect", tmp_path / "nowhere").assert_one_line(1, "is not a bundle: no such folder")
    run("inspect", folders).assert_one_line(1, "manifest.json")


def test_a_damaged_calibration_is_refused(
    run: Run, calibrated: Path, folders: Path, tmp_path: Path, small_bundle_copy: Path
) -> None:
    text = (calibrated / "calibration.json").read_text()
    for damaged in ("", "{}", text[:-20], text.replace('"n": 64', '"n": 65')):
        (small_bundle_copy / "calibration.json").write_text(damaged)
        done = run("serve-batch", small_bundle_copy, folders / "ind", "--output", tmp_path / "rows.jsonl", *MACHINE)
        done.assert_one_line(1, "calibration.json", "alibrate again")
        run("inspect", small_bundle_copy).assert_one_line(1, "calibration.json")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a full disk is tried on /dev/full")
def test_a_full_disk_is_explained(
    run: Run, small_bundle_copy: Path, clothes_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(_: int, data: bytes) -> None:
        with Path("/dev/full").open("wb", buffering=0) as full:
            full.write(data)

    monkeypatch.setattr(durable, "write_all", write)
    done = run("calibrate", small_bundle_copy, "--images", clothes_folder, *PLAIN)
    done.assert_one_line(1, "No space left on device", "free some space")
    assert not list(small_bundle_copy.glob("*calibration.json*"))


def test_export_without_torch_names_the_extra(start: Run, tmp_path: Path) -> None:
    words = ("export", "--unet", zoo.UNET, "--classifier", "net.py:build", "--output", tmp_path / "bundle")
    done = start(*words, before="import sys; sys.modules['onnxscript'] = sys.modules['torch'] = None")
    done.assert_one_line(1, "`diffood export` needs torch, which is not installed: pip install 'diffood[export]'")


def test_processes_exit_with_the_same_codes(start: Run, calibrated: Path, folders: Path, tmp_path: Path) -> None:
    serve = ("serve-batch", calibrated, folders / "broken", "--output", tmp_path / "rows.jsonl", *MACHINE)
    assert start(*serve).code == 3
    start("inspect", tmp_path / "nowhere").assert_one_line(1)
    start("serve-batch", calibrated, "nowhere", "--output", "rows.jsonl").assert_one_line(2)
    nothing = start()
    assert (nothing.code, nothing.out) == (2, "")
    assert "Usage: diffood" in nothing.err
