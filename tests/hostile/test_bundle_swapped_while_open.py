"""Attack: a record is replaced between the moments it is checked, used, and named as what was used, in every verb."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cheap_calibration import calibrate_cheaply
from full_bundle import complete
from web_pages import make_package

from diffood.errors import BundleError
from diffood.runtime.bundle.bundle import Bundle, open_bundle
from diffood.runtime.bundle.calibration import load_calibration
from diffood.runtime.bundle.detectors import read_calibrated_detector
from diffood.zoo.images import unpack_set

# Counts which files of a bundle are opened for reading; once one was closed, and the next is opened, it is swapped.
PROGRAM = """
import collections, contextlib, io, json, os, shutil, sys

bundle, other, commands = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
opened, watching = collections.Counter(), False

def see(event, about):
    if not watching or event != "open" or not str(about[0]).startswith(bundle + os.sep) or about[2] & os.O_ACCMODE:
        return
    name = os.path.relpath(about[0], bundle)
    if os.path.isfile(about[0]):
        for before in opened:
            if before != name and os.path.exists(os.path.join(other, before)):
                os.replace(os.path.join(other, before), os.path.join(bundle, before))
        opened[name] += 1

sys.addaudithook(see)

from diffood.cli import app
from diffood.errors import DiffoodError

found = {}
for folder in (bundle, other):
    shutil.copytree(folder, folder + ".kept")
for verb, words in commands.items():
    for folder in (bundle, other):
        shutil.rmtree(folder)
        shutil.copytree(folder + ".kept", folder)
    opened.clear()
    watching = True
    with contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            code = app(words, standalone_mode=False) or 0
        except DiffoodError as error:
            code = str(error)
    watching = False
    left = [os.path.relpath(os.path.join(top, file), other) for top, _, files in os.walk(other) for file in files]
    found[verb] = {"code": code, "opened": dict(opened), "said": out.getvalue(), "left": left}
print(json.dumps(found))
"""
UNLISTED = ("calibration.json", "parity.json", "tuning.json", "detector.json", "detector.onnx")
ENGINE = "engines/tensorrt-rtx-sm86-fp32-default"
SWAPPED = (*UNLISTED, f"{ENGINE}/engine.json", f"{ENGINE}/stage1.plan")
MACHINE = ("--batch", "8", "--threads", "1")
PLAN = ("--plan", "plain", "--start-time", "120", "--stride", "120", "--repeats", "1", "--guidance", "0")


@pytest.fixture
def swapped(small_bundle_copy: Path, clothes_folder: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A bundle with every record there can be, and a folder of others that are valid in it too."""
    bundle = calibrate_cheaply(small_bundle_copy, clothes_folder, 0.3)
    complete(calibrate_cheaply(bundle, clothes_folder))  # the first one is kept
    other = Path(shutil.copytree(bundle, tmp_path / "other"))
    calibrate_cheaply(other, clothes_folder, 0.5)
    for path in list(other.rglob("*")):
        if path.is_file() and path.relative_to(other).as_posix() not in SWAPPED:
            path.unlink()
    return bundle, other


