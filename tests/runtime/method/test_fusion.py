"""The fusion as read: how witnesses are combined, what the record's hash is over, and the bank's way to a file."""

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydantic import ValidationError
from scipy.stats import norm, yeojohnson

from diffood.errors import BundleError
from diffood.runtime.assembly.recipe import list_stages
from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.bundle.fusion import (
    BankEntry,
    Fusion,
    FusionRecord,
    StageRule,
    load_fusion,
    pack_bank,
    save_bank,
    unpack_bank,
)
from diffood.runtime.judge import FusionJudge
from diffood.runtime.method.fusion import FittedWitness, bend, combine, fuse
from diffood.runtime.method.plan import PLAIN, Combination, Plan
from diffood.runtime.method.witnesses.definition import Evidence
from diffood.runtime.method.witnesses.margin import margin

Float = npt.NDArray[np.float64]

BOTH: tuple[Combination, ...] = ("sum", "tail")
PLAN = Plan(start_times=(100,), stride=50, repeats=1, guidance=0.0, witnesses=("jump", "margin"))
BANK = BankEntry(file="bank.0123456789ab.npz", sha256="0" * 64, size=1000)
RECORD = FusionRecord(
    combine="tail",
    witnesses=(
        FittedWitness(name="jump", center=0.25, scale=0.125, weight=0.75),
        FittedWitness(name="margin", center=0.5, scale=2.0, power=0.5, center_bent=0.125, scale_bent=0.75, weight=0.25),
    ),
    n=40,
    bank=BANK,
)


def fields(record: FusionRecord = RECORD) -> dict[str, Any]:
    return dict(json.loads(record.model_dump_json()))


# --- the record --------------------------------------------------------------------------------------------------


@given(arrays(np.float64, (7, 2), elements=st.floats(-100, 100)))
def test_values_are_counted_in_deviations_above_the_usual(values: Float) -> None:
    straight, bent = RECORD.witnesses
    assert straight.standardised(values[:, 0]) == pytest.approx((values[:, 0] - 0.25) / 0.125)
    expected = (yeojohnson((values[:, 1] - 0.5) / 2, 0.5) - 0.125) / 0.75
    assert bent.standardised(values[:, 1]) == pytest.approx(expected)
    z = np.stack([straight.standardised(values[:, 0]), bent.standardised(values[:, 1])], axis=1)
    assert RECORD.score(values) == pytest.approx(combine(z, np.array([0.75, 0.25]), "tail"))
    assert float(RECORD.score(values[0])) == pytest.approx(float(RECORD.score(values)[0]))


@given(
    arrays(np.float64, 20, elements=st.floats(-1e3, 1e3)),
    st.floats(0, 2).filter(lambda power: min(abs(power), abs(power - 2)) > 1e-6),
)
def test_bending_is_scipys_transformation_and_keeps_the_order(values: Float, power: float) -> None:
    assert bend(values, power) == pytest.approx(yeojohnson(values, power), rel=1e-9, abs=1e-12)
    assert np.all(np.diff(bend(np.sort(values), power)) >= 0)


def test_what_is_not_finite_is_not_bounded_by_any_power(subtests: pytest.Subtests) -> None:
    for how, power, bad in itertools.product(BOTH, [0.0, 1e-9, 0.5, 1.0, 1.5, 2.0], [math.inf, -math.inf, math.nan]):
        with subtests.test(how=how, power=power, bad=bad):
            assert not np.isfinite(bend(np.array([bad]), power)).any()
            witness = FittedWitness(name="energy", center=0.5, scale=0.25, power=power, weight=1)
            assert np.isnan(fuse([witness], how, np.array([bad])))


def test_bending_is_right_where_its_formula_changes(subtests: pytest.Subtests) -> None:
    for power in [0.0, 1.0, 2.0]:
        with subtests.test(power=power):
            values = np.array([-7.0, -0.5, 0.0, 0.25, 90.0])
            assert bend(values, power) == pytest.approx(yeojohnson(values, power))
            assert bend(values, 1.0) == pytest.approx(values)


