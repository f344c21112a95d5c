"""Selects images by their p-values so that few of the selected are in-distribution: the false discovery rate.

Of a finished batch: `select_batch`. Of a stream, each image at once: `OnlineSelection`. With numpy alone, no I/O.
"""

import numpy as np
import numpy.typing as npt

from diffood.runtime.method.scoring import Float

ROUNDING = 1e-12  # relative; p-values of equal ranks compare as equal to the line, whatever float64 makes of them
CANDIDATE = 0.5  # p-values above it spend
DECAY = 1.6  # the paper's choice
SUM = 2.2857656657  # of k^-1.6 over all k from 1: Riemann's zeta function, rounded up


def select_batch(p_values: Float, fdr: float) -> npt.NDArray[np.bool_]:
    """Which images of a finished batch to select, bool [N] for p-values [N].

    Benjamini and Hochberg 1995: the k smallest, for the largest k whose k-th p-value is at most fdr k / N. The expected
    share of in-distribution images among the selected is then at most fdr, on average over calibrations and batches, as
    conformal p-values of one calibration are positively dependent on each other (PRDS: Bates et al. 2023, theorem 2).
    """
    total = len(p_values)
    passes = np.sort(p_values) * total <= fdr * np.arange(1, total + 1) * (1 + ROUNDING)
    selected = int(np.flatnonzero(passes).max(initial=-1)) + 1
    return np.asarray(p_values <= np.sort(p_values)[selected - 1]) if selected else np.zeros(total, np.bool_)


class OnlineSelection:
    """Selects images of a stream one after another by SAFFRON (Ramdas, Zrnic, Wainwright and Jordan 2018).

    Before each image a level is set: (1 - c) (w g_(1 + N_0) + (fdr - w) g_(1 + N_1) + fdr times the sum of g_(1 + N_j)
    over the selections j > 1), at most c, with c = 1/2, w = fdr / 2, g_k proportional to k^-1.6, and N_j the number of
    images since selection j whose p-value was above c. The image is selected if its p-value is at most the level. The
    false discovery rate is at most fdr at every time if the p-values of in-distribution images are independent; those
    of one calibration are so only nearly, and `research/deployments.py` measures what that costs.
    """

    def __init__(self, fdr: float) -> None:
        self._fdr, self._start = fdr, fdr / 2
        self._passed = 0  # images with a p-value above CANDIDATE
        self._at = np.empty(0, np.int64)  # that number at each selection

    @property
    def level(self) -> float:
        """The p-value up to which the next image is selected."""
        level = self._start * float(_spending(1 + self._passed))
        if self._at.size:
            shares = np.full(self._at.size, self._fdr)
            shares[0] -= self._start
            level += float(shares @ _spending(1 + self._passed - self._at))
        return min(CANDIDATE, (1 - CANDIDATE) * level)

    def select(self, p_value: float) -> bool:
        """Whether the next image, with this p-value, is selected."""
        chosen = p_value <= self.level * (1 + ROUNDING)
        self._passed += p_value > CANDIDATE
        if chosen:
            self._at = np.append(self._at, self._passed)
        return chosen


def _spending(place: int | npt.NDArray[np.int64]) -> Float:
    """What is spent at a place from 1; over all places the sum is 1."""
    return np.asarray(place**-DECAY / SUM)