def run(bundle: Path, other: Path, commands: dict[str, list[object]]) -> dict[str, Any]:
    """Run commands on a bundle that is swapped under them, and see that each opened each file once.

    Returns by command what was opened, what it printed, and which files were not swapped.
    """
    words = {verb: [str(word) for word in command] for verb, command in commands.items()}
    command = [sys.executable, "-c", PROGRAM, str(bundle), str(other), json.dumps(words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def assert_opened_once(found: dict[str, Any]) -> None:
    """A command that ended well looked once at each file that may be replaced."""
    assert found["code"] == 0
    listed = ("manifest.json", *SWAPPED)
    once = {name: count for name, count in found["opened"].items() if name in listed or name.startswith("calibrations")}
    assert set(once.values()) == {1}, once


def test_what_a_run_uses_is_opened_once(
    swapped: tuple[Path, Path], clothes_folder: Path, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    """There is no second look that an attacker could race, and the run's record names what its rows came from."""
    bundle, other = swapped
    digest, own = open_bundle(bundle).digest, json.loads((bundle / "calibration.json").read_bytes())["content_sha256"]
    rows = tmp_path / "rows.jsonl"
    commands: dict[str, list[object]] = {
        "inspect": ["inspect", bundle, "--json"],
        "serve-batch": ["serve-batch", bundle, clothes_folder, "--output", rows, *MACHINE],
    }
    found = run(bundle, other, commands)
    for verb, one in found.items():
        with subtests.test(verb):
            assert_opened_once(one)
            assert "calibration.json" not in one["left"]  # it was swapped
    summary, shown = json.loads(Path(f"{rows}.summary.json").read_bytes())["run"], json.loads(found["inspect"]["said"])
    assert (summary["bundle_digest"], summary["calibration_sha256"]) == (digest, own)
    assert (shown["digest"], shown["calibration"]["threshold"]) == (digest, load_calibration(spare(bundle)).threshold)
    assert open_bundle(bundle).digest != digest


def spare(bundle: Path) -> Bundle:
    """The bundle as it was before it was swapped."""
    return open_bundle(bundle.with_name(f"{bundle.name}.kept"))


@pytest.mark.slow  # what all verbs share is tested above
def test_every_verb_opens_once_what_it_uses(
    swapped: tuple[Path, Path], clothes_folder: Path, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    (bundle, other), rows, key = swapped, tmp_path / "rows.jsonl", tmp_path / "key.pem"
    unpack_set("digits", tmp_path / "digits", 40)
    pair: list[object] = ["--ind", clothes_folder, "--ood", f"digits={tmp_path / 'digits'}"]
    repository, site = ["--output", tmp_path / "repository"], make_package(tmp_path / "runtime")
    commands: dict[str, list[object]] = {
        "serve-batch": ["serve-batch", bundle, clothes_folder, "--output", rows, *MACHINE],
        "calibrate": ["calibrate", bundle, "--images", clothes_folder, "--overwrite", *PLAN, "--fpr", "0.1", *MACHINE],
        "restore": ["calibrate", bundle, "--restore"],
        "verify": ["verify", bundle, "--images", clothes_folder, "--max-flips", "0.1", *MACHINE],
        "evaluate": ["evaluate", bundle, *pair, "--output", tmp_path / "evaluation", *MACHINE],
        "report": ["report", bundle, *pair, "--output", tmp_path / "report.html", *MACHINE],
        "monitor": ["monitor", rows, "--bundle", bundle],
        "tune": ["tune", bundle, *pair, "--budget", "2", "--images", "60", *MACHINE],
        "export-web": ["export-web", bundle, "--output", tmp_path / "site", "--runtime", site],
        "export-triton": ["export-triton", bundle, *repository],
        "decoding": ["export-triton", bundle, "--output", tmp_path / "decoding", "--decode-images"],
        "export": ["export", "--bundle", bundle],
    }
    if importlib.util.find_spec("cryptography"):
        save_key(key)
        commands["sign"] = ["sign", bundle, "--key", key]
    for verb, one in run(bundle, other, commands).items():
        with subtests.test(verb):
            assert_opened_once(one)


def save_key(path: Path) -> None:
    """Write a new private key."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    path.write_bytes(Ed25519PrivateKey.generate().private_bytes(*form))


def test_a_file_that_is_read_again_must_be_as_it_was(small_bundle_copy: Path, clothes_folder: Path) -> None:
    bundle = open_bundle(calibrate_cheaply(small_bundle_copy, clothes_folder))
    first, detector = load_calibration(bundle), read_calibrated_detector(bundle, "fp32")
    path = bundle.path / "detector.onnx"
    assert read_calibrated_detector(bundle, "fp32") == detector
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(BundleError, match=r"detector.onnx.* where at most|was changed while the bundle was in use"):
        read_calibrated_detector(bundle, "fp32")
    calibrate_cheaply(bundle.path, clothes_folder, 0.5)
    assert load_calibration(bundle) is first
    with pytest.raises(BundleError, match=r"detector.onnx was changed while the bundle was in use.* Open the bundle"):
        bundle.unlisted.read("detector.onnx", 2**30)
    assert load_calibration(open_bundle(bundle.path)) != first
