"""Bundles exported by make_exported.py from small random models, and those models; committed, as an export takes long.

They are as export writes them, but for the detector files, which are assembled in a moment.
"""

import shutil
from pathlib import Path

from small_models import DATA

from diffood.runtime.assembly.files import write_detectors
from diffood.runtime.bundle.bundle import Bundle, open_bundle

EXPORTED = DATA / "exported"
MODELS, BUNDLE, LINES = "models", "bundle", "lines.txt"  # of each: its sources, what came of them, what was reported
DIT, VQ, HALF = "dit", "vq", "half"


def models_of(name: str) -> Path:
    """The models that a bundle was exported from; read-only."""
    return EXPORTED / name / MODELS


def lines_of(name: str) -> list[str]:
    """What the export of a bundle reported."""
    return (EXPORTED / name / LINES).read_text().splitlines()


def copy_exported(name: str, folder: Path) -> Bundle:
    """A bundle as export writes it, in a folder that does not exist yet."""
    bundle = open_bundle(Path(shutil.copytree(EXPORTED / name / BUNDLE, folder)))
    write_detectors(bundle)
    return bundle