def places(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where every single value of parsed JSON is."""
    if isinstance(content, dict):
        return [place for key, inner in content.items() for place in places(inner, (*path, key))]
    if isinstance(content, list):
        return [place for index, inner in enumerate(content) for place in places(inner, (*path, index))]
    return [path]


OTHER = {"combine": "sum", "name": "msp", "file": "bank.npz", "sha256": "1" * 64}


def test_the_hash_of_a_record_is_over_every_field(subtests: pytest.Subtests) -> None:
    for path in places(fields()):
        with subtests.test(path=path):
            content = fields()
            inner: Any = content
            for key in path[:-1]:
                inner = inner[key]
            value = inner[path[-1]]
            if path == ("witnesses", 1, "name"):  # no other needs the bank
                content["bank"] = None
            inner[path[-1]] = OTHER.get(path[-1]) or (
                value + 1 if isinstance(value, int) else float(np.nextafter(value, 9))
            )
            changed = FusionRecord.model_validate_json(json.dumps(content))
            assert changed != RECORD
            assert changed.sha256 != RECORD.sha256


def test_the_hash_tells_the_order_of_the_witnesses() -> None:
    assert RECORD.model_copy(update={"witnesses": RECORD.witnesses[::-1]}).sha256 != RECORD.sha256


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(min_value=0, exclude_min=True, allow_infinity=False))
def test_a_record_comes_back_from_json_with_the_same_hash(center: float, scale: float) -> None:
    witness = FittedWitness(name="energy", center=center, scale=scale, weight=1.0)
    record = FusionRecord(combine="sum", witnesses=(witness,), n=20)
    again = FusionRecord.model_validate_json(record.model_dump_json())
    assert (again, again.sha256) == (record, record.sha256)


def test_a_record_that_does_not_hold_is_refused(subtests: pytest.Subtests) -> None:
    for change, where in [
        ({"combine": "max"}, "combine"),
        ({"witnesses": []}, "witnesses"),
        ({"witnesses": [{"name": "colour", "center": 0, "scale": 1, "weight": 1}], "bank": None}, "witnesses.0.name"),
        (
            {"witnesses": [{"name": "jump", "center": 0, "scale": 1, "weight": 1}]},
            "a bank goes with margin, inside, snapshot and with no other witness",
        ),
        (
            {"witnesses": [{**RECORD.witnesses[1].model_dump(), "weight": 0.9}]},
            "the weights of the witnesses are not 1 together",
        ),
        ({"witnesses": [{**RECORD.witnesses[1].model_dump(), "power": 2.1}]}, "witnesses.0.power"),
        ({"witnesses": [{**RECORD.witnesses[1].model_dump(), "weight": -0.1}]}, "witnesses.0.weight"),
        ({"bank": None}, "a bank goes with margin, inside, snapshot and with no other witness"),
        ({"n": 1}, "n"),
        ({"n": 20.5}, "n"),
        ({"note": "x"}, "note"),
        ({"bank": {**BANK.model_dump(), "size": 2**40}}, "bank.size"),
        ({"bank": {**BANK.model_dump(), "sha256": "xyz"}}, "bank.sha256"),
    ]:
        with subtests.test(change=change, where=where):
            with pytest.raises(ValidationError) as caught:
                FusionRecord.model_validate_json(json.dumps({**fields(), **change}))
            problem = caught.value.errors()[0]
            found = ".".join(map(str, problem["loc"])) or problem["msg"].removeprefix("Value error, ")
            assert found == where


def test_what_a_plan_combines_otherwise_is_named() -> None:
    assert RECORD.mismatch(PLAN) == ""
    alone = PLAN.changed({"witnesses": ("jump",)})
    assert RECORD.mismatch(alone) == "The fusion combines jump, margin by tail, the plan jump by tail"
    assert RECORD.mismatch(PLAN.changed({"combine": "sum"})).endswith("the plan jump, margin by sum")
    staged = PLAN.changed({"repeats": 2, "stages": (1,)})
    assert RECORD.mismatch(staged).endswith("jump, margin by tail, the plan jump, margin by tail in stages [1]")


def staged_record(**changes: Any) -> FusionRecord:
    """Of energy, measured without a repeat, and jump, that needs one; a rule after none and after one."""
    energy = FittedWitness(name="energy", center=0.0, scale=1.0, weight=1.0)
    jump = FittedWitness(name="jump", center=0.0, scale=1.0, weight=0.5)
    both = (jump, energy.model_copy(update={"weight": 0.5}))
    rules = (
        StageRule(repeats=0, witnesses=(energy,), low=-1.0, high=2.0),
        StageRule(repeats=1, witnesses=both, low=None, high=None),
    )
    return FusionRecord(**{"combine": "sum", "witnesses": both, "n": 20, "stages": rules} | changes)


def test_a_clear_score_ends_at_its_stage_and_one_at_a_limit_as_documented() -> None:
    rule = StageRule(repeats=0, witnesses=staged_record().witnesses, low=-1.0, high=2.0)
    ends = {-1.5: True, -1.0: True, -0.5: False, 2.0: False, 2.5: True, math.nan: False}
    assert {score: rule.ends(score) for score in ends} == ends
    low, high = rule.model_copy(update={"high": None}), rule.model_copy(update={"low": None})
    assert [low.ends(score) for score in (-1.5, 2.5)] == [True, False]
    assert [high.ends(score) for score in (-1.5, 2.5)] == [False, True]


def evidence_of(logits: npt.NDArray[np.float32], features: npt.NDArray[np.float32], *jumps: float) -> Evidence:
    """That of one image, [1, ...], with one start time and a repeat for each jump."""
    denoised = np.zeros((1, 1, 4, 4), np.float32) if jumps else None
    distances = {"jump": np.array(jumps, np.float32)[None, :, None]} if jumps else {}
    pixels = np.zeros((1, 1, 4, 4), np.uint8)
    return Evidence(pixels, logits[None], features[None], np.array([True]), len(jumps), distances, denoised)


def test_a_score_is_by_the_rule_of_the_stage() -> None:
    plan = PLAIN.changed({"witnesses": ("jump", "energy"), "combine": "sum", "stages": (0, 1)})
    judge, stages = FusionJudge(plan, Fusion(staged_record())), list_stages(plan)
    logits, energy = np.zeros(3, np.float32), -math.log(3)
    for stage, jumps, values, score, ends in (
        (stages[0], [], [math.nan, energy], energy, True),
        (stages[1], [4.0], [4.0, energy], (4 + energy) / 2, False),
        (stages[2], [4.0, 6.0], [5.0, energy], (5 + energy) / 2, False),
    ):
        found = judge(stage, evidence_of(logits, logits, *jumps))
        np.testing.assert_allclose(found.witnesses, [values], rtol=1e-6)
        assert found.scores.tolist() == pytest.approx([score]), stage
        assert found.ends.tolist() == [ends], stage


def test_a_stage_combines_what_can_be_measured_there() -> None:
    rules = staged_record().stages
    for stages in ((rules[0].model_copy(update={"repeats": 1}),), (rules[1].model_copy(update={"repeats": 0}),)):
        with pytest.raises(ValidationError, match="combines other witnesses than can be measured"):
            staged_record(stages=stages)
    light = rules[0].witnesses[0].model_copy(update={"weight": 0.5})
    with pytest.raises(ValidationError, match="not 1 together"):
        staged_record(stages=(rules[0].model_copy(update={"witnesses": (light,)}),))


# --- the bank ----------------------------------------------------------------------------------------------------


def rows(count: int, width: int, seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)


def some_bank(width: int, classes: int = 3, axes: int = 2) -> dict[str, dict[str, npt.NDArray[np.float32]]]:
    inside = {"means": rows(classes, width), "axes": rows(width, axes), "centres": rows(classes, axes)}
    inside |= {"precisions": np.ones(axes, np.float32), "across": np.array(2, np.float32)}
    return {"margin": {"mean": rows(1, width)[0]}, "inside": inside}


@given(st.integers(1, 300), st.integers(1, 12), st.integers(1, 40))
def test_a_bank_comes_back_as_it_was(width: int, classes: int, axes: int) -> None:
    bank = some_bank(width, classes, axes)
    entry, data = pack_bank(bank)
    found = unpack_bank(data, entry.file, ("jump", "margin", "inside"))
    assert {name: set(arrays) for name, arrays in found.items()} == {name: set(arrays) for name, arrays in bank.items()}
    assert all(np.array_equal(found[name][array], bank[name][array]) for name in bank for array in bank[name])
    again, same = pack_bank(bank)
    assert (again, same) == (entry, data)  # its name is its hash: the same arrays make the same file
    assert entry.size == len(data)


def test_what_is_no_bank_is_refused(subtests: pytest.Subtests) -> None:
    whole = some_bank(4)
    for array, values in [
        ("means", np.zeros((0, 4), np.float32)),
        ("means", np.zeros(4, np.float32)),
        ("means", np.zeros((3, 5), np.float32)),
        ("means", np.zeros((3, 4), np.float64)),
        ("centres", np.zeros((2, 2), np.float32)),
        ("axes", np.full((4, 2), np.nan, np.float32)),
        ("precisions", np.array([1, np.inf], np.float32)),
        ("across", np.ones(1, np.float32)),
    ]:
        with subtests.test(array=array, values=values):
            data = pack_bank({**whole, "inside": {**whole["inside"], array: values}})[1]
            with pytest.raises(BundleError, match=r"bank needs finite float32 arrays inside.means \[K, D\], .* again"):
                unpack_bank(data, "bank", ("inside",))
            assert unpack_bank(data, "bank", ("margin",)).keys() == {"margin"}
    with pytest.raises(BundleError, match=r"bank needs finite float32 arrays margin.mean \[D\]; calibrate again"):
        unpack_bank(pack_bank({"inside": whole["inside"]})[1], "bank", ("margin",))


def test_a_saved_bank_is_what_the_fusion_measures_with(small_bundle_copy: Path) -> None:
    bundle = open_bundle(small_bundle_copy)
    entry, data = pack_bank({"margin": {"mean": rows(1, bundle.manifest.feature_count)[0]}})
    record = RECORD.model_copy(update={"bank": entry})
    save_bank(bundle, entry, data)
    fusion = load_fusion(bundle, record)
    assert fusion.bank is not None
    asked, logits = rows(1, bundle.manifest.feature_count, 3)[0], np.array([3, 1, -2], np.float32)
    plan = PLAIN.changed({"witnesses": ("jump", "margin"), "combine": "tail", "repeats": 1})
    (stage,) = list_stages(plan)
    found = FusionJudge(plan, fusion)(stage, evidence_of(logits, asked, 0.75))
    assert found.witnesses.tolist() == [[0.75, margin(fusion.bank["margin"], asked, logits)]]
    z = [(0.75 - 0.25) / 0.125, (yeojohnson((found.witnesses[0, 1] - 0.5) / 2, 0.5) - 0.125) / 0.75]
    assert found.scores.tolist() == pytest.approx([-np.log(norm.sf(z)) @ [0.75, 0.25]])
