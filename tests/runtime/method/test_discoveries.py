"""Selections keep the false discovery rate: equal to scipy's in a batch, by the paper's formula in a stream."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import zeta
from scipy.stats import false_discovery_control, norm

from diffood.runtime.method.discoveries import CANDIDATE, DECAY, SUM, OnlineSelection, select_batch

RANKS = st.lists(st.integers(1, 40), max_size=60)  # conformal p-values have ties


@given(ranks=RANKS, fdr=st.sampled_from([0.01, 0.05, 0.1, 0.3, 0.9]))
def test_a_batch_is_selected_as_by_scipy(ranks: list[int], fdr: float) -> None:
    p_values = np.array(ranks, np.float64) / 40
    adjusted = false_discovery_control(p_values, method="bh") if ranks else p_values
    assert (select_batch(p_values, fdr) == (adjusted <= fdr + 1e-9)).all()


@given(ranks=RANKS, fdr=st.sampled_from([0.05, 0.1, 0.3]))
def test_a_stream_is_selected_by_the_formula_of_the_paper(ranks: list[int], fdr: float) -> None:
    """The sums of Ramdas et al. 2018, section 2.3, written as they stand there, with C_(j+) as counts of candidates."""
    online, p_values, times = OnlineSelection(fdr), [rank / 400 for rank in ranks], list[int]()
    shares = [fdr / 2, fdr / 2, *([fdr] * len(ranks))]
    for now, p_value in enumerate(p_values, 1):
        level = 0.0
        for share, time in zip(shares, [0, *times], strict=False):
            candidates = sum(p <= CANDIDATE for p in p_values[time : now - 1])
            level += share * (now - time - candidates) ** -DECAY / zeta(DECAY)
        level = min(CANDIDATE, (1 - CANDIDATE) * level)
        assert np.isclose(online.level, level, rtol=1e-9)
        if online.select(p_value):
            times.append(now)
    assert 0 <= SUM - zeta(DECAY) < 1e-9


def test_the_share_of_false_selections_is_kept_with_conformal_p_values() -> None:
    """A batch and a stream of 300 images, a tenth of them OOD, 400 draws of 1,000 calibration scores."""
    draw, fdr = np.random.default_rng(0), 0.1
    false: dict[str, list[float]] = {"batch": [], "stream": []}
    found = 0
    for _ in range(400):
        ood = draw.random(300) < 0.1
        scores = draw.normal(size=300) + 4 * ood
        p_values = (1 + np.sum(draw.normal(size=1000) >= scores[:, None], axis=1)) / 1001
        online = OnlineSelection(fdr)
        for name, selected in {
            "batch": select_batch(p_values, fdr),
            "stream": np.array([online.select(p) for p in p_values]),
        }.items():
            false[name].append(float(np.sum(selected & ~ood) / max(1, selected.sum())))
            found += int(np.sum(selected & ood))
    for name, shares in false.items():
        highest = np.mean(shares) - norm.isf(0.001) * np.std(shares) / np.sqrt(len(shares))
        assert highest <= fdr, name
    assert found > 400 * 30  # of 60 in the mean, so that the test is not passed by selecting nothing
