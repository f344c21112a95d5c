"""What a detector answers: the score of one image, scores and verdicts of several."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from diffood.runtime.method.witnesses.definition import Evidence


@dataclass(frozen=True)
class ImageScore:
    """Score of one image.

    Attributes:
        score: Higher is more out-of-distribution.
        witnesses: Raw witness values, float64 [W], in plan order.
        evidence: What they were measured on.
        stage: Stage at which scoring stopped, from 1.
        evaluations: UNet evaluations spent.
    """

    score: float
    witnesses: npt.NDArray[np.float64]
    evidence: Evidence
    stage: int
    evaluations: int


@dataclass(frozen=True)
class Scores:
    """Scores of N images, in their order. What was not measured at an early stage is NaN.

    Attributes:
        score: Higher is more out-of-distribution, float64 [N].
        witnesses: Raw witness values in plan order, float64 [N, W].
        by_start: The jump by start time, float64 [N, T].
        predicted: Class index, int64 [N].
        confidence: Largest softmax probability, float64 [N].
        evaluations: UNet evaluations spent, int64 [N].
    """

    score: npt.NDArray[np.float64]
    witnesses: npt.NDArray[np.float64]
    by_start: npt.NDArray[np.float64]
    predicted: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.float64]
    evaluations: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Verdicts:
    """Verdicts on N files, in their order.

    A refused file has is_ood True, NaN for numbers and -1 for its class: it was never shown to be in-distribution.

    Attributes:
        is_ood: Whether the image is flagged, bool [N].
        p_value: Conformal p-value, float64 [N].
        score: Higher is more out-of-distribution, float64 [N].
        predicted: Class index, int64 [N].
        threshold: Of the predicted class, or of all images, float64 [N].
        error: Why each file was refused; "" if it was not.
    """

    is_ood: npt.NDArray[np.bool_]
    p_value: npt.NDArray[np.float64]
    score: npt.NDArray[np.float64]
    predicted: npt.NDArray[np.int64]
    threshold: npt.NDArray[np.float64]
    error: tuple[str, ...]
