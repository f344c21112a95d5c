"""The wheel's bill of materials names what pyproject.toml asks for and the models that the wheel carries."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from diffood.zoo.pairs import PAIRS

tomllib = pytest.importorskip("tomllib")  # of Python 3.11

ROOT = Path(__file__).parents[1]
BUILD = "from setuptools.build_meta import build_wheel; build_wheel('dist')"
SMALL = "golden.npz"  # of the files that the wheel carries, one that is quick to copy


def test_a_wheel_holds_a_bill_of_all_that_it_asks_for_and_carries(tmp_path: Path) -> None:
    """Of a tree without most of the data, which takes a second to build."""
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "LICENSES", tmp_path / "LICENSES")
    kept = shutil.ignore_patterns("__pycache__", "*.onnx", "*.safetensors", "images", "page")
    shutil.copytree(ROOT / "diffood", tmp_path / "diffood", ignore=kept)
    subprocess.run([sys.executable, "-c", BUILD], cwd=tmp_path, check=True, capture_output=True)

    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (archive.read(entry).decode() for entry in archive.namelist() if entry.endswith("/METADATA"))
        licences = {Path(entry).name for entry in archive.namelist() if "/licenses/" in entry}
        (name,) = (entry for entry in archive.namelist() if "/sboms/" in entry)
        bill = json.loads(archive.read(name))
    assert name.endswith(".dist-info/sboms/diffood.cdx.json")

    assert licences == {"LICENSE", "CC-BY-SA-3.0.txt"}  # that of the embedded surfaces asks for its text or address
    (expression,) = re.findall(r"^License-Expression: (.+)$", metadata, re.MULTILINE)
    assert bill["metadata"]["component"]["licenses"] == [{"expression": expression}]
    assert {"Apache-2.0", *(pair.licence for pair in PAIRS.values())} <= set(expression.split(" AND "))

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {("requires", text) for text in project["dependencies"]}
    wanted |= {(extra, text) for extra, texts in project["optional-dependencies"].items() for text in texts}
    found = [part for part in bill["components"] if part["type"] == "library"]
    said = {(entry["name"], entry["value"]) for part in found for entry in part["properties"]}
    assert {(f"diffood:{extra}", plain(text)) for extra, text in wanted if not text.startswith("diffood[")} == {
        (name, plain(value)) for name, value in said
    }
    assert {part["name"] for part in found if part["scope"] == "required"} == {
        re.split(r"[^\w-]", text)[0] for text in project["dependencies"]
    }

    (carried,) = (part for part in bill["components"] if part["name"].endswith(f"bundle/{SMALL}"))
    data = (ROOT / carried["name"]).read_bytes()
    assert carried["hashes"] == [{"alg": "SHA-256", "content": hashlib.sha256(data).hexdigest()}]
    references = [part["bom-ref"] for part in bill["components"]]
    assert bill["dependencies"] == [{"ref": "diffood", "dependsOn": references}]
    assert len(references) == len(set(references))


def plain(requirement: str) -> str:
    """Without spaces and kinds of quotes, which are written in several ways."""
    return re.sub(r"[\s'\"]", "", requirement)
