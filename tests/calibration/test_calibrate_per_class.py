"""Per-class thresholds keep their promises as they are stored and applied; the sentences that state them."""

import itertools
from functools import partial

import numpy as np
import numpy.typing as npt
import pytest
from draws import at_most, simulated
from refusals import assert_refused

from diffood.calibration.calibrate import calibrate, calibrate_files
from diffood.calibration.promises.guarantees import guarantee_per_class
from diffood.calibration.promises.per_class import fit_per_class
from diffood.calibration.promises.thresholds import Method
from diffood.calibration.scored_files import ScoredFiles
from diffood.errors import CalibrationError, UsageError
from diffood.runtime.bundle.bundle import Bundle
from diffood.runtime.bundle.calibration import Calibration
from diffood.runtime.bundle.guarantees import MOST_NAMED
from diffood.runtime.decision import DecisionRule
from diffood.runtime.detector import Detector

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

ALPHA, DELTA = 0.05, 0.1

# Of ten classes four are common; the scores of class k are uniform on [STARTS[k], STARTS[k] + 1].
SHARES = np.array([0.3, 0.25, 0.2, 0.15, 0.04, 0.03, 0.01, 0.01, 0.005, 0.005])
STARTS = np.array([0.0, 0.5, -0.3, 0.2, 0.4, 0.0, 0.6, -0.5, 0.3, 0.1])
N = 700
GRID = (np.arange(1000) + 0.5) / 1000  # of a class's images, by which its rate is known to a twentieth of a percent


@pytest.fixture(scope="module")
def detector(small_bundle: Bundle) -> Detector:
    return Detector.load(small_bundle, small_bundle.plan("plain"), batch=1, threads=1)


def draw(generator: np.random.Generator, n: int) -> ScoredFiles:
    predicted = generator.choice(SHARES.size, n, p=SHARES)
    scores = STARTS[predicted] + generator.random(n)
    ids = tuple(f"{index}.png" for index in range(n))
    hashes = tuple(f"{index:064x}" for index in range(n))
    return ScoredFiles(scores, scores[:, None], predicted, np.full(len(scores), 12), (), hashes, ids)


def stored(detector: Detector, files: ScoredFiles, method: Method = "pac") -> Calibration:
    """What a machine that serves reads back."""
    made = calibrate(detector, files, ALPHA, 1 - DELTA, method, per_class=True)
    return Calibration.model_validate_json(made.model_dump_json())


def rates(calibration: Calibration) -> FloatArray:
    """The share of each class's images that decide flags."""
    scores = (STARTS[:, None] + GRID).ravel()
    predicted = np.repeat(np.arange(SHARES.size), GRID.size)
    return np.asarray(DecisionRule.of(calibration).decide(scores, predicted).is_ood.reshape(SHARES.size, -1).mean(1))


@simulated(100, 2000)
def test_pac_promises_by_class_hold_at_once_in_what_is_served(detector: Detector, draws: int) -> None:
    generator = np.random.default_rng(20261124)
    broken = without = mixed = 0
    for _ in range(draws):
        calibration = stored(detector, draw(generator, N))
        assert calibration.per_class is not None
        own, found = calibration.per_class.thresholds, rates(calibration)
        assert all(entry.bound <= ALPHA for entry in own)
        lost = any(found[entry.predicted] > entry.bound for entry in own)
        broken += lost or float(SHARES @ found) > calibration.per_class.overall_bound
        mixed += 0 < len(own) < SHARES.size
        shared = calibration.model_copy(update={"per_class": None})
        without += any(rates(shared)[entry.predicted] > entry.bound for entry in own)
    assert at_most(broken, draws, DELTA)
    assert mixed == draws  # the hard case: some classes have their own threshold and some not
    assert without == draws  # one threshold for all breaks what is promised to classes, so the test can fail


