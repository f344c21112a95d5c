"""The simulated deployments, few of them: every promise is kept, and a new camera is noticed."""

import json

import numpy as np
import pytest

from research import deployments


@pytest.fixture(scope="module")
def people() -> deployments.Population:
    """The stored scores of the zoo."""
    stored = json.loads(deployments.SCORES.read_text())
    return deployments.Population(np.sort(stored["ind"]), np.array(stored["ood"]))


def test_a_true_certificate_stays_and_a_new_camera_withdraws_it(people: deployments.Population) -> None:
    kept = deployments.false_withdrawals(people, 200, 0.05, 500)
    assert kept["withdrawn_of_true"]["low"] <= deployments.DELTA
    assert kept["calibrations_above_alpha"]["low"] <= deployments.DELTA
    found = deployments.new_camera(people, 100, 2.0, 0.05)
    assert found["mean_rate_after"] > 0.1
    assert found["withdrawn_before_overrun_where_allowed"]["high"] >= 0.99
    assert found["withdrawn_before_overrun_where_allowed"]["of"] > 50


def test_selected_images_are_rarely_in_distribution(people: deployments.Population) -> None:
    for name, found in deployments.false_discoveries(people, 100, 20, 0.1).items():
        assert found["false"] - found["error"] <= 0.1, name
        assert found["found"] > 0, name
