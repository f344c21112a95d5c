"""What `diffood export-web` prints, and its refusals. The page itself: tests/serving/web."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from web_pages import make_package

from diffood.runtime.bundle.bundle import Bundle
from diffood.serving.web.runtime import PACKAGE, TESTED

Run = Callable[..., Any]  # gives conftest.Done


def test_it_says_what_it_wrote_and_how_to_try_it(run: Run, calibrated: Path, tmp_path: Path) -> None:
    package, page = make_package(tmp_path / "package"), tmp_path / "page"
    done = run("export-web", calibrated, "--output", page, "--runtime", package)
    assert (done.code, done.err) == (0, "")
    assert "detector    fp32, " in done.out
    assert f"runtime     {PACKAGE} {TESTED}" in done.out
    assert f"python -m http.server --bind 127.0.0.1 --directory {page} 8000" in done.out
    assert (page / "index.html").exists()
    again = run("export-web", calibrated, "--output", page, "--runtime", package)
    again.assert_wrong_usage("exists and is not an empty folder", "--output")


def test_refusals_are_one_line(run: Run, calibrated: Path, small_bundle: Bundle, tmp_path: Path) -> None:
    package, page = make_package(tmp_path / "package"), tmp_path / "page"
    missing = run("export-web", calibrated, "--output", page, "--runtime", tmp_path / "none")
    missing.assert_wrong_usage(f"npm install {PACKAGE}@{TESTED}")
    uncalibrated = run("export-web", small_bundle.path, "--output", page, "--runtime", package)
    uncalibrated.assert_one_line(1, "is not calibrated: run `diffood calibrate")
    other = run("export-web", calibrated, "--output", page, "--runtime", package, "--precision", "int8")
    other.assert_one_line(1, "int8")
    assert not page.exists()
