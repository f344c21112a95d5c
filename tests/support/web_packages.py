"""Folders of onnxruntime-web: one that only looks like it, for what copies files, and the one that npm installed."""

import json
import os
from pathlib import Path

from diffood.serving.web.runtime import DEFAULT_FOLDER, FILES, PACKAGE, TESTED

GET = f"npm install --no-save {PACKAGE}@{TESTED}"


def make_package(folder: Path) -> Path:
    """Make a folder with the files that a page needs, by their names alone, and one that it does not need."""
    (folder / "dist").mkdir(parents=True)
    (folder / "package.json").write_text(json.dumps({"name": PACKAGE, "version": TESTED}))
    for name in (*FILES, "ort.all.min.js"):
        (folder / "dist" / name).write_text(f"{name} of the package")
    return folder


def installed_package() -> Path | None:
    """The package that DIFFOOD_ONNXRUNTIME_WEB names, or that is installed in the repository."""
    named = os.environ.get("DIFFOOD_ONNXRUNTIME_WEB")
    folder = Path(named) if named else Path(__file__).parents[2] / DEFAULT_FOLDER
    return folder if named or folder.exists() else None
