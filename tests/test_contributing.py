"""CONTRIBUTING's examples: each is one short file and a registry entry, and works in a copy of the package."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import diffood
from diffood.zoo.images import unpack_set

PACKAGE = Path(diffood.__file__).parent
GUIDE = PACKAGE.parent / "CONTRIBUTING.md"
MOST_LINES = 60

# Uses all four at once. Arguments: the small bundle, a folder of images, a scratch folder.
USE = """
import struct, sys
from pathlib import Path
from PIL import Image
from diffood.cli import app
from diffood.errors import EXIT_SET_ASIDE
from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.detector import Detector
from diffood.serving.rows.readers import read_rows

bundle, images, scratch = map(Path, sys.argv[1:])
machine = ["--batch", "8", "--threads", "2", "--backend", "onnxruntime-serial"]
plan = ["--repeats", "1", "--guidance", "0", "--witnesses", "jump,entropy"]
archive = scratch / "images.idx"
pixels = [Image.open(image).tobytes() for image in sorted(images.iterdir())]
archive.write_bytes(struct.pack(">IIII", 0x803, len(pixels) + 1, 28, 28) + b"".join(pixels))  # one is missing
rows = scratch / "rows.tsv"
for verb in (
    ["calibrate", str(bundle), "--images", str(archive), "--fpr", "0.1", *plan],
    ["serve-batch", str(bundle), str(archive), "--output", str(rows)],
):
    assert app([*verb, *machine], standalone_mode=False) == EXIT_SET_ASIDE
found = [row for block in read_rows(rows) for row in block]
assert [row.status for row in found if row.id.endswith("images.idx")] == ["rejected"]
assert len(found) == 1 + len(list(images.iterdir()))
detector = Detector.open(bundle, batch=8)
assert (detector.session.backend, detector.session.threads) == ("onnxruntime-serial", 1)
assert "entropy" in detector.plan.witnesses
assert len({row.score for row in found if row.score is not None}) > len(found) / 2
"""


def test_the_examples_of_contributing_work(small_bundle_copy: Path, tmp_path: Path) -> None:
    if not GUIDE.exists():
        pytest.skip("the package is tested without its repository")
    copy = tmp_path / "copy" / "diffood"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("data", "__pycache__"))
    (copy / "zoo" / "data").symlink_to(PACKAGE / "zoo" / "data")
    text = GUIDE.read_text()
    files = re.findall(r"```python\n# diffood/(\S+)\n(.*?)```", text, re.DOTALL)
    entries = re.findall(r"```diff\n# diffood/(\S+)\n(.*?)```", text, re.DOTALL)
    assert len(files) == len(entries) == 4
    for name, code in files:
        assert len(code.splitlines()) <= MOST_LINES
        (copy / name).write_text(code)
    for name, change in entries:
        registry = (copy / name).read_text()
        for old, new in re.findall(r"^-(.*)\n((?:\+.*\n)+)", change, re.MULTILINE):
            assert registry.count(old) == 1, (name, old)
            registry = registry.replace(old, "\n".join(line[1:] for line in new.splitlines()))
        (copy / name).write_text(registry)
    unpack_set("fashion-validation", tmp_path / "images", 80)
    command = [sys.executable, "-c", USE, str(small_bundle_copy), str(tmp_path / "images"), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(copy.parent)}
    done = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