def test_stored_thresholds_decide_as_the_fitted_ones(detector: Detector, subtests: pytest.Subtests) -> None:
    for method, n in itertools.product(["pac", "conformal"], [120, 3000]):
        with subtests.test(method=method, n=n):
            generator = np.random.default_rng(n)
            files, fresh = draw(generator, n), draw(generator, 500)
            fitted = fit_per_class(files.scores, files.predicted, SHARES.size, ALPHA, 1 - DELTA, method)
            calibration = stored(detector, files, method)
            decisions = DecisionRule.of(calibration).decide(fresh.scores, fresh.predicted)
            np.testing.assert_array_equal(decisions.is_ood, fresh.scores > fitted.values[fresh.predicted])
            np.testing.assert_array_equal(decisions.thresholds, fitted.values[fresh.predicted])
            assert calibration.delta == fitted.delta
            assert calibration.per_class is not None
            assert calibration.per_class.overall_bound == fitted.overall_bound
            assert [entry.predicted for entry in calibration.per_class.thresholds] == [
                k for k, own in enumerate(fitted.own) if own is not None
            ]
            if method == "conformal":  # there the verdict is the p-value at alpha, in the class and among all alike
                np.testing.assert_array_equal(decisions.is_ood, decisions.p_values <= ALPHA)


def test_the_overall_threshold_is_fitted_at_the_shared_confidence(detector: Detector) -> None:
    files = draw(np.random.default_rng(5), N)
    fitted = fit_per_class(files.scores, files.predicted, SHARES.size, ALPHA, 1 - DELTA, "pac")
    calibration = stored(detector, files)
    assert (calibration.threshold, calibration.allowed_above) == (fitted.overall.value, fitted.overall.allowed_above)


def test_unusable_calibration_scores_are_a_calibration_error(detector: Detector) -> None:
    broken = draw(np.random.default_rng(5), N)
    broken.scores[0] = np.nan
    cases = [(draw(np.random.default_rng(5), 0), "0 given"), (broken, "1 of 700 calibration scores are not finite")]
    assert_refused(CalibrationError, cases, partial(stored, detector))


def promised(counts: list[int], method: Method = "pac") -> str:
    classes = np.repeat(np.arange(len(counts)), counts)
    fitted = fit_per_class(np.arange(float(classes.size)), classes, len(counts), ALPHA, 1 - DELTA, method)
    return guarantee_per_class(fitted, [f"c{k}" for k in range(len(counts))])


def test_the_guarantee_names_what_each_class_and_all_together_are_promised() -> None:
    every = promised([200, 200])
    assert every.startswith("With 90.0% confidence for all of this at once, at most ")
    assert "any of the 2 predicted classes" in every
    assert every.endswith("and so of all together.")
    some = promised([200, 200, 10])
    assert "of each predicted class with its own threshold (2 of 3) are flagged" in some
    assert some.endswith("nothing by themselves: c2 (10 of 72).")
    bounds = [float(word[:-1]) for word in some.split() if word[0].isdigit() and word.endswith("%")]
    assert ALPHA < bounds[2] / 100 <= 2 * ALPHA  # what holds over all is said, and it is more than was asked for
    none = promised([60, 60])
    assert none.startswith(
        "With 90.0% confidence for all of this at once, at most 4.28% of in-distribution images are "
    )
    assert none.endswith("c0 (60 of 67), c1 (60 of 67).")
    assert promised([200, 200], "conformal").startswith("On average over calibration sets, at most ")
    assert f"{20 - MOST_NAMED} more." in promised([200] + [1] * 20)


def test_too_few_images_and_a_method_without_promises_are_refused_before_any_is_scored(detector: Detector) -> None:
    with pytest.raises(CalibrationError, match=r"shared by 10 classes: at least 106 are needed"):
        calibrate_files(detector, [], 0.05, 0.95, "pac", per_class=True)
    with pytest.raises(UsageError, match="'quantile' has none"):
        calibrate_files(detector, [], 0.05, 0.95, "quantile", per_class=True)
