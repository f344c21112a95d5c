"""The verb monitor on real images: calm clothes, then digits; what it prints, draws, refuses and exits with."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diffood.zoo.images import unpack_set

MACHINE = ("--batch", "8", "--threads", "1")
# One UNet evaluation an image: these tests look at the command line, not at detection.
FAST = (*MACHINE, "--plan", "plain", "--start-time", "120", "--stride", "120", "--repeats", "1", "--guidance", "0")

Run = Callable[..., Any]  # gives conftest.Done


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, calibrated: Path, run: Run) -> Path:
    """A folder of rows: calm of 120 clothes, mixed of the same and then 60 digits; as .jsonl, mixed as .csv too."""
    root = tmp_path_factory.mktemp("served")
    unpack_set("fashion-test", root / "images" / "clothes", 120)
    unpack_set("digits", root / "images" / "digits", 60)
    for name, inputs in {
        "calm.jsonl": [root / "images" / "clothes"],
        "mixed.jsonl": [root / "images"],
        "mixed.csv": [root / "images"],
    }.items():
        done = run("serve-batch", calibrated, *inputs, "--output", root / name, *MACHINE)
        assert done.code == 0, done
    return root


def test_clothes_alone_raise_no_alarm(run: Run, calibrated: Path, served: Path) -> None:
    done = run("monitor", served / "calm.jsonl", "--bundle", calibrated)
    assert (done.code, done.err) == (0, "")
    assert "rows        120: 120 scored" in done.out
    assert "not fresh" not in done.out
    assert "no alarm" in done.out
    content = run("monitor", served / "calm.jsonl", "--bundle", calibrated, "--json").content
    assert content["alarm"] is content["began"] is None


def test_rows_of_calibration_images_are_told(run: Run, calibrated: Path, tmp_path: Path) -> None:
    unpack_set("fashion-validation", tmp_path / "images", 20)  # of the 96 it was calibrated on
    rows = tmp_path / "rows.jsonl"
    assert run("serve-batch", calibrated, tmp_path / "images", "--output", rows, *MACHINE).code == 0
    assert "not fresh   20 rows are of images the bundle was" in run("monitor", rows, "--bundle", calibrated).out
    assert run("monitor", rows, "--bundle", calibrated, "--json").content["seen"] == 20


def test_digits_after_clothes_raise_the_alarm(run: Run, calibrated: Path, served: Path, tmp_path: Path) -> None:
    for name in ("mixed.jsonl", "mixed.csv"):
        picture = tmp_path / name / "drift.png"
        words = ("monitor", served / name, "--bundle", calibrated)
        done = run(*words, "--output", picture)
        assert (done.code, done.err) == (4, "")
        assert "ALARM at row 1" in done.out
        assert "order       The rows come folder by folder" in done.out
        assert re.search(r"^'digits' +\d+ ", done.out, re.MULTILINE)
        assert picture.read_bytes().startswith(b"\x89PNG")
        again = run(*words, "--json")
        assert again.code == 4
        assert again.content["alarm"]["id"].startswith("digits/")
        assert abs(again.content["began"]["row"] - 121) <= 20
        assert again.content["sources"][0]["name"] == "digits"
        assert again.content["sources"][0]["p_value"] < 1e-6
        assert run(*words, "--json").content == again.content


def test_sources_are_watched_apart_and_the_one_that_drifts_is_named(run: Run, calibrated: Path, served: Path) -> None:
    words = ("monitor", served / "mixed.csv", "--bundle", calibrated, "--by-source")
    done = run(*words, "--json")
    assert (done.code, done.content["alarmed"]) == (4, ["digits"])
    digits, clothes = done.content["sources"]
    assert (digits["rows"], clothes["rows"], clothes["alarm"]) == (60, 120, None)
    assert digits["alarm"]["row"] < 40  # of its own rows
    assert (clothes["level"], digits["level"]) == (0.01 / 2, 0.01 / 6)  # in the order of appearance
    done = run(*words)
    assert "2 sources share the level" in done.out
    assert "ALARM at its row" in done.out
    assert run(*words, "--follow").code == 2
    assert run("monitor", served / "calm.jsonl", "--bundle", calibrated, "--by-source").code == 0


def test_files_are_read_in_the_order_given(run: Run, calibrated: Path, served: Path) -> None:
    files = (served / "calm.jsonl", served / "mixed.jsonl")
    content = run("monitor", *files, "--bundle", calibrated, "--json").content
    assert content["rows"] == 300
    assert content["alarm"]["row"] > 240


def test_a_stricter_level_asks_for_more(run: Run, calibrated: Path, served: Path) -> None:
    words = ("monitor", served / "mixed.jsonl", "--bundle", calibrated, "--json")
    first, strict = (run(*words, "--level", level).content for level in (0.1, 0.001))
    assert first["alarm"]["row"] < strict["alarm"]["row"]
    assert run(*words, "--level", 1e-60).code == 0  # more than 60 digits can show


def test_rows_that_are_still_written_are_read(run: Run, calibrated: Path, served: Path, tmp_path: Path) -> None:
    data = (served / "mixed.jsonl").read_bytes()
    (tmp_path / "rows.jsonl.partial").write_bytes(data[:-7])
    for name in ("rows.jsonl", "rows.jsonl.partial"):
        assert run("monitor", tmp_path / name, "--bundle", calibrated, "--json").content["rows"] == 179


def test_following_ends_at_an_alarm(run: Run, calibrated: Path, served: Path) -> None:
    done = run("monitor", served / "calm.jsonl", served / "mixed.jsonl", "--bundle", calibrated, "--follow", "--json")
    assert done.code == 4
    assert done.content["alarm"]["row"] > 240
    done = run("monitor", served / "mixed.jsonl", served / "calm.jsonl", "--bundle", calibrated, "--follow", "--json")
    assert (done.code, done.content["rows"]) == (4, 180)  # there was an alarm before there was anything to follow


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
def test_following_ends_at_an_interrupt_with_the_report(calibrated: Path, served: Path, tmp_path: Path) -> None:
    partial = tmp_path / "rows.jsonl.partial"
    lines = (served / "calm.jsonl").read_bytes().splitlines(keepends=True)
    partial.write_bytes(b"".join(lines[:70]))
    # A shell starts background jobs with SIGINT ignored, and children inherit that.
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from diffood.cli import main; main()"
    )
    words = ("monitor", tmp_path / "rows.jsonl", "--bundle", calibrated, "--follow", "--interval", "0.01", "--json")
    process = subprocess.Popen(
        [sys.executable, "-c", program, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("70 rows, log10 of the martingale ")
        with partial.open("ab") as file:
            file.write(b"".join(lines[70:]))
        partial.rename(tmp_path / "rows.jsonl")
        assert process.stderr.readline().startswith("120 rows, ")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0
    assert all(line.startswith("120 rows, ") for line in err.splitlines())  # the rename may be seen as one more change
    assert json.loads(out)["rows"] == 120


def test_rows_from_before_a_recalibration_are_refused_and_inspect_shows_why(
    run: Run, small_bundle_copy: Path, calibrated: Path, clothes_folder: Path, served: Path
) -> None:
    shutil.copy(calibrated / "calibration.json", small_bundle_copy)
    assert (
        run("calibrate", small_bundle_copy, "--images", clothes_folder, *FAST, "--fpr", "0.2", "--overwrite").code == 0
    )
    done = run("monitor", served / "calm.jsonl", "--bundle", small_bundle_copy)
    done.assert_one_line(1, "Row 1 ", "was judged at threshold", "from before a recalibration", "diffood serve-batch")
    content = run("inspect", small_bundle_copy, "--json").content
    ((name, kept),) = content["kept_calibrations"].items()
    assert (kept["alpha"], kept["n"]) == (0.05, 64)
    assert str(kept["threshold"]) in done.err
    shown = run("inspect", small_bundle_copy)
    assert f"kept        {name}: pac, 64 images, alpha 0.05, threshold {kept['threshold']:.6f}, fp32 on " in shown.out
