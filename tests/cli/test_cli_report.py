"""The verb report, and --report of evaluate and calibrate, on real images: what is written, escaped and refused."""

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from pictures import decode_uri
from PIL import Image
from sealed import edit_record, sealed

from diffood import zoo
from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.bundle.calibration import fingerprint_of, load_calibration
from diffood.runtime.bundle.tuning import MeasuredPlan, TuningMeasurement, keep_measured
from diffood.zoo.images import load_set, unpack_set

MACHINE = ("--batch", "8", "--threads", "1")
FAST = (*MACHINE, "--start-time", "120", "--stride", "120", "--repeats", "1", "--guidance", "0")
HOSTILE = "<script>alert('1')</script>\"&"
Run = Callable[..., Any]  # gives conftest.Done


def page_of(path: Path) -> ElementTree.Element:
    """The page as a tree; every picture in it decodes and nothing else is fetched or run."""
    text = path.read_text()
    assert not re.search(r"https?:|url\(", text)
    root = ElementTree.fromstring(text)
    uris = [uri for element in root.iter() for uri in (element.get("src"), element.get("srcset")) if uri]
    assert uris
    for uri in uris:
        decode_uri(uri)
    assert not list(root.iter("script"))
    return root


def words(root: ElementTree.Element) -> str:
    return " ".join("".join(root.itertext()).split())


def test_report_writes_the_same_page_as_evaluate(run: Run, calibrated: Path, folders: Path, tmp_path: Path) -> None:
    given = (calibrated, "--ind", folders / "ind", "--ood", f"digits={folders / 'digits'}", *MACHINE)
    first, second = tmp_path / "new" / "a.html", tmp_path / "b.html"
    done = run("report", *given, "--output", first)
    assert (done.code, done.err) == (0, "")
    assert "scored      10 of ind, 10 of digits" in done.out
    assert f"wrote       {first}" in done.out
    evaluated = run("evaluate", *given, "--report", second, "--json")
    assert (evaluated.code, evaluated.err) == (0, "")
    assert first.read_bytes() == second.read_bytes()
    text = words(page_of(first))
    alarms = evaluated.content["false_alarms"]
    assert f"{alarms['flagged']} of {alarms['count']} in-distribution test images were flagged" in text
    assert f"{evaluated.content['auroc']['digits']:.2%}" in text
    assert evaluated.content["guarantee"] in text
    assert run("report", *given, "--output", first).code == 0
    assert first.read_bytes() == second.read_bytes()


def test_report_needs_no_ood_set(run: Run, calibrated: Path, folders: Path, tmp_path: Path) -> None:
    output = tmp_path / "report.html"
    assert run("report", calibrated, "--ind", folders / "ind", "--output", output, *MACHINE).code == 0
    text = words(page_of(output))
    assert "of 10 in-distribution test images were flagged" in text
    assert "OOD set" not in text
    assert "ROC" not in text
    assert "Fewer false alarms" not in text


