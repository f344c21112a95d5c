"""Simulations in two sizes: few draws in `make test`, many in the slow tier. Bounds are computed from the number."""

from collections.abc import Callable
from typing import Any

import pytest
from scipy.stats import binomtest

DOUBT = 1e-4
"""A simulation counts as against a promise when chance alone would give its result this rarely."""


def simulated(few: int, many: int) -> Callable[[Any], Any]:
    """Run a test with few `draws`, and in the slow tier with many."""
    return pytest.mark.parametrize(
        "draws", [pytest.param(few, id="few draws"), pytest.param(many, id="many draws", marks=pytest.mark.slow)]
    )


def at_most(count: int, draws: int, share: float) -> bool:
    """Whether count of draws fits a probability of at most this share."""
    return bool(binomtest(count, draws, share, alternative="greater").pvalue > DOUBT)


def at_least(count: int, draws: int, share: float) -> bool:
    """Whether count of draws fits a probability of at least this share."""
    return bool(binomtest(count, draws, share, alternative="less").pvalue > DOUBT)


def exactly(count: int, draws: int, share: float) -> bool:
    """Whether count of draws fits a probability of this share."""
    return bool(binomtest(count, draws, share).pvalue > DOUBT)
