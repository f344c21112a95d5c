"""Mistakes at the command line: one line that explains, the right exit code, no traceback and nothing left over."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diffood import zoo
from diffood.runtime.bundle import durable
from diffood.zoo.images import unpack_set

MACHINE = ("--batch", "8", "--threads", "1")
# One UNet evaluation an image: these tests look at the command line, not at detection.
FAST = (*MACHINE, "--plan", "plain", "--start-time", "120", "--stride", "120", "--repeats", "1", "--guidance", "0")

Run = Callable[..., Any]  # gives conftest.Done


@pytest.mark.parametrize(
    ("options", "needed"),
    [
        (("--fpr", "0.001"), "2995"),
        (("--fpr", "0.01"), "299"),
        (("--fpr", "0.05", "--confidence", "0.99"), "90"),
        (("--fpr", "0.01", "--method", "conformal"), "99"),
    ],
)
def test_too_few_images_are_refused_with_the_number_needed(
    run: Run, bundle_copy: Path, clothes_folder: Path, options: tuple[str, ...], needed: str
) -> None:
    done = run("calibrate", bundle_copy, "--images", clothes_folder, *options, *FAST)
    done.assert_one_line(1, "80 images", f"at least {needed} are needed")
    assert not (bundle_copy / "calibration.json").exists()


def test_too_few_usable_images_are_refused(run: Run, bundle_copy: Path, tmp_path: Path) -> None:
    unpack_set("fashion-validation", tmp_path / "images", 58)
    (tmp_path / "images" / "broken.png").touch()
    done = run("calibrate", bundle_copy, "--images", tmp_path / "images", *FAST)
    done.assert_one_line(1, "58 given, at least 59 needed")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--fpr", "0"), "--fpr is 0.0"),
        (("--fpr", "1"), "--fpr is 1.0"),
        (("--fpr", "-0.1"), "--fpr is -0.1"),
        (("--fpr", "nan"), "--fpr is nan"),
        (("--fpr", "5%"), "--fpr"),
        (("--confidence", "95"), "--confidence is 95.0"),
        (("--plan", "fastest"), "No plan 'fastest' in this bundle; it has: default, fast, plain, reference"),
        (("--start-time", "100000"), "100000"),
        (("--start-time", "0"), "0"),
        (("--start-time", "360", "--start-time", "120"), "start times must ascend"),
        (("--stride", "0"), "stride"),
        (("--repeats", "0"), "repeats"),
        (("--guidance", "-1"), "guidance"),
        (("--guidance", "nan"), "guidance"),
        (("--seed", "-1"), "seed"),
        (("--sampler", "euler"), "euler"),
        (("--method", "bayes"), "bayes"),
        (("--batch", "0"), "A batch of 0 rows"),
        (("--threads", "-1"), "-1 threads"),
        (("--colour", "red"), "--colour"),
        (("--images", "nowhere"), "No such file or folder: nowhere"),
    ],
)
def test_wrong_values_of_calibrate_are_wrong_usage(
    run: Run, bundle_copy: Path, clothes_folder: Path, options: tuple[str, ...], word: str
) -> None:
    run("calibrate", bundle_copy, "--images", clothes_folder, *options).assert_wrong_usage(word)
    assert not (bundle_copy / "calibration.json").exists()


@pytest.mark.parametrize("ood", ["digits", "digits=", "={}", "ind={}", "", "digits=nowhere"])
def test_a_bad_ood_set_is_wrong_usage(run: Run, calibrated: Path, folders: Path, ood: str) -> None:
    done = run("evaluate", calibrated, "--ind", folders / "ind", "--ood", ood.format(folders / "digits"), *MACHINE)
    done.assert_wrong_usage()


def test_one_ood_name_for_two_sets_is_wrong_usage(run: Run, calibrated: Path, folders: Path) -> None:
    twice = ("--ood", f"x={folders / 'digits'}", "--ood", f"x={folders / 'textures'}")
    run("evaluate", calibrated, "--ind", folders / "ind", *twice).assert_wrong_usage("Two OOD sets are named 'x'")


def test_an_ood_set_without_a_usable_image_is_wrong_usage(run: Run, calibrated: Path, folders: Path) -> None:
    only = ("--ood", f"x={folders / 'broken' / 'text.png'}")
    done = run("evaluate", calibrated, "--ind", folders / "ind", *only, *MACHINE)
    done.assert_wrong_usage("No usable image in the x set; 1 files were set aside")


@pytest.mark.parametrize(
    ("words", "word"),
    [
        (("nowhere", "--output", "rows.jsonl"), "No such file or folder: nowhere"),
        (("x" * 5000, "--output", "rows.jsonl"), "No such file or folder"),
        (("empty", "--output", "rows.jsonl"), "No files in empty"),
        (("@nowhere", "--output", "rows.jsonl"), "The list nowhere cannot be read"),
        (("*.png", "--output", "rows.jsonl"), "matches no file"),
        (("{ind}", "--output", "rows.txt"), "no known ending"),
        (("{ind}", "--output", "rows.jsonl", "--max-pixels", "0"), "--max-pixels"),
        (("{ind}", "--output", "rows.jsonl", "--batch", "5000"), "A batch of 5000 rows"),
        (("{ind}",), "--output"),
        (("--output", "rows.jsonl"), "INPUT"),
    ],
)
def test_wrong_values_of_serve_batch_are_wrong_usage(
    run: Run, calibrated: Path, folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...], word: str,
) -> None:  # fmt: skip
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    run("serve-batch", calibrated, *(part.format(ind=folders / "ind") for part in words)).assert_wrong_usage(word)
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_an_output_that_cannot_be_written_is_explained(
    run: Run, calibrated: Path, folders: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "rows.csv").mkdir()
    for output in (tmp_path / "file" / "rows.csv", tmp_path / "rows.csv"):
        done = run("serve-batch", calibrated, folders / "ind", "--output", output, *MACHINE)
        done.assert_one_line(1, f"Cannot write {output}", "choose another --output")
    ood = ("--ood", f"x={folders / 'digits'}")
    done = run("evaluate", calibrated, "--ind", folders / "ind", *ood, "--output", tmp_path / "file", *MACHINE)
    done.assert_one_line(1, str(tmp_path / "file"))


def test_a_bundle_that_is_not_calibrated_is_refused(run: Run, bundle_copy: Path, folders: Path, tmp_path: Path) -> None:
    serve = run("serve-batch", bundle_copy, folders / "ind", "--output", tmp_path / "rows.jsonl", *MACHINE)
    serve.assert_one_line(1, "is not calibrated: run `diffood calibrate")
    assert not (tmp_path / "rows.jsonl").exists()
    triton = run("export-triton", bundle_copy, "--output", tmp_path / "models")
    triton.assert_one_line(1, "is not calibrated: run `diffood calibrate")
    assert not (tmp_path / "models").exists()
    ood = ("--ood", f"x={folders / 'digits'}")
    run("evaluate", bundle_copy, "--ind", folders / "ind", *ood, *MACHINE).assert_one_line(1, "is not calibrated")


@pytest.mark.parametrize("name", ["manifest.json", "classify.onnx", "golden.npz", "noise_levels.npz"])
@pytest.mark.parametrize("damage", ["flipped", "cut", "missing"])
def test_a_damaged_bundle_is_refused(run: Run, bundle_copy: Path, name: str, damage: str) -> None:
    path = bundle_copy / name
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(data[:-10] if damage == "cut" else bytes([data[0] ^ 255]) + data[1:])
    run("inspect", bundle_copy).assert_one_line(1, name)


def test_a_folder_that_is_no_bundle_is_refused(run: Run, folders: Path, tmp_path: Path) -> None:
    run("inspect", tmp_path / "nowhere").assert_one_line(1, "is not a bundle: no such folder")
    run("inspect", folders).assert_one_line(1, "manifest.json")


def test_a_damaged_calibration_is_refused(
    run: Run, calibrated: Path, folders: Path, tmp_path: Path, bundle_copy: Path
) -> None:
    text = (calibrated / "calibration.json").read_text()
    for damaged in ("", "{}", text[:-20], text.replace('"n": 64', '"n": 65')):
        (bundle_copy / "calibration.json").write_text(damaged)
        done = run("serve-batch", bundle_copy, folders / "ind", "--output", tmp_path / "rows.jsonl", *MACHINE)
        done.assert_one_line(1, "calibration.json", "alibrate again")
        run("inspect", bundle_copy).assert_one_line(1, "calibration.json")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a full disk is tried on /dev/full")
def test_a_full_disk_is_explained(
    run: Run, bundle_copy: Path, clothes_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Path("/dev/full").open("wb", buffering=0) as full:
        monkeypatch.setattr(durable, "write_all", lambda _, data: full.write(data))
        done = run("calibrate", bundle_copy, "--images", clothes_folder, *FAST)
    done.assert_one_line(1, "No space left on device", "free some space")
    assert not list(bundle_copy.glob("*calibration.json*"))


@pytest.mark.parametrize("words", [(), ("sreve",), ("inspect",), ("inspect", "a", "b"), ("--verbose",)])
def test_a_command_that_does_not_parse_is_wrong_usage(run: Run, words: tuple[str, ...]) -> None:
    done = run(*words)
    assert done.code == 2
    assert "Traceback" not in done.err


def test_demo_refuses_to_replace_what_is_not_its_own(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "summary.json").touch()
    (tmp_path / "mine" / "thesis.tex").touch()
    for name in ("file", "mine"):
        run("demo", "--output", tmp_path / name).assert_one_line(2, "give --output a new one")
    assert (tmp_path / "mine" / "thesis.tex").exists()


def test_export_without_torch_names_the_extra(start: Run, tmp_path: Path) -> None:
    words = ("export", "--unet", zoo.UNET, "--classifier", "net.py:build", "--output", tmp_path / "bundle")
    done = start(*words, before="import sys; sys.modules['torch'] = None")
    done.assert_one_line(1, "`diffood export` needs torch, which is not installed: pip install 'diffood[export]'")
    done = start(*words, before="import sys; sys.modules['onnxscript'] = sys.modules['torch'] = None")
    done.assert_one_line(1, "pip install 'diffood[export]'")


def test_processes_exit_with_the_same_codes(start: Run, calibrated: Path, folders: Path, tmp_path: Path) -> None:
    serve = ("serve-batch", calibrated, folders / "broken", "--output", tmp_path / "rows.jsonl", *MACHINE)
    assert start(*serve).code == 3
    start("inspect", tmp_path / "nowhere").assert_one_line(1)
    start("serve-batch", calibrated, "nowhere", "--output", "rows.jsonl").assert_one_line(2)
    assert start("serve-batch").code == 2
