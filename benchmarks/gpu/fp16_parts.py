"""What a calibrated bundle of FP32 and FP16 graphs has that the shipped FP32 bundle lacks: packed here, joined there.

A file of the same length as the shipped one travels as the exclusive or of both, which compresses well.
Run: fp16_parts.py split BUNDLE OUTPUT, fp16_parts.py join PARTS BUNDLE.
"""

import shutil
import sys
from pathlib import Path

import numpy as np

from diffood import zoo

DIFFERENCE = ".xor"  # ending of a file that is to be combined with the shipped one


def combine(file: Path, other: Path) -> bytes:
    """Exclusive or of two files of one length."""
    return bytes(np.fromfile(file, np.uint8) ^ np.fromfile(other, np.uint8))


def split(bundle: Path, output: Path) -> None:
    """Write what differs from the shipped bundle."""
    output.mkdir(parents=True)
    for file in filter(Path.is_file, bundle.iterdir()):
        shipped = zoo.BUNDLE / file.name
        if not shipped.exists() or shipped.stat().st_size != file.stat().st_size:
            shutil.copy(file, output / file.name)
        elif shipped.read_bytes() != file.read_bytes():
            (output / (file.name + DIFFERENCE)).write_bytes(combine(file, shipped))


def join(parts: Path, bundle: Path) -> None:
    """Make the bundle again from the shipped one and the parts."""
    shutil.copytree(zoo.BUNDLE, bundle)
    for file in parts.iterdir():
        target = bundle / file.name.removesuffix(DIFFERENCE)
        if file.suffix == DIFFERENCE:
            target.write_bytes(combine(file, target))
        else:
            shutil.copy(file, target)


if __name__ == "__main__":
    {"split": split, "join": join}[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
