"""The report as a browser shows it: headless Chromium, wide and narrow, light and dark."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

MACHINE = ("--batch", "8", "--threads", "1")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--enable-logging=stderr",
)  # fmt: skip
# The page allows no script, so a copy without that rule is asked. A word that does not fit would widen the page.
ASK = """<script>addEventListener("load", () => {
  const pictures = [...document.images].map(image => image.naturalWidth);
  document.title = JSON.stringify({pictures, over: document.documentElement.scrollWidth - innerWidth,
    dark: matchMedia("(prefers-color-scheme: dark)").matches,
    paper: getComputedStyle(document.body).backgroundColor, ink: getComputedStyle(document.body).color});
});</script></head>"""

Run = Callable[..., Any]  # gives conftest.Done


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, calibrated: Path, folders: Path, start: Callable[..., Any]) -> Path:
    """A report on ten clothes and two OOD sets, as the command line writes it; read-only."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    sets = [part for name in ("digits", "textures") for part in ("--ood", f"{name}={folders / name}")]
    done = start("report", calibrated, "--ind", folders / "ind", *sets, "--output", path, *MACHINE)
    assert (done.code, done.err) == (0, "")
    return path


def show(page: Path, profile: Path, *options: str) -> subprocess.CompletedProcess[str]:
    assert CHROMIUM is not None
    command = (CHROMIUM, *QUIET, f"--user-data-dir={profile}", *options, "--dump-dom", page.as_uri())
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)


def brightness(colour: str) -> float:
    return sum(map(float, re.findall(r"[\d.]+", colour)[:3])) / (3 * 255)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_browser_shows_every_picture_and_complains_of_nothing(page: Path, tmp_path: Path) -> None:
    for width in (500, 1200):  # Chromium opens no window narrower than 500
        for dark in (False, True):
            place = tmp_path / f"{width}-{dark}"
            place.mkdir()
            check_in_browser(page, place, width, dark=dark)


def check_in_browser(page: Path, place: Path, width: int, *, dark: bool) -> None:
    options = (f"--window-size={width},900", *(["--blink-settings=preferredColorScheme=0"] if dark else []))
    assert "CONSOLE" not in show(page, place / "first", *options).stderr  # the page itself, with its rules
    asked = place / "asked.html"
    text, rules = re.subn(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text())
    assert rules == 1
    asked.write_text(text.replace("</head>", ASK, 1))
    done = show(asked, place / "second", *options)
    assert "CONSOLE" not in done.stderr
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.S)
    assert title is not None
    found = json.loads(title.group(1))
    case = f"{width} pixels wide, dark: {dark}"
    assert len(found["pictures"]) > 40, case
    assert min(found["pictures"]) > 0, case
    assert found["over"] <= 0, f"{case}: {found['over']} pixels wider than the window"
    assert found["dark"] is dark, case
    assert (brightness(found["paper"]) < brightness(found["ink"])) is dark, case
