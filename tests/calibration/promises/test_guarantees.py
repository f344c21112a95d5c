"""What a threshold promises, in sentences, to the last digit and word."""

import numpy as np

from diffood.calibration.promises.guarantees import guarantee, guarantee_per_class
from diffood.calibration.promises.per_class import fit_per_class
from diffood.calibration.promises.thresholds import Method, fit_threshold

SENTENCES: dict[Method, str] = {
    "pac": "With 90.0% confidence, at most 4.59% of in-distribution images like these 200 are flagged (asked for: "
    "5.00%).",
    "conformal": "On average over calibration sets of 200 images, 4.98% of in-distribution images are flagged (asked "
    "for: 5.00%); this one threshold may do worse.",
    "quantile": "5.00% of the 200 calibration images lie above; this guarantees nothing for others.",
}


def test_one_threshold_says_what_it_promises_and_of_how_many_images() -> None:
    for method, sentence in SENTENCES.items():
        assert guarantee(fit_threshold(np.arange(200.0), 0.05, 0.9, method)) == sentence, method


def test_at_most_twelve_classes_without_a_threshold_are_named() -> None:
    for scarce, named, others in [(1, 1, []), (12, 12, []), (13, 12, ["1 more"]), (24, 12, ["12 more"])]:
        classes = np.repeat(np.arange(scarce + 1), [300] + [1] * scarce)
        fitted = fit_per_class(np.arange(float(classes.size)), classes, scarce + 1, 0.05, 0.9, "conformal")
        sentence = guarantee_per_class(fitted, [f"c{k}" for k in range(scarce + 1)])
        listed = sentence.rpartition(": ")[2].rstrip(".").split(", ")
        assert listed == [*(f"c{k} (1 of 19)" for k in range(1, named + 1)), *others], scarce
