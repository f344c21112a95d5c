"""What a calibrated bundle of FP32 and FP16 graphs has that the shipped FP32 bundle lacks: packed here, joined there.

Run: fp16_parts.py split BUNDLE OUTPUT, fp16_parts.py join PARTS BUNDLE.
"""

import shutil
import sys
from pathlib import Path

from diffood import zoo


def split(bundle: Path, output: Path) -> None:
    """Copy every file that differs from the shipped bundle's."""
    output.mkdir(parents=True)
    for file in bundle.iterdir():
        shipped = zoo.BUNDLE / file.name
        if file.is_file() and not (shipped.exists() and shipped.read_bytes() == file.read_bytes()):
            shutil.copy(file, output / file.name)


def join(parts: Path, bundle: Path) -> None:
    """Make the bundle again from the shipped one and the parts."""
    shutil.copytree(zoo.BUNDLE, bundle)
    for file in parts.iterdir():
        shutil.copy(file, bundle / file.name)


if __name__ == "__main__":
    {"split": split, "join": join}[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
