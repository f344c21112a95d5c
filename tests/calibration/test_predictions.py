"""Whether a classifier was fed what it was trained on, told from what it says of calibration images."""

import numpy as np
import pytest

from diffood.calibration.predictions import CHECK_EVERY, LogitCheck, count_predictions
from diffood.cli.text.predictions import describe_predictions
from diffood.errors import CalibrationError
from diffood.runtime.method.variation import FEWEST, LogitVariation

NAMES = tuple("abcdefghij")
SPREAD = np.linspace(-8, 6, 10)  # of the mean logits of classes


def logits(deviation: float, count: int = 200) -> np.ndarray:
    return (SPREAD + deviation * np.random.default_rng(0).standard_normal((count, 10))).astype(np.float32)


def variation_of(rows: np.ndarray) -> LogitVariation:
    found = LogitVariation()
    for row in rows:
        found.add(row)
    return found


def test_the_share_is_that_of_a_direct_computation() -> None:
    rows = logits(2.0)
    centred = rows - rows.mean(1, keepdims=True)
    within, between = centred.var(0).mean(), centred.mean(0).var()
    assert variation_of(rows).share == pytest.approx(np.sqrt(within / (within + between)), rel=1e-6)
    assert variation_of(rows + 100).share == pytest.approx(variation_of(rows).share, rel=1e-4)  # a shift says nothing


def test_a_classifier_to_which_images_make_no_difference_is_refused() -> None:
    for deviation, constant, little in ((3.0, False, False), (0.1, False, True), (0.005, True, True), (0, True, True)):
        found = variation_of(logits(deviation))
        assert (found.constant, found.little) == (constant, little), deviation
    check = LogitCheck()
    with pytest.raises(CalibrationError, match=r"same logits for all of the first 16 images: .*pixels in 0..1"):
        for row in logits(0.005):
            check.see(row)
    assert check.variation.count == CHECK_EVERY  # not after all of them
    few = variation_of(logits(0.0, FEWEST - 1))
    assert not few.constant


def predictions(counts: dict[int, int], ids: list[str] | None = None, deviation: float = 3.0) -> list[str]:
    predicted = np.repeat(list(counts), list(counts.values())).astype(np.int64)
    ids = ids or [f"{index}.png" for index in range(len(predicted))]
    return count_predictions(predicted, ids, NAMES, variation_of(logits(deviation))).warnings()


def test_predictions_that_look_wrong_are_told() -> None:
    spread = dict.fromkeys(range(10), 20)
    right = [f"{NAMES[k]}/{n}.png" for k in range(10) for n in range(20)]
    turned = [f"{NAMES[9 - k]}/{n}.png" for k in range(10) for n in range(20)]
    for given, said in (
        (predictions(spread), None),
        (predictions(spread, right), None),
        (predictions(spread, turned), "0 of 200 images are predicted as the class their folder is named like"),
        (predictions({3: 95, 4: 5}), "95 of 100 images are predicted as 'd'"),
        (predictions({3: 40, 4: 40, 5: 40}), "only 3 of 10 classes are predicted on 120 images"),
        (predictions({3: 20, 4: 20, 5: 20}), None),  # too few to say
        (predictions({3: 100}, [f"d/{n}.png" for n in range(100)]), None),  # a set of one class
        (predictions(spread, deviation=0.1), "logits differ between images by only"),
    ):
        assert len(given) == (said is not None), (given, said)
        assert said is None or said in given[0]


def test_counts_and_accuracy_are_printed() -> None:
    ids = [*(f"a/{n}.png" for n in range(3)), "b/0.png", "elsewhere/0.png"]
    found = count_predictions(np.array([0, 0, 1, 1, 1]), ids, NAMES, variation_of(logits(3.0)))
    assert describe_predictions(found) == [
        "predicted   2 of 10 classes: b 3, a 2",
        "accuracy    75.0% of the 4 images in folders named like their class",
    ]
    assert found.as_json()["by_class"] == [2, 3, *[0] * 8]
    assert describe_predictions(count_predictions(np.arange(10), ["x"] * 10, NAMES, variation_of(logits(1.0)))) == [
        "predicted   10 of 10 classes: " + ", ".join(f"{name} 1" for name in NAMES)
    ]
