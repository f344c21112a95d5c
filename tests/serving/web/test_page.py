"""The page's folder as it is written, and what is refused. In a browser: test_page_in_browser."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import PIL
import pytest
from outside_weights import move_outside
from web_pages import calibrate_cheaply

import diffood
from diffood.errors import BundleError, CalibrationError, DiffoodError, UsageError
from diffood.runtime.bundle.bundle import Bundle, open_bundle
from diffood.runtime.bundle.calibration import load_calibration
from diffood.runtime.decision import DecisionRule
from diffood.runtime.detector import Detector
from diffood.runtime.images.decode import DEFAULT_LIMITS, decode
from diffood.serving.web import site
from diffood.serving.web.runtime import FILES, PACKAGE, TESTED
from diffood.serving.web.site import write_page

PAGE = Path(site.__file__).parent / "page"
MOST_LINES, MOST_LINES_OF_FUNCTION = 400, 60


@pytest.fixture
def page(calibrated_small: Path, package: Path, tmp_path: Path) -> Path:
    write_page(calibrated_small, tmp_path / "page", package)
    return tmp_path / "page"


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def read_config(page: Path) -> dict[str, Any]:
    return dict(json.loads((page / "config.json").read_text()))


def test_the_folder_holds_the_page_its_detector_and_the_runtime(page: Path, package: Path) -> None:
    checks = {f"checks/{number}.{ending}" for number in range(3) for ending in ("png", "pixels")}
    runtime = {f"runtime/{name}" for name in FILES.values()}
    assert names(page) == names(PAGE) | checks | runtime | {"config.json", "detector.onnx"}
    for theirs, ours in FILES.items():
        assert (page / "runtime" / ours).read_bytes() == (package / "dist" / theirs).read_bytes()
    for name in names(PAGE):
        assert (page / name).read_bytes() == (PAGE / name).read_bytes()
    assert page.stat().st_mode & 0o005 == 0o005  # a server may run as another user


def test_the_configuration_says_what_the_page_needs(page: Path, calibrated_small: Path) -> None:
    config, calibration = read_config(page), load_calibration(open_bundle(calibrated_small))
    model = (page / "detector.onnx").read_bytes()
    assert {name: value for name, value in config.items() if name not in ("checks", "threshold")} == {
        "diffood": diffood.__version__,
        "onnxruntime_web": TESTED,
        "pillow": int(PIL.__version__.split(".")[0]),
        "bundle": "bundle",
        "precision": "fp32",
        "image": {"channels": 1, "height": 28, "width": 28},
        "denoises": True,
        "class_names": list(open_bundle(calibrated_small).manifest.class_names),
        "guarantee": calibration.guarantee,
        "detector": {"file": "detector.onnx", "size": len(model), "sha256": hashlib.sha256(model).hexdigest()},
        "weights": [],
    }
    assert f"{calibration.threshold:.4g}" in config["threshold"]


def test_check_images_come_with_pythons_pixels_and_answers(page: Path, calibrated_small: Path) -> None:
    config = read_config(page)
    with Detector.open(calibrated_small, batch=8, threads=1) as detector:
        shape, rule = detector.bundle.manifest.image, DecisionRule.of(detector.calibration())
        answers = [check["answer"] for check in config["checks"]]
        assert [answer is None for answer in answers] == [False, False, True]
        read = [decode((page / check["image"]).read_bytes(), shape, DEFAULT_LIMITS) for check in config["checks"]]
        for (pixels, _), check in zip(read, config["checks"], strict=True):
            assert (page / check["pixels"]).read_bytes() == pixels.tobytes()
        assert [note for _, note in read][:2] == ["", ""]
        assert all(what in read[2][1] for what in ("composited over black", "RGB to grey", "resized"))
        scores = detector.score_pixels(np.stack([pixels for pixels, _ in read[:2]]))
        decisions = rule.decide(scores.score, scores.predicted)
    session = onnxruntime.InferenceSession(page / "detector.onnx", providers=["CPUExecutionProvider"])
    (given,) = session.run(["score"], {"image": np.stack([pixels for pixels, _ in read[:2]])})
    assert [answer["score"] for answer in answers[:2]] == pytest.approx(scores.score.tolist(), rel=1e-9)
    assert given.tolist() == pytest.approx(scores.score.tolist(), rel=1e-4)
    assert [answer["is_ood"] for answer in answers[:2]] == decisions.is_ood.tolist()


def test_the_detector_gives_pythons_verdicts(
    page: Path, calibrated_small: Path, clothes: npt.NDArray[np.uint8], digits: npt.NDArray[np.uint8]
) -> None:
    images = np.concatenate([clothes[:10], digits[:10]])[:, None]
    session = onnxruntime.InferenceSession(page / "detector.onnx", providers=["CPUExecutionProvider"])
    p_values, is_ood = session.run(["p_value", "is_ood"], {"image": images})
    with Detector.open(calibrated_small, batch=8, threads=1) as detector:
        scores = detector.score_pixels(images)
        decisions = DecisionRule.of(detector.calibration()).decide(scores.score, scores.predicted)
    assert p_values.tolist() == pytest.approx(decisions.p_values.tolist(), abs=1e-4)
    assert is_ood.tolist() == decisions.is_ood.tolist()


def test_weights_in_a_file_of_their_own_go_along(
    small_bundle_copy: Path, clothes_folder: Path, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = move_outside(small_bundle_copy, "step_plain")
    bundle = calibrate_cheaply(small_bundle_copy, clothes_folder)
    write_page(bundle, tmp_path / "page", package)
    weights = (tmp_path / "page" / data).read_bytes()
    assert weights == (bundle / data).read_bytes()
    described = {"file": data, "size": len(weights), "sha256": hashlib.sha256(weights).hexdigest()}
    assert read_config(tmp_path / "page")["weights"] == [described]
    together = len(weights) + (bundle / "detector.onnx").stat().st_size
    monkeypatch.setattr(site, "MOST_DETECTOR_BYTES", together - 1)  # a file of 2 GiB would fill this machine
    with pytest.raises(BundleError, match=r"GB, and browsers load at most .* GB: choose another --precision"):
        write_page(bundle, tmp_path / "other", package)
    monkeypatch.setattr(site, "MOST_DETECTOR_BYTES", together)
    write_page(bundle, tmp_path / "other", package)


def broken_packages(package: Path) -> list[tuple[Path, str]]:
    """Folders that are no onnxruntime-web, and what is said of each."""
    other, unreadable, partial = (package.parent / name for name in ("other", "unreadable", "partial"))
    for folder, text in ((other, '{"name": "left-pad", "version": "1.0.0"}'), (unreadable, "[")):
        folder.mkdir()
        (folder / "package.json").write_text(text)
    partial.mkdir()
    (partial / "package.json").write_text((package / "package.json").read_text())
    return [
        (package.parent / "nowhere", f"There is no {PACKAGE} in .*nowhere"),
        (other, f"'left-pad', not {PACKAGE}"),
        (unreadable, "does not describe a package"),
        (partial, "has no dist/ort.wasm.bundle.min.mjs"),
    ]


def test_a_runtime_that_is_missing_is_refused_with_how_to_get_it(
    calibrated_small: Path, package: Path, tmp_path: Path
) -> None:
    for folder, said in broken_packages(package):
        with pytest.raises(UsageError, match=f"{said}.*npm install {PACKAGE}@{TESTED}"):
            write_page(calibrated_small, tmp_path / "page", folder)
    assert not [path for path in tmp_path.iterdir() if path.name.lstrip(".").startswith("page")]


def test_what_cannot_become_a_page_is_refused(
    calibrated_small: Path, small_bundle: Bundle, package: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note").touch()
    cases: list[tuple[Path, Path, type[DiffoodError], str]] = [
        (small_bundle.path, tmp_path / "page", CalibrationError, "is not calibrated: run `diffood calibrate"),
        (tmp_path / "nothing", tmp_path / "page", BundleError, "nothing"),
        (calibrated_small, tmp_path / "file", UsageError, "file is not a folder"),
        (calibrated_small, tmp_path / "full", UsageError, "full exists and is not an empty folder"),
    ]
    before = names(tmp_path)
    for bundle, output, kind, said in cases:
        with pytest.raises(kind, match=said):
            write_page(bundle, output, package)
    with pytest.raises(BundleError, match="no int8 graphs"):
        write_page(calibrated_small, tmp_path / "page", package, "int8")
    assert names(tmp_path) == before


def test_an_empty_folder_is_filled(calibrated_small: Path, package: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write_page(calibrated_small, tmp_path / "empty", package)
    assert (tmp_path / "empty" / "index.html").exists()


def test_the_page_asks_nobody_and_makes_no_html_of_text() -> None:
    rules = re.search(r'Content-Security-Policy" content="([^"]*)"', (PAGE / "index.html").read_text())
    assert rules is not None
    assert "default-src 'none'" in rules.group(1)
    for path in PAGE.rglob("*.*"):
        text = path.read_text().replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert "//www." not in text, path
        assert not re.search(r"https?:/|innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", text), path


def test_the_scripts_are_short() -> None:
    for path in (PAGE / "scripts").glob("*.js"):
        lines = path.read_text().splitlines()
        assert len(lines) <= MOST_LINES, path
        assert lines[0].startswith("// "), path
        starts = [number for number, line in enumerate(lines) if re.match(r"(export |async )*(function|class) ", line)]
        for start in starts:
            length = lines[start:].index("}") + 1
            assert length <= MOST_LINES_OF_FUNCTION, (path, lines[start])
