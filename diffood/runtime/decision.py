"""Applies a calibration: score in, p-value and verdict out. Fits nothing."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from diffood.runtime.bundle.calibration import Calibration
from diffood.runtime.certificate import Thresholds


@dataclass(frozen=True)
class Decisions:
    """Decisions on N scores.

    Attributes:
        p_values: In (0, 1], float64 [N].
        is_ood: bool [N].
        thresholds: That the scores were compared with, float64 [N].
    """

    p_values: npt.NDArray[np.float64]
    is_ood: npt.NDArray[np.bool_]
    thresholds: npt.NDArray[np.float64]


@dataclass(frozen=True)
class DecisionRule:
    """How a calibration judges scores; make it once and use it often.

    Attributes:
        calibration: The calibration.
        thresholds: That scores are compared with.
        known: Its scores, sorted, float64 [n].
        own: Sorted scores of each class that has its own.
    """

    calibration: Calibration
    thresholds: Thresholds
    known: npt.NDArray[np.float64]
    own: Mapping[int, npt.NDArray[np.float64]]

    @classmethod
    def of(cls, calibration: Calibration, thresholds: Thresholds | None = None) -> "DecisionRule":
        """The rule of a calibration, with its own thresholds or with others."""
        known = np.array(calibration.scores)
        classes = np.array(calibration.per_class.classes if calibration.per_class else [])
        own = {k: known[classes == k] for k in calibration.own_thresholds}
        fitted = Thresholds(calibration.threshold, calibration.own_thresholds)
        return cls(calibration, thresholds or fitted, known, own)

    def decide(self, scores: npt.NDArray[np.float64], predicted: npt.NDArray[np.int64]) -> Decisions:
        """Conformal p-values and verdicts of scores [N] of images with predicted classes [N].

        p = (1 + #{calibration scores >= s}) / (n + 1): Vovk et al. 2005. Where the class has its own threshold the
        scores counted are those of its images (Mondrian: sec. 4.5 there), so that a p-value and a verdict speak of the
        same images. A score that is not finite, even -inf, is flagged. Class -1 has no threshold of its own.
        """
        finite = np.where(np.isfinite(scores), scores, np.inf)
        p_values, thresholds = _p_values(finite, self.known), np.full(len(finite), self.thresholds.overall)
        for k in self.own.keys() & set(predicted.tolist()):
            mine = predicted == k
            p_values[mine] = _p_values(finite[mine], self.own[k])
            thresholds[mine] = self.thresholds.own.get(k, self.thresholds.overall)
        return Decisions(p_values, finite > thresholds, thresholds)


def _p_values(scores: npt.NDArray[np.float64], known: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """p-values of scores [N] among sorted calibration scores [n]."""
    at_least = len(known) - np.searchsorted(known, scores, side="left")
    return np.asarray((1 + at_least) / (len(known) + 1))
