"""Rates and probabilities as text."""

import math

from diffood.calibration.metrics.formatting import counted, exact_percent, percent, points, probability, ratio


def test_numbers_as_text() -> None:
    cases = [
        (counted(1, "image"), "1 image"),
        (counted(0, "image"), "0 images"),
        (percent(0.0), "0.0%"),
        (percent(1.0), "100.0%"),
        (percent(0.0004), "below 0.1%"),  # never rounded to none
        (percent(0.9996), "above 99.9%"),  # never rounded to all
        (percent(0.125), "12.5%"),
        (percent(0.99999, 2), "above 99.99%"),
        (exact_percent(0.05), "5%"),
        (exact_percent(0.0001), "0.01%"),
        (points(0.0012), "+0.12"),
        (points(-0.01), "-1.00"),
        (ratio(1.234), "1.23"),
        (ratio(math.inf), "unbounded"),
        (probability(0.0004), "below 0.001"),
        (probability(0.0126), "0.013"),
    ]
    for text, expected in cases:
        assert text == expected
