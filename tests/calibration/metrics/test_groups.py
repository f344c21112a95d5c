"""Group averages weigh sets alike, carry the intervals of their means, name the worst, and refuse unknown sets."""

from dataclasses import fields

import numpy as np
import pytest
from refusals import assert_refused

from diffood.calibration.metrics.bootstrap import mean_fpr_interval
from diffood.calibration.metrics.groups import Group, group_metrics, near_and_far
from diffood.calibration.metrics.intervals import Interval, ScoredSets, mean_auroc_interval
from diffood.calibration.metrics.rates import Rates, set_metrics
from diffood.errors import UsageError

SCORED = ScoredSets(
    np.arange(100.0),
    {
        "cats": np.arange(40.0, 140.0),
        "noise": np.arange(200.0, 210.0),
        "dogs": np.arange(70.0, 110.0, 10.0),
        "else": np.arange(60.0, 90.0),
    },
)
SETS = {name: set_metrics(SCORED.ind, scores, 95.0) for name, scores in SCORED.sets.items()}
GROUPS: dict[str, Group] = {"dogs": "near", "noise": "far", "cats": "near"}


def test_means_weight_sets_equally_and_the_worst_sets_are_named() -> None:
    found = near_and_far(SCORED, SETS, GROUPS)
    assert list(found) == ["near", "far"]
    near, far = found["near"], found["far"]
    assert near.sets == ("cats", "dogs")
    for name in (field.name for field in fields(Rates)):
        assert getattr(near.mean, name) == pytest.approx(
            (getattr(SETS["cats"], name) + getattr(SETS["dogs"], name)) / 2
        )
        assert getattr(far.mean, name) == getattr(SETS["noise"], name)
    assert (near.lowest_auroc, near.highest_fpr, far.lowest_auroc) == ("cats", "cats", "noise")


def test_intervals_are_those_of_the_mean_over_the_groups_sets() -> None:
    near = near_and_far(SCORED, SETS, GROUPS)["near"]
    members = ScoredSets(SCORED.ind, {name: SCORED.sets[name] for name in ("cats", "dogs")})
    assert near.auroc == mean_auroc_interval(members)
    assert near.fpr_at_95_detection == mean_fpr_interval(members)
    assert near.auroc.value == pytest.approx(near.mean.auroc)
    assert near.fpr_at_95_detection.value == pytest.approx(near.mean.fpr_at_95_detection)


def test_a_set_of_one_image_has_an_interval_from_0_to_1() -> None:
    scored = ScoredSets(SCORED.ind, {"one": np.array([99.5])})
    found = group_metrics(scored, {"one": set_metrics(scored.ind, scored.sets["one"], 95.0)})
    assert (found.auroc, found.fpr_at_95_detection) == (Interval(1.0, 0.0, 1.0), Interval(0.0, 0.0, 1.0))


def test_a_group_without_sets_and_sets_without_a_group_are_left_out() -> None:
    found = near_and_far(SCORED, SETS, {"noise": "far"})
    assert list(found) == ["far"]
    assert found["far"].sets == ("noise",)


def test_unknown_sets_and_groups_are_refused() -> None:
    cases = [({**GROUPS, "fish": "far"}, "not evaluated: fish"), ({**GROUPS, "cats": "middle"}, "cats as 'middle'")]
    assert_refused(UsageError, cases, lambda groups: near_and_far(SCORED, SETS, groups))
