"""Tries a classifier on the user's images before its graphs are made: whether it tells them apart, what it predicts."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from diffood.errors import ExportError
from diffood.export.graphs.modules import ClassifyGraph
from diffood.export.sources.classifiers.classifier import Classifier
from diffood.runtime.images.pixels import from_pixels
from diffood.runtime.method.variation import FEWEST, WRONG_SCALE, LogitVariation
from diffood.runtime.progress import Say

ROWS = 8  # of a batch
CLASSES_SHOWN = 8


def look_at_images(
    classifier: Classifier, images: npt.NDArray[np.uint8], class_names: Sequence[str], report: Say
) -> None:
    """Report what is predicted on images uint8 [N, C, H, W].

    Raises:
        ExportError: The images make no difference to the classifier.

    """
    graph = ClassifyGraph(classifier, *images.shape[1:]).eval()
    variation, counts = LogitVariation(), Counter[int]()
    with torch.no_grad():
        for rows in torch.from_numpy(from_pixels(images)).split(ROWS):
            for logits in graph(rows)[0].numpy():
                variation.add(logits)
                counts[int(logits.argmax())] += 1
    if variation.constant:
        raise ExportError(
            f"{classifier.origin} gives nearly the same logits for all of {variation.count} images: they differ by "
            f"{variation.share:.2%} of their size, where some tens of percent are usual. {WRONG_SCALE}."
        )
    named = ", ".join(f"{class_names[index]} {count}" for index, count in counts.most_common(CLASSES_SHOWN))
    more = f", {len(counts) - CLASSES_SHOWN} more classes" if len(counts) > CLASSES_SHOWN else ""
    report(f"predicted   on {variation.count} images: {named}{more}")
    if variation.little or (len(counts) == 1 and variation.count >= FEWEST):
        report(f"note        is that right? Logits differ by {variation.share:.1%} between images. {WRONG_SCALE}")
