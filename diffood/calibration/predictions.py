"""What a classifier predicts on calibration images: counts, accuracy, and whether images make a difference to it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from diffood.calibration.metrics.labels import UNKNOWN, labels_from_folders
from diffood.calibration.scored_files import SeeScore
from diffood.errors import CalibrationError
from diffood.runtime.method.scoring import Array
from diffood.runtime.method.variation import FEWEST, WRONG_SCALE, LogitVariation
from diffood.runtime.results import ImageScore

CHECK_EVERY = FEWEST  # images: a constant classifier is refused after so many, not after all
ONE_CLASS = 0.9  # share of images predicted as one class, from which it is said
FEW_CLASSES = 1 / 3  # share of the classes that are predicted at all, up to which it is said
IMAGES_PER_CLASS = 10  # from which it is said
FEW_RIGHT = 0.5  # accuracy below which it is said


class LogitCheck:
    """Refuses, while images are scored, a classifier to which they make no difference."""

    def __init__(self) -> None:
        self.variation = LogitVariation()

    def see(self, logits: Array) -> None:
        """Take the logits [K] of one image. Raises CalibrationError as `require_varied` does."""
        self.variation.add(logits)
        if self.variation.count % CHECK_EVERY == 0:
            self.require_varied()

    def with_scores(self, see: SeeScore | None) -> SeeScore:
        """A `see` for `score_sources` that looks at logits, and tells the given one too."""

        def look(identity: str, result: ImageScore) -> None:
            self.see(result.evidence.logits)
            if see:
                see(identity, result)

        return look

    def require_varied(self) -> None:
        """Raise CalibrationError where images make no difference to the classifier."""
        if self.variation.constant:
            raise CalibrationError(
                f"The classifier gives nearly the same logits for all of the first {self.variation.count} images: "
                f"they differ by {self.variation.share:.2%} of their size, where some tens of percent are usual. "
                f"{WRONG_SCALE}. Export again, or check that these images are what the classifier was trained on."
            )


@dataclass(frozen=True)
class Predictions:
    """What was predicted on N images.

    Attributes:
        class_names: Of the classifier.
        counts: Images by predicted class, int64 [K].
        labelled: Images that lie in a folder named like a class.
        right: Of those, images predicted as that class.
        variation: Share of the logits that differs between images, see LogitVariation.
        little: Whether that is less than usual.
    """

    class_names: tuple[str, ...]
    counts: npt.NDArray[np.int64]
    labelled: int
    right: int
    variation: float
    little: bool

    @property
    def accuracy(self) -> float | None:
        """Share of the labelled images predicted as their class; None without any."""
        return self.right / self.labelled if self.labelled else None

    def as_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "by_class": self.counts.tolist(),
            "labelled": self.labelled,
            "accuracy": self.accuracy,
            "variation": self.variation,
        }

    def warnings(self) -> list[str]:
        """What looks as if the classifier was fed wrongly, one sentence each."""
        total, classes = int(self.counts.sum()), len(self.counts)
        seen, most = int((self.counts > 0).sum()), int(self.counts.argmax())
        found = []
        if self.little:
            found.append(f"logits differ between images by only {self.variation:.1%} of their size. {WRONG_SCALE}.")
        if self.accuracy is not None and self.accuracy < FEW_RIGHT:
            found.append(
                f"{self.right} of {self.labelled} images are predicted as the class their folder is named like. "
                f"Check the order of the class names. {WRONG_SCALE}."
            )
        elif self.accuracy is None and classes > 2 and self.counts[most] >= ONE_CLASS * total:
            found.append(
                f"{self.counts[most]} of {total} images are predicted as {self.class_names[most]!r}. If they are of "
                f"several classes, the classifier is used wrongly. {WRONG_SCALE}."
            )
        elif self.accuracy is None and seen <= FEW_CLASSES * classes and total >= IMAGES_PER_CLASS * classes:
            found.append(
                f"only {seen} of {classes} classes are predicted on {total} images. If they are of more, the "
                f"classifier is used wrongly. {WRONG_SCALE}."
            )
        return found


def count_predictions(
    predicted: npt.NDArray[np.int64], ids: Sequence[str], class_names: Sequence[str], variation: LogitVariation
) -> Predictions:
    """Count predicted classes [N] of files with these ids, and those that are right by the names of their folders."""
    labels = labels_from_folders(ids, class_names)
    known = labels != UNKNOWN
    return Predictions(
        class_names=tuple(class_names),
        counts=np.bincount(predicted, minlength=len(class_names)).astype(np.int64),
        labelled=int(known.sum()),
        right=int((predicted == labels)[known].sum()),
        variation=variation.share,
        little=variation.little,
    )
