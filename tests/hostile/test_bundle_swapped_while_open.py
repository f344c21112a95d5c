"""Attack: a record is replaced between the moment it is checked and the moment it is used."""

import subprocess
import sys
from pathlib import Path

from cheap_calibration import calibrate_cheaply

COUNTING = """
import collections, os, sys

opened = collections.Counter()
sys.addaudithook(lambda event, words: event == "open" and opened.update([os.path.basename(str(words[0]))]))

from diffood.cli import app

code = app(sys.argv[1:], standalone_mode=False)
print({name: opened[name] for name in ("manifest.json", "calibration.json")})
"""


def test_what_a_run_uses_is_opened_once(small_bundle_copy: Path, clothes_folder: Path, tmp_path: Path) -> None:
    """There is no second look that an attacker could race, and the run's record names what its rows came from."""
    bundle = calibrate_cheaply(small_bundle_copy, clothes_folder)
    words = ["serve-batch", bundle, clothes_folder, "--output", tmp_path / "rows.jsonl", "--batch", 8, "--threads", 1]
    command = [sys.executable, "-c", COUNTING, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    # the calibration's second opening is hashed for the digest of the whole bundle, and nothing of it is used
    assert done.stdout.splitlines()[-1] == "{'manifest.json': 1, 'calibration.json': 2}", done.stderr
