"""calibrate at the command line: plans before any image is there, thresholds by class, and suspicious images."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from halved_graphs import reseal

from diffood.cli import progress
from diffood.runtime.bundle.bundle import Bundle, open_bundle
from diffood.zoo.images import load_set, unpack_set

MACHINE = ("--batch", "8", "--threads", "1")
# One UNet evaluation an image: these tests look at the command line, not at detection.
FAST = (*MACHINE, "--plan", "plain", "--start-time", "120", "--stride", "120", "--repeats", "1", "--guidance", "0")
# Conformal takes the fewest images a class: nine at ten percent.
BY_CLASS = (*FAST, "--per-class", "--method", "conformal", "--fpr", "0.1")

Run = Callable[..., Any]  # gives conftest.Done


def test_a_plan_says_how_many_images_are_needed(run: Run, small_bundle: Bundle) -> None:
    for words, needed, fitted, total in (
        (("--fpr", "0.001"), 2995, 1000, 3995),
        (("--fpr", "0.001", "--plan", "plain"), 2995, 0, 2995),
        (("--fpr", "0.001", "--witnesses", "jump"), 2995, 0, 2995),
        (("--fpr", "0.05", "--confidence", "0.99", "--plan", "plain"), 90, 0, 90),
        (("--method", "conformal", "--plan", "plain"), 19, 0, 19),
        (("--per-class", "--plan", "plain"), 106, 0, 106),
    ):
        done = run("calibrate", small_bundle.path, "--plan-only", *words)
        assert (done.code, done.err) == (0, "")
        assert f"needed      {total} images" in done.out
        content = run("calibrate", small_bundle.path, "--plan-only", *words, "--json").content
        assert (content["needed"], content["fitted"], content["total"]) == (needed, fitted, total), words
        assert content["outlooks"][0]["n"] == total
        assert content["outlooks"][0]["bound"] is not None
        assert not (small_bundle.path / "calibration.json").exists()


def test_predicted_classes_are_counted_and_compared_with_the_names_of_folders(
    run: Run, small_bundle_copy: Path, clothes_folder: Path, tmp_path: Path
) -> None:
    words = ("calibrate", small_bundle_copy, *FAST, "--images")
    done = run(*words, clothes_folder)
    assert re.search(r"^predicted   \d+ of 10 classes: ", done.out, re.MULTILINE)
    assert "accuracy" not in done.out
    names = open_bundle(small_bundle_copy).manifest.class_names
    labels = load_set("fashion-validation").labels[:80]
    for file, label in zip(sorted(clothes_folder.iterdir()), labels, strict=True):
        for root, name in (("right", names[label]), ("turned", names[9 - label])):
            (tmp_path / root / name).mkdir(parents=True, exist_ok=True)
            shutil.copy(file, tmp_path / root / name / file.name)
    found = run(*words, tmp_path / "right", "--overwrite", "--json")
    predicted = found.content["predictions"]
    assert (sum(predicted["by_class"]), predicted["labelled"], found.err) == (80, 80, "")
    assert predicted["accuracy"] > 0.6
    turned = run(*words, tmp_path / "turned", "--overwrite")
    assert "accuracy  " in turned.out
    assert "of 80 images are predicted as the class their folder is named like" in turned.err


def test_a_classifier_fed_on_a_wrong_scale_gets_no_guarantee(
    run: Run, small_bundle_copy: Path, clothes_folder: Path
) -> None:
    """As --mean and --std of 0..255 would feed it: every image is nearly the same to it."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load(small_bundle_copy / "classify.onnx")
    for node in model.graph.node:
        node.input[:] = ["scaled" if name == "x" else name for name in node.input]
    model.graph.node.insert(0, onnx.helper.make_node("Mul", ["x", "thousandth"], ["scaled"]))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(1e-3, np.float32), "thousandth"))
    onnx.save(model, small_bundle_copy / "classify.onnx")
    reseal(small_bundle_copy, lambda manifest: None)
    for plan in (FAST, (*MACHINE, "--fpr", "0.1")):
        done = run("calibrate", small_bundle_copy, "--images", clothes_folder, *plan)
        done.assert_one_line(1, "nearly the same logits for all of the first 16 images", "--mean and --std")
    assert not (small_bundle_copy / "calibration.json").exists()


