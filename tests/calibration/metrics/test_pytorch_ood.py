"""Our metrics equal those of pytorch-ood: recorded numbers and, where it is installed, its own results.

It needs torchvision, whose wheels on PyPI do not load with the CPU build of torch that this project is tested with, so
it is no dependency of ours. Its metrics were therefore run once: release 0.4.0, `metrics/functional.py`, float64.
"""

import numpy as np
import numpy.typing as npt
import pytest

from diffood.calibration.metrics.rates import aupr_in, aupr_out, auroc, fpr_at_95_detection
from diffood.calibration.metrics.rejection import oscr

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

# Sizes of both sets, steps that scores are rounded down to, shift of the OOD scores; then AUROC, AUPR-IN, AUPR-OUT,
# FPR@95 and OSCR as pytorch-ood gave them. Few steps mean many ties.
GIVEN = [
    (
        120,
        80,
        1e9,
        0.2,
        [0.7971874999999999, 0.8755825344336721, 0.7241658016273838, 0.5083333333333333, 0.6397916666666666],
    ),
    (
        120,
        80,
        10,
        0.2,
        [0.7973958333333333, 0.877062978178796, 0.7267908144128725, 0.5583333333333333, 0.6389583333333333],
    ),
    (
        333,
        50,
        1e9,
        0.6,
        [0.954954954954955, 0.9929459592911692, 0.8269508999662124, 0.1981981981981982, 0.7642642642642643],
    ),
    (40, 200, 4, -0.1, [0.5578125, 0.1503562157028282, 0.8671356408785901, 1.0, 0.41631250000000003]),
    (50, 50, 1e9, 1.1, [1.0, 1.0, 1.0, 0.0, 0.7999999999999999]),
]


def scores(n: int, m: int, steps: float, shift: float) -> tuple[FloatArray, FloatArray]:
    """InD scores [n] and OOD scores [m] that no version of a random generator can change: multiples of irrationals."""
    ind = np.floor(steps * ((np.arange(n) * 0.6180339887498949) % 1) ** 2) / steps
    ood = np.floor(steps * np.minimum((np.arange(m) * 0.7548776662466927) % 1 + shift, 1.5)) / steps
    return ind, ood


def classes(n: int) -> tuple[IntArray, IntArray]:
    """True and predicted classes [n], every fifth wrong."""
    predicted = np.arange(n) % 7
    return np.where(np.arange(n) % 5 == 0, (predicted + 1) % 7, predicted), predicted


def ours(ind: FloatArray, ood: FloatArray) -> list[float]:
    return [
        auroc(ind, ood),
        aupr_in(ind, ood),
        aupr_out(ind, ood),
        fpr_at_95_detection(ind, ood),
        oscr(ind, *classes(ind.size), ood).area,
    ]


def test_metrics_equal_what_pytorch_ood_gave() -> None:
    for n, m, steps, shift, given in GIVEN:
        assert ours(*scores(n, m, steps, shift)) == pytest.approx(given, abs=1e-12), (n, m, steps, shift)


def test_metrics_equal_the_installed_pytorch_ood() -> None:
    theirs = pytest.importorskip("pytorch_ood.metrics.functional", reason="pytorch-ood needs torchvision")
    torch = pytest.importorskip("torch")
    for n, m, steps, shift, _ in GIVEN:
        ind, ood = scores(n, m, steps, shift)
        labels, predicted = classes(n)
        every = torch.tensor(np.concatenate([ind, ood]))
        true = torch.tensor(np.concatenate([labels, np.full(m, -1)]))
        guess = torch.tensor(np.concatenate([predicted, np.zeros(m, np.int64)]))
        given = [
            theirs.auroc(every, true),
            theirs.aupr(every, true, "id"),
            theirs.aupr(every, true, "ood"),
            theirs.fpr_at_tpr(every, true),
            theirs.oscr_score(every, guess, true),
        ]
        assert ours(ind, ood) == pytest.approx([float(value) for value in given], abs=1e-12), (n, m, steps, shift)
