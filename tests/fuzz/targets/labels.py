"""People's answers as CSV, and as Label Studio and CVAT export them."""

import numpy as np
from json_mutations import change_record
from oracle import Scratch, attempt

from diffood.calibration.feedback.labels import read_labels

SCRATCH = Scratch()
KINDS = ("labels.csv", "labels.json")


def use(data: bytes) -> None:
    """The first byte says which of both it is."""
    if data:
        path = SCRATCH.file(KINDS[data[0] % len(KINDS)], data[1:])
        attempt(lambda: [label.answer for label in read_labels(path)])


def change(data: bytes, rng: np.random.Generator) -> bytes:
    """Damage what the JSON says, or a byte of the CSV."""
    return data[:1] + change_record(data[1:], rng, seal=False)
