"""Group averages weigh sets alike, name the worst and refuse sets without a group."""

import numpy as np
import pytest

from diffood.calibration.groups import Group, group_metrics
from diffood.calibration.metrics import set_metrics
from diffood.errors import UsageError

IND = np.arange(100.0)
SETS = {
    "cats": set_metrics(IND, np.arange(40.0, 140.0), 95.0),
    "noise": set_metrics(IND, np.arange(200.0, 210.0), 95.0),
    "dogs": set_metrics(IND, np.arange(70.0, 110.0, 10.0), 95.0),
}
GROUPS: dict[str, Group] = {"dogs": "near", "noise": "far", "cats": "near"}


def test_means_weigh_sets_alike_and_the_worst_are_named() -> None:
    found = group_metrics(SETS, GROUPS)
    assert list(found) == ["near", "far"]
    near = found["near"]
    assert near.sets == ("cats", "dogs")
    for name in ("auroc", "aupr_in", "aupr_out", "fpr_at_95_detection", "missed_at_95_kept", "detection_rate"):
        assert getattr(near, name) == pytest.approx((getattr(SETS["cats"], name) + getattr(SETS["dogs"], name)) / 2)
        assert getattr(found["far"], name) == getattr(SETS["noise"], name)
    assert near.lowest_auroc == ("cats", SETS["cats"].auroc)
    assert near.highest_fpr == ("cats", SETS["cats"].fpr_at_95_detection)
    assert found["far"].lowest_auroc == ("noise", 1.0)


def test_a_group_without_sets_is_left_out() -> None:
    assert list(group_metrics({"noise": SETS["noise"]}, {"noise": "far"})) == ["far"]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"cats": "near", "dogs": "near"}, "No group for the sets noise"),
        ({**GROUPS, "fish": "far"}, "not evaluated: fish"),
        ({**GROUPS, "cats": "middle"}, "cats as 'middle'"),
    ],
)
def test_groups_that_do_not_fit_are_refused(groups: dict[str, Group], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        group_metrics(SETS, groups)
