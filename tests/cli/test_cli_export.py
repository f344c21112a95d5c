"""diffood export on an existing bundle, and the words that do not fit together; exporting itself is tests/export."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.bundle.engines import list_engines
from diffood.zoo.images import unpack_set

Run = Callable[..., Any]  # gives conftest.Done

MODELS = ("--unet", "models/unet", "--classifier", "net.py:build")


MISUSES: list[tuple[tuple[str, ...], str]] = [
    ((), "--classifier and --output make a bundle, with --unet or without"),
    (MODELS, "--classifier and --output make a bundle, with --unet or without"),
    ((*MODELS, "--output", "out", "--precision", "fp8"), "'fp8' is not one of fp32, fp16, int8"),
    ((*MODELS, "--output", "out", "--precision", "int8"), "int8 needs the value ranges of real images"),
    ((*MODELS, "--output", "out", "--opset", "18"), "--opset 18 is not possible: choose 19 to 21"),
    ((*MODELS, "--output", "out", "--gpu", "sm86"), "add --engine tensorrt-rtx"),
    ((*MODELS, "--output", "out", "--engine-batch", "1,2"), "is not of the form MIN,USUAL,MAX"),
    ((*MODELS, "--output", "out", "--engine-batch", "8,2,16"), "must ascend"),
]
NOTHING_TO_ADD: list[tuple[tuple[str, ...], str]] = [
    (("--precision", "fp32"), "bundle has fp32): give --engine, --precision fp16, or"),
    (("--output", "out", "--engine", "tensorrt-rtx"), "leave --unet, --classifier and --output out"),
    (("--engine", "tensorrt-rtx", "--precision", "int8"), "int8 needs the value ranges of real images"),
]


def test_words_that_do_not_fit_are_explained(run: Run) -> None:
    for words, part in MISUSES:
        run("export", *words).assert_one_line(2, part)


def test_what_cannot_be_added_is_explained(run: Run, small_bundle_copy: Path) -> None:
    for words, part in NOTHING_TO_ADD:
        run("export", "--bundle", small_bundle_copy, *words).assert_one_line(2, part)


def test_an_export_that_would_fail_later_is_refused_first(run: Run, small_bundle_copy: Path, tmp_path: Path) -> None:
    """The models are empty files: had one been opened, it would have been refused as damaged."""
    unet, net, out = tmp_path / "unet.pt", tmp_path / "net.py", tmp_path / "out"
    for file in (unet, net):
        file.touch()
    unpack_set("fashion-validation", tmp_path / "few", 3)
    models, whole = ("--unet", unet), ("--unet", unet, "--classifier", f"{net}:build")
    before = (small_bundle_copy / "manifest.json").read_bytes()
    for code, words, said in (
        (2, (*whole, "--output", small_bundle_copy), "is already a bundle; choose another --output"),
        (2, (*whole, "--output", tmp_path / "few"), "exists and is not a bundle"),
        (2, (*whole, "--output", net), "exists and is not a bundle"),
        (2, (*whole, "--output", net / "out"), "nothing can be in"),
        (1, ("--unet", "nowhere", "--classifier", f"{net}:build", "--output", out), "--unet nowhere"),
        (1, (*models, "--classifier", "nowhere.py:build", "--output", out), "--classifier nowhere.py"),
        (1, (*models, "--classifier", "onnx:nowhere.onnx", "--output", out), "--classifier nowhere.onnx"),
        (1, (*whole, "--classifier-weights", "nowhere.pt", "--output", out), "--classifier-weights nowhere.pt"),
        (1, (*whole, "--scheduler", "nowhere", "--output", out), "--scheduler nowhere"),
        (2, (*whole, "--output", out, "--precision", "int8", "--images", tmp_path / "few"), "3 images are too few"),
        (2, (*whole, "--output", out, "--precision", "int8", "--images", "nowhere"), "No such file or folder: nowhere"),
    ):
        run("export", *words).assert_one_line(code, said)
    assert not out.exists()
    assert (small_bundle_copy / "manifest.json").read_bytes() == before


def test_a_missing_library_is_named_before_the_work(run: Run, tmp_path: Path) -> None:
    (tmp_path / "unet.pt").touch()
    words = ("export", "--unet", tmp_path / "unet.pt", "--output", tmp_path / "out", "--classifier")
    missing = [name for name in ("timm", "torchvision", "transformers") if find_spec(name) is None]
    for name in missing:
        done = run(*words, f"{name}:resnet18")
        done.assert_one_line(1, f"needs {name}, which is not installed: pip install 'diffood[classifiers]'")
    (tmp_path / "net.py").touch()
    if find_spec("tensorrt") is None:
        done = run(*words, f"{tmp_path / 'net.py'}:build", "--engine", "tensorrt")
        done.assert_one_line(1, "tensorrt", "not installed: pip install 'diffood[tensorrt]'")
    if find_spec("tensorrt_rtx") and find_spec("polygraphy"):
        done = run(*words, f"{tmp_path / 'net.py'}:build", "--engine", "tensorrt-rtx", "--gpu", "sm99")
        done.assert_one_line(2, "--gpu 'sm99' is unknown")
    engine = (*words, f"{tmp_path / 'net.py'}:build", "--engine", "tensorrt-rtx", "--gpu", "sm89")
    run(*engine, "--engine-plan", "slow").assert_one_line(
        2, "--engine-plan 'slow' is not a plan of a new bundle; it has: default, fast, plain, reference."
    )


def test_too_few_images_for_int8_leave_the_bundle_as_it_was(run: Run, small_bundle_copy: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    unpack_set("fashion-validation", tmp_path / "few", 3)
    before = (small_bundle_copy / "manifest.json").read_bytes()
    done = run("export", "--bundle", small_bundle_copy, "--precision", "int8", "--images", tmp_path / "few")
    done.assert_one_line(2, "3 images are too few")
    assert (small_bundle_copy / "manifest.json").read_bytes() == before


def test_engines_are_added_to_a_bundle(run: Run, small_bundle_copy: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    pytest.importorskip("polygraphy")
    words = ("export", "--bundle", small_bundle_copy, "--engine", "tensorrt-rtx", "--gpu", "sm86")
    run(*words, "--engine-plan", "slow").assert_one_line(2, "No plan 'slow' in this bundle; it has: default, fast")
    done = run(*words, "--engine-batch", "1,8,8", "--engine-plan", "fast")
    assert done.code == 0, done
    (engine,) = list_engines(open_bundle(small_bundle_copy))
    assert (engine.path.name, engine.record.plan_name) == ("tensorrt-rtx-sm86-fp32-fast", "fast")
    assert (engine.record.precision, len(engine.record.stages)) == ("fp32", 1)
    # there is nothing to verify yet
    assert f"next        diffood calibrate {small_bundle_copy} --images DIR" in done.out
