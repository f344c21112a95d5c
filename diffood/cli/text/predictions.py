"""What `diffood calibrate` prints of the classes predicted on its images, in lines. Prints nothing itself."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from diffood.calibration.predictions import Predictions

CLASSES_SHOWN = 12


def describe_predictions(found: "Predictions") -> list[str]:
    """Images by predicted class, the most frequent first, and the accuracy where folders are named like classes."""
    order = np.argsort(-found.counts, kind="stable")
    frequent = [index for index in order if found.counts[index]]
    named = ", ".join(f"{found.class_names[index]} {found.counts[index]}" for index in frequent[:CLASSES_SHOWN])
    more = f", {len(frequent) - CLASSES_SHOWN} more" if len(frequent) > CLASSES_SHOWN else ""
    lines = [f"predicted   {len(frequent)} of {len(found.counts)} classes: {named}{more}"]
    if found.accuracy is not None:
        lines.append(
            f"accuracy    {found.accuracy:.1%} of the {found.labelled} images in folders named like their class"
        )
    return lines