def test_calibrate_reports_on_what_it_fitted(
    run: Run, small_bundle_copy: Path, clothes_folder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "fit.html"
    words_given = ("calibrate", small_bundle_copy, "--images", clothes_folder, "--fpr", "0.1", *FAST)
    done = run(*words_given, "--report", output, "--json")
    assert (done.code, done.err) == (0, "")
    text = words(page_of(output))
    assert done.content["guarantee"] in text
    assert "The most suspicious calibration images" in text
    assert "were flagged" not in text
    stored = json.loads((small_bundle_copy / "calibration.json").read_text())
    assert run(*words_given, "--overwrite", "--json").code == 0  # the report changes nothing of what is fitted
    assert json.loads((small_bundle_copy / "calibration.json").read_text()) == stored


def test_hostile_names_are_text(run: Run, calibrated: Path, folders: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(calibrated, tmp_path / "a<b>'&"))
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["class_names"] = [HOSTILE + str(index) for index in range(10)]
    (bundle / "manifest.json").write_bytes(sealed(manifest))
    fingerprint = load_calibration(open_bundle(calibrated)).fingerprint  # a calibration holds for its names alone
    named = fingerprint_of(open_bundle(bundle), fingerprint.plan, fingerprint.precision, "onnxruntime-cpu")
    names = {"class_names_sha256": named.class_names_sha256}
    edit_record(bundle / "calibration.json", lambda fields: fields["fingerprint"].update(names))
    images = tmp_path / "images"
    images.mkdir()
    odd = "<img src=x onerror=alert(1)>\x1b[31m\u202e$\\frac{.png"
    shutil.copy(folders / "digits" / "0000.png", images / odd)
    (images / "<b>broken<b>.png").write_text("<i>not an image</i>")
    given = ("--ind", folders / "ind", "--ood", f"<u>$\\frac{{={images}", "--output", tmp_path / "report.html")
    done = run("report", bundle, *given, *MACHINE)
    assert done.code == 3, done
    root = page_of(tmp_path / "report.html")
    text = words(root)
    assert HOSTILE in text
    assert "<img src=x onerror=alert(1)>\\x1b[31m\\u202e$\\\\frac{.png" in text
    assert "<b>broken<b>.png" in text
    assert "<u>$\\frac{" in text
    assert not list(root.iter("b")) + list(root.iter("u")) + list(root.iter("i"))
    raw = (tmp_path / "report.html").read_text()
    assert "\x1b" not in raw
    assert "\u202e" not in raw


def test_without_jinja2_one_line_says_what_to_install(
    run: Run, folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)  # makes its import fail
    output, missing = tmp_path / "report.html", tmp_path / "missing"  # refused before the bundle is opened
    sets = ("--ind", folders / "ind", "--ood", f"digits={folders / 'digits'}")
    for given in (
        ("report", missing, *sets, "--output", output),
        ("evaluate", missing, *sets, "--report", output),
        ("calibrate", missing, "--images", folders / "ind", "--report", output),
    ):
        run(*given, *MACHINE).assert_one_line(1, "jinja2", "pip install 'diffood[report]'")


def test_a_folder_is_no_place_for_a_page(run: Run, calibrated: Path, folders: Path, tmp_path: Path) -> None:
    done = run("report", calibrated, "--ind", folders / "ind", "--output", tmp_path, *MACHINE)
    done.assert_one_line(2, str(tmp_path), "is a folder")


def test_an_uncalibrated_bundle_is_refused(run: Run, folders: Path, tmp_path: Path) -> None:
    done = run("report", zoo.BUNDLE, "--ind", folders / "ind", "--output", tmp_path / "r.html", *MACHINE)
    done.assert_one_line(1, "is not calibrated: run `diffood calibrate")
    assert not (tmp_path / "r.html").exists()


def test_plain_plans_are_reported_too(run: Run, small_bundle_copy: Path, clothes_folder: Path, tmp_path: Path) -> None:
    assert run("calibrate", small_bundle_copy, "--images", clothes_folder, "--plan", "plain", *FAST).code == 0
    unpack_set("digits", tmp_path / "digits", 3)
    output = tmp_path / "report.html"
    given = ("--ind", tmp_path / "digits", "--ood", f"same={tmp_path / 'digits'}", "--output", output)
    assert run("report", small_bundle_copy, *given, *MACHINE).code == 0
    text = words(page_of(output))
    assert "The score is a single measurement" in text
    assert "AUROC 50.00%" in text  # both sets hold the same images


def test_report_shows_the_accuracy_of_accepted_images_and_the_front_of_a_tuning(
    run: Run, calibrated: Path, folders: Path, tmp_path: Path
) -> None:
    bundle = open_bundle(Path(shutil.copytree(calibrated, tmp_path / "bundle")))
    fresh, images = load_set("fashion-test"), tmp_path / "ind"
    for index in range(10):
        folder = images / bundle.manifest.class_names[int(fresh.labels[index])]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(fresh.images[index]).save(folder / f"{index}.png")
    given = ("report", bundle.path, "--ind", images, "--ood", f"digits={folders / 'digits'}", *MACHINE)
    assert run(*given, "--output", tmp_path / "before.html").code == 0
    before = page_of(tmp_path / "before.html")
    assert "Accuracy of accepted images" in words(before)
    assert "Cost against detection" not in words(before)
    plans = tuple(
        MeasuredPlan(cost=cost, auroc=auroc, low=auroc - 0.01, high=1, front=cost < 4, chosen=cost == 2)
        for cost, auroc in ((1, 0.9), (2, 0.97), (4, 0.96))
    )
    keep_measured(bundle, TuningMeasurement(unit="UNet evaluations", limit=3, made=True, plans=plans))
    assert run(*given, "--output", tmp_path / "after.html").code == 0
    after = page_of(tmp_path / "after.html")
    assert "The 3 plans that diffood tune measured" in words(after)
    assert "OOD images made from in-distribution ones" in words(after)
    pictures = {image.get("alt") for image in after.iter("img")} - {image.get("alt") for image in before.iter("img")}
    assert pictures == {
        "Cost against mean AUROC of 3 plans. The one chosen costs 2 UNet evaluations per image and has 97.00%."
    }
