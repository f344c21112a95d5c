"""What a calibration promises at its own thresholds and at others that are chosen when serving."""

import numpy as np
import pytest
from made_up import calibration_of
from scipy.special import betainccinv

from diffood.calibration.promises.per_class import fit_per_class
from diffood.calibration.promises.thresholds import fit_threshold
from diffood.errors import CalibrationError, UsageError
from diffood.runtime.bundle.calibration import Calibration, ClassThreshold, ClassThresholds
from diffood.runtime.certificate import ThresholdChoice, certify, thresholds_of
from diffood.runtime.decision import DecisionRule
from diffood.runtime.method.simultaneous import simultaneous_band

NAMES = ("shirt", "boot")


def pac_calibration(n: int = 200) -> Calibration:
    scores = np.arange(n, dtype=float)
    fitted = fit_threshold(scores, 0.05, 0.95, "pac")
    changes = {"method": "pac", "alpha": 0.05, "delta": 0.05, "allowed_above": fitted.allowed_above}
    return calibration_of(scores.tolist(), fitted.value, **changes)


def by_class() -> Calibration:
    """Of 300 shirts and 20 boots, which are too few for a threshold of their own."""
    scores = np.arange(320, dtype=float)
    classes = np.where(np.arange(320) % 16 == 0, 1, 0)
    fitted = fit_per_class(scores, classes, 2, 0.05, 0.95, "pac")
    own = fitted.own[0]
    assert own is not None
    assert fitted.own[1] is None
    return calibration_of(
        scores.tolist(),
        fitted.overall.value,
        method="pac",
        alpha=0.05,
        delta=0.05,
        allowed_above=fitted.overall.allowed_above,
        per_class=ClassThresholds(
            needed=fitted.needed,
            overall_bound=fitted.overall_bound,
            thresholds=(
                ClassThreshold(
                    predicted=0, threshold=own.value, n=own.n, allowed_above=own.allowed_above, bound=own.bound
                ),
            ),
            classes=classes.tolist(),
        ),
    )


def test_without_a_choice_it_is_the_calibration() -> None:
    calibration = pac_calibration()
    found = certify(calibration, ThresholdChoice(), NAMES)
    m = calibration.allowed_above
    assert (found.kind, found.statement, found.threshold) == ("pac", calibration.guarantee, calibration.threshold)
    assert (found.fpr, found.confidence, found.n, found.above) == (0.05, 0.95, 200, m)
    assert found.bound == pytest.approx(betainccinv(m + 1, 200 - m, 0.05))


def test_a_threshold_or_a_rate_is_bounded_for_every_threshold_at_once(subtests: pytest.Subtests) -> None:
    calibration, band = pac_calibration(), simultaneous_band(200, 0.05)
    for choice, threshold, above in [
        (ThresholdChoice(threshold=150.0), 150.0, 49),
        (ThresholdChoice(threshold=150.5), 150.5, 49),
        (ThresholdChoice(threshold=-1.0), -1.0, 200),
        (ThresholdChoice(threshold=1e9), 1e9, 0),
        (ThresholdChoice(fpr=0.1), 199.0 - (band.allowed(0.1) or 0), band.allowed(0.1)),
    ]:
        with subtests.test(choice=choice):
            found = certify(calibration, choice, NAMES)
            assert (found.kind, found.threshold, found.above) == ("every threshold", threshold, above)
            assert found.bound == band.bound(found.above)
            assert found.bound <= (choice.fpr or 1)
            assert found.statement.startswith("With 95.0% confidence for every threshold at once, at most ")
            rule = DecisionRule.of(calibration, thresholds_of(calibration, choice, 2))
            decided = rule.decide(np.array([threshold, threshold + 0.01, np.nan]), np.array([0, 1, 0]))
            assert decided.is_ood.tolist() == [False, True, True]
            assert (
                decided.p_values[0]
                == DecisionRule.of(calibration).decide(np.array([threshold]), np.array([0])).p_values
            )


def test_classes_share_the_confidence_and_are_fitted_again() -> None:
    calibration = by_class()
    assert [found.bound for found in certify(calibration, ThresholdChoice(), NAMES).classes] == [
        calibration.per_class.thresholds[0].bound if calibration.per_class else 0
    ]
    found = certify(calibration, ThresholdChoice(fpr=0.1), NAMES)
    own, overall = simultaneous_band(300, 0.05 / 3), simultaneous_band(320, 0.05 / 3)
    m = own.allowed(0.1)
    assert m is not None
    assert [(k.name, k.n, k.bound) for k in found.classes] == [("shirt", 300, own.bound(m))]
    assert found.bound == own.bound(m) + overall.bound(found.above)
    shirts = [score for score in range(320) if score % 16]
    thresholds = thresholds_of(calibration, ThresholdChoice(fpr=0.1), 2)
    assert thresholds.own == {0: shirts[-1 - m]}
    one = certify(calibration, ThresholdChoice(threshold=300.0), NAMES)
    assert one.bound == overall.bound(19)
    assert thresholds_of(calibration, ThresholdChoice(threshold=300.0), 2).own == {}


def test_a_choice_that_cannot_be_kept_is_refused_in_one_line(subtests: pytest.Subtests) -> None:
    for given, expected in [
        ((1.0, 0.05), "--threshold and --fpr both choose a threshold: give one of them"),
        ((float("nan"), None), "--threshold is nan; it must be a finite number"),
        ((None, 0.0), "--fpr is 0.0; it must be a share"),
        ((None, 1.5), "--fpr is 1.5; it must be a share"),
    ]:
        with subtests.test(given=given), pytest.raises(UsageError, match=expected):
            ThresholdChoice(*given)
    with pytest.raises(
        CalibrationError, match="with 200 calibration images no threshold keeps it: the lowest rate"
    ) as refused:
        certify(pac_calibration(), ThresholdChoice(fpr=0.01), NAMES)
    lowest = float(str(refused.value).split(" at once is ")[1].split("%")[0]) / 100
    assert certify(pac_calibration(), ThresholdChoice(fpr=lowest), NAMES).above == 0
