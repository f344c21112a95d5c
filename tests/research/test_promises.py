"""The simulated deployments on stored scores, few of them: every promise is kept."""

import json

import numpy as np
import pytest
from scipy.stats import binomtest

from research import promises
from research.deployments import SCORES


def test_every_promise_is_kept() -> None:
    stored = json.loads(SCORES.read_text())
    ind, ood = np.array(stored["ind"]), np.array(stored["ood"])
    found = promises.simulate(ind, ood, 500, 400)
    for promise, broken in found.items():
        assert binomtest(broken, 400, promises.DELTA, alternative="greater").pvalue > 1e-3, promise
    for promise in ("global", "band"):  # exact, so that they are not kept by being wide
        assert binomtest(found[promise], 400, promises.DELTA).pvalue > 1e-3, promise


def test_bounds_of_others_stand_beside_ours() -> None:
    (row,) = promises.compare({"30": 0.08}, 1000)
    assert (row["above"], row["nonconform"]) == (30, 0.08)
    assert row["diffood"] == pytest.approx(0.05, rel=0.02)