def test_the_engine_is_named_while_it_works(
    run: Run, small_bundle_copy: Path, clothes_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    done = run("calibrate", small_bundle_copy, "--images", clothes_folder, *FAST)
    assert done.err.startswith("calibrating fp32 on onnxruntime-cpu: 1 of 80, ")


def test_a_plan_answers_for_numbers_and_for_a_folder(run: Run, clothes_folder: Path, small_bundle: Bundle) -> None:
    words = ("calibrate", small_bundle.path, "--plan-only", "--plan", "plain", "--n", "58", "--n", "1000")
    content = run(*words, "--images", clothes_folder, "--json").content
    assert [(row["n"], row["allowed_above"]) for row in content["outlooks"]] == [(58, None), (1000, 38), (80, 0)]
    shown = run(*words).out
    assert [line.split() for line in shown.splitlines()[-2:]] == [
        ["58", "58", "too", "few"],
        ["1000", "1000", "38", f"{100 * content['outlooks'][1]['bound']:.4g}%"],
    ]


@pytest.fixture(scope="module")
def by_class(tmp_path_factory: pytest.TempPathFactory, run: Run, small_bundle: Bundle) -> tuple[Path, Any]:
    """A bundle with thresholds by class, from 90 clothes of which some classes have nine; what was said; read-only."""
    root = tmp_path_factory.mktemp("by_class")
    bundle = Path(shutil.copytree(small_bundle.path, root / "bundle"))
    unpack_set("fashion-validation", root / "images", 90)
    done = run("calibrate", bundle, "--images", root / "images", *BY_CLASS)
    assert (done.code, done.err) == (0, "")
    return bundle, done


def test_thresholds_by_class_are_printed_and_served(run: Run, by_class: tuple[Path, Any], tmp_path: Path) -> None:
    bundle, done = by_class
    names = json.loads((bundle / "manifest.json").read_text())["class_names"]
    stored = json.loads((bundle / "calibration.json").read_text())
    own = {entry["predicted"]: entry["threshold"] for entry in stored["per_class"]["thresholds"]}
    assert 0 < len(own) < len(names)
    assert done.out.count("class       ") == len(own)
    for k, name in enumerate(names):
        assert (f"class       {name}: {own[k]:.6f}" in done.out) if k in own else (f"{name} (" in stored["guarantee"])
    assert f"guarantee   {stored['guarantee']}" in done.out
    assert "of all together" in stored["guarantee"]

    unpack_set("fashion-test", tmp_path / "images" / "clothes", 40)
    unpack_set("digits", tmp_path / "images" / "digits", 20)
    output = tmp_path / "rows.jsonl"
    assert run("serve-batch", bundle, tmp_path / "images", "--output", output, *MACHINE).code == 0
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    for row in rows:
        assert row["threshold"] == own.get(row["predicted_class"], stored["threshold"])
        assert row["is_ood"] == (row["score"] > row["threshold"]) == (row["p_value"] <= 0.1)
    assert len({row["threshold"] for row in rows}) > 1

    watched = run("monitor", output, "--bundle", bundle, "--json")
    assert (watched.code in (0, 4), watched.content["rows"]) == (True, 60)
    sets = ("--ind", tmp_path / "images" / "clothes", "--ood", f"digits={tmp_path / 'images' / 'digits'}")
    measured = run("evaluate", bundle, *sets, "--output", tmp_path / "report", *MACHINE, "--json").content
    assert measured["false_alarms"]["flagged"] == sum(row["is_ood"] for row in rows if row["id"].startswith("clothes"))
    assert measured["sets"]["digits"]["detection_rate"] == pytest.approx(
        sum(row["is_ood"] for row in rows if row["id"].startswith("digits")) / 20
    )
    assert measured["class_thresholds"] == {str(k): value for k, value in own.items()}
    assert (tmp_path / "report" / "scores.png").read_bytes().startswith(b"\x89PNG")

    shown = run("inspect", bundle).out
    assert f"per class   {len(own)} of {len(names)} predicted classes have their own threshold" in shown
    assert run("inspect", bundle, "--json").content["calibration"]["per_class"].keys() == {
        "needed",
        "overall_bound",
        "thresholds",
    }


def test_rows_of_one_threshold_are_not_those_of_thresholds_by_class(
    run: Run, by_class: tuple[Path, Any], calibrated: Path, folders: Path, tmp_path: Path
) -> None:
    output = tmp_path / "rows.jsonl"
    run("serve-batch", calibrated, folders / "ind", "--output", output, *MACHINE)
    run("monitor", output, "--bundle", by_class[0]).assert_one_line(1, "Row 1 ", " for class ", "recalibration")


def test_an_intruder_among_the_calibration_images_is_named_first(
    run: Run, small_bundle_copy: Path, clothes_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(clothes_folder, tmp_path / "images")
    unpack_set("fashion-validation", tmp_path / "images" / "more", 40)
    unpack_set("textures", tmp_path / "textures", 3)
    shutil.copy(tmp_path / "textures" / "0002.png", tmp_path / "images" / "intruder.png")
    words = ("calibrate", small_bundle_copy, "--images", tmp_path / "images", *FAST, "--witnesses", "reconstruction")
    done = run(*words)
    assert done.code == 0
    assert "look at     'intruder.png' " in done.out
    assert "what if     1% of these images (1) were OOD: the threshold would lie at " in done.out
    assert "what if     5% of these images (6) were OOD: the threshold would lie at " in done.out
    content = run(*words, "--overwrite", "--json").content
    assert content["most_suspicious"][0]["id"] == "intruder.png"
    scores = [suspect["score"] for suspect in content["most_suspicious"]]
    assert scores == sorted(scores, reverse=True)
    stored = json.loads((small_bundle_copy / "calibration.json").read_text())["scores"]
    assert scores == stored[:-6:-1]
    assert [row["removed"] for row in content["contamination"]] == [1, 6]
    assert all(row["threshold"] <= stored[-1 - row["removed"]] for row in content["contamination"])
