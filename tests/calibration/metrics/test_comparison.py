"""A fusion against its witnesses: the numbers are those of each score alone, the tests those of both together."""

import json

import numpy as np
import numpy.typing as npt
import pytest

from diffood.calibration.metrics.bootstrap import compare_fpr
from diffood.calibration.metrics.comparison import CLEARLY, WitnessComparison, compare_witnesses
from diffood.calibration.metrics.intervals import ScoredSets, mean_auroc_difference
from diffood.calibration.metrics.rates import auroc, fpr_at_95_detection
from diffood.errors import UsageError

FloatArray = npt.NDArray[np.float64]


def column(ind: FloatArray, sets: dict[str, FloatArray], index: int) -> ScoredSets:
    return ScoredSets(ind[:, index], {name: values[:, index] for name, values in sets.items()})


GENERATOR = np.random.default_rng(0)
# Three witnesses [n, 3]: one finds a, one finds b, one nothing; the fusion is their sum.
IND = GENERATOR.normal(size=(200, 3))
SETS = {
    "a": GENERATOR.normal(size=(150, 3)) + np.array([3.0, 0.0, 0.0]),
    "b": GENERATOR.normal(size=(100, 3)) + np.array([0.0, 2.5, 0.0]),
}
FUSED = ScoredSets(IND.sum(axis=1), {name: values.sum(axis=1) for name, values in SETS.items()})
WITNESSES = {name: column(IND, SETS, index) for index, name in enumerate(("of a", "of b", "blind"))}


@pytest.fixture(scope="module")
def compared() -> WitnessComparison:
    """The fusion against all three."""
    return compare_witnesses(FUSED, WITNESSES)


def test_each_witness_has_its_own_numbers_and_the_paired_tests(compared: WitnessComparison) -> None:
    assert list(compared.alone) == list(WITNESSES)
    for name, witness in WITNESSES.items():
        row = compared.alone[name]
        assert row.auroc == {key: auroc(witness.ind, ood) for key, ood in witness.sets.items()}
        assert row.mean_auroc == pytest.approx(np.mean(list(row.auroc.values())))
        rates = [fpr_at_95_detection(witness.ind, ood) for ood in witness.sets.values()]
        assert row.mean_fpr_at_95_detection == pytest.approx(np.mean(rates))
        assert row.difference == mean_auroc_difference(FUSED, witness)
        assert row.fpr == compare_fpr(FUSED, witness)
    assert compared.alone["blind"].difference.low > 0


def test_the_best_is_named_and_where_any_is_ahead(compared: WitnessComparison) -> None:
    assert compared.best == max(compared.alone, key=lambda name: compared.alone[name].mean_auroc)
    assert compared.alone["of a"].ahead.keys() == {"a"}
    assert compared.alone["of b"].ahead.keys() == {"b"}
    assert compared.alone["blind"].ahead == {}
    gain = compared.alone["of a"].auroc["a"] - auroc(FUSED.ind, FUSED.sets["a"])
    assert compared.alone["of a"].ahead["a"] == pytest.approx(gain)
    assert gain > CLEARLY


def test_a_scale_of_a_witness_changes_nothing() -> None:
    wide = ScoredSets(5 + 100 * IND[:, 0], {name: 5 + 100 * values[:, 0] for name, values in SETS.items()})
    assert (
        compare_witnesses(FUSED, {"of a": wide}).alone["of a"]
        == compare_witnesses(FUSED, {"of a": WITNESSES["of a"]}).alone["of a"]
    )


def test_an_unbounded_ratio_is_null_in_json() -> None:
    """A witness that flags one image: it flags none in a third of the draws, and then no ratio is high enough."""
    ind = np.arange(100.0)
    rare, often = ScoredSets(ind, {"a": np.full(50, 98.5)}), ScoredSets(ind, {"a": np.full(50, 89.5)})
    compared = compare_witnesses(often, {"rare": rare})
    ratio = compared.alone["rare"].fpr.ratio
    assert ratio is not None
    assert ratio.high == np.inf
    content = json.loads(json.dumps(compared.as_json(), allow_nan=False))
    assert content["alone"]["rare"]["fpr"]["ratio"]["high"] is None
    assert content["alone"]["rare"]["fpr"]["ratio"]["value"] == ratio.value


def test_other_images_are_refused() -> None:
    with pytest.raises(UsageError, match="of 200 and 199 images"):
        compare_witnesses(FUSED, {"short": ScoredSets(IND[1:, 0], WITNESSES["of a"].sets)})
