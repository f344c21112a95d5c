"""Attack: a record is replaced between the moments it is checked, used, and named as what was used."""

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

from cheap_calibration import calibrate_cheaply
from full_bundle import complete

from diffood.runtime.bundle.bundle import open_bundle

# Counts which files of a bundle are opened; once a file was closed, and the next one is opened, it is swapped.
PROGRAM = """
import collections, os, sys

bundle, other, *words = sys.argv[1:]
opened = collections.Counter()

def see(event, about):
    if event != "open" or not str(about[0]).startswith(bundle + os.sep) or os.path.isdir(about[0]):
        return
    name = os.path.relpath(about[0], bundle)
    for before in [before for before in opened if before != name and os.path.exists(os.path.join(other, before))]:
        os.replace(os.path.join(other, before), os.path.join(bundle, before))
    opened[name] += 1

sys.addaudithook(see)

from diffood.cli import app

app(words, standalone_mode=False)
print(dict(opened))
"""
LATER = ("calibration.json", "tuning.json", "detector.json", "detector.onnx")
ENGINE = "engines/tensorrt-rtx-sm86-fp32-default/engine.json"


def test_what_a_run_uses_is_opened_once(small_bundle_copy: Path, clothes_folder: Path, tmp_path: Path) -> None:
    """There is no second look that an attacker could race, and the run's record names what its rows came from."""
    bundle = complete(calibrate_cheaply(small_bundle_copy, clothes_folder))
    other = Path(shutil.copytree(bundle, tmp_path / "other"))
    calibrate_cheaply(other, clothes_folder, 0.5)  # a valid calibration, with another threshold
    digest = open_bundle(bundle).digest
    for path in list(other.rglob("*")):
        if path.is_file() and path.relative_to(other).as_posix() not in LATER:
            path.unlink()
    rows = tmp_path / "rows.jsonl"
    words = ["serve-batch", bundle, clothes_folder, "--output", rows, "--batch", 8, "--threads", 1]
    command = [sys.executable, "-c", PROGRAM, *map(str, [bundle, other, *words])]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    opened = ast.literal_eval(done.stdout.splitlines()[-1])
    assert {name: opened[name] for name in ("manifest.json", *LATER, ENGINE)} == dict.fromkeys(
        ("manifest.json", *LATER, ENGINE), 1
    )
    assert not (other / "calibration.json").exists()  # it was swapped
    assert open_bundle(bundle).digest != digest
    run = json.loads(Path(f"{rows}.summary.json").read_bytes())["run"]
    assert run["bundle_digest"] == digest
    assert run["calibration_sha256"] != json.loads((bundle / "calibration.json").read_bytes())["content_sha256"]
