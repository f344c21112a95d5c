"""Tuning: the front and the choice among plans, scores from a trace, costs in time, and what the bundle records."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up import calibration_of
from rounded_graphs import add_rounded_graphs

from diffood.calibration.calibrate import calibrate_files
from diffood.calibration.fusing.split import digest
from diffood.calibration.metrics.intervals import Interval, ScoredSets, mean_auroc_interval
from diffood.calibration.parity.gate import Run, judge
from diffood.calibration.request import EngineRequest
from diffood.calibration.scored_files import IND
from diffood.calibration.tune import Tuned, TuneRequest, tune_bundle
from diffood.calibration.tuning.candidates import PlanCandidate, measure_candidates
from diffood.calibration.tuning.choice import AS_CHEAP, ENOUGH, CostLimit, as_good, choose, pareto_front
from diffood.calibration.tuning.images import FIT, TuningImages, gather_images
from diffood.calibration.tuning.timing import EngineOption, LatencyModel, fastest_gated, list_engines, time_plan
from diffood.calibration.tuning.trace_values import TraceValues, measure_trace, repeats_of
from diffood.calibration.tuning.traces import full_cost, group_by_trace, list_plans, trace_of
from diffood.errors import CalibrationError, UsageError
from diffood.runtime.bundle.bundle import MANIFEST, TUNING, Bundle, Precision, open_bundle
from diffood.runtime.bundle.calibration import Calibration, load_calibration, save_calibration
from diffood.runtime.bundle.detectors import read_detector
from diffood.runtime.bundle.files import write_record
from diffood.runtime.bundle.parity import ParityLimits, add_record
from diffood.runtime.bundle.tuning import (
    MeasuredPlan,
    TuningMeasurement,
    add_tuned,
    keep_measured,
    load_measured,
    load_tuned,
)
from diffood.runtime.detector import Detector
from diffood.runtime.inputs.open import list_inputs
from diffood.runtime.method.plan import CLASSIFIER, DEFAULT, Plan
from diffood.runtime.method.witnesses.registry import need_bank
from diffood.zoo.images import load_set, unpack_set

BATCH = 16
PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")
CPU = EngineOption("fp32", "onnxruntime-cpu", gated=True)
PICTURES = list(load_set("fashion-test").images[:4, None])
ONE_STEP = DEFAULT.changed({"start_times": (240,), "stride": 240, "guidance": 0.0, "stages": ()})


# --- front and choice --------------------------------------------------------------------------------------------


def candidate(cost: float, level: float, plan: Plan = ONE_STEP) -> PlanCandidate:
    """A plan of this cost whose OOD scores are `level` higher, on made-up scores that share their random numbers."""
    generator = np.random.default_rng(5)
    scored = ScoredSets(generator.normal(size=60), {"far": generator.normal(size=60) + level})
    mean = mean_auroc_interval(scored)
    return PlanCandidate(plan, cost, cost, {"far": mean.value}, mean, scored, None)


points = st.lists(st.tuples(st.integers(1, 8), st.integers(0, 8)), min_size=1, max_size=30)


@given(points)
def test_the_front_has_the_plans_that_none_beats(drawn: list[tuple[int, int]]) -> None:
    scored = ScoredSets(np.arange(2.0), {"far": np.arange(2.0)})
    found = [
        PlanCandidate(ONE_STEP, cost, cost, {"far": level / 8}, Interval(level / 8, 0, 1), scored, None)
        for cost, level in drawn
    ]
    front = pareto_front(found)
    places = [(int(one.cost), round(8 * one.mean.value)) for one in front]
    beaten = {
        (cost, level)
        for cost, level in drawn
        if any(c <= cost and o >= level and (c, o) != (cost, level) for c, o in drawn)
    }
    assert set(places) == set(drawn) - beaten
    assert places == sorted(set(places))
    assert [level for _, level in places] == sorted(level for _, level in places)


@given(st.lists(st.tuples(st.floats(1, 20), st.floats(0, 4)), min_size=1, max_size=8), st.floats(1, 20))
def test_the_choice_is_within_the_limit_and_as_good_as_the_best(drawn: list[tuple[float, float]], most: float) -> None:
    found, limit = [candidate(*point) for point in drawn], CostLimit("evaluations", most)
    within = [one for one in found if one.cost <= most]
    if not within:
        with pytest.raises(UsageError, match=r"No plan costs at most .* the cheapest"):
            choose(found, limit)
        return
    choice = choose(found, limit)
    assert choice.chosen in within
    assert choice.best.mean.value == max(one.mean.value for one in within)
    assert choice.anywhere.mean.value == max(one.mean.value for one in found)
    assert as_good(choice.chosen, choice.best)
    assert not any(as_good(one, choice.best) for one in within if one.cost * (1 + AS_CHEAP) < choice.chosen.cost)
    assert choice.below_best.value >= 0
    assert choice.below_anywhere.value >= choice.below_best.value - 1e-12


def test_a_clearly_better_plan_is_worth_its_cost() -> None:
    poor, fair, best = candidate(1, 0.3), candidate(2, 2.495), candidate(8, 2.5)
    assert best.mean.value - fair.mean.value < ENOUGH
    assert choose([poor, fair, best], CostLimit("evaluations", 100)).chosen is fair
    assert choose([poor, best], CostLimit("evaluations", 100)).chosen is best
    assert choose([poor, fair, best], CostLimit("evaluations", 1)).chosen is poor


def test_a_saving_of_a_few_percent_does_not_decide() -> None:
    cheap, good = candidate(1.99, 1.0), candidate(2.0, 1.01)
    assert choose([cheap, good], CostLimit("evaluations", 4)).chosen is good


# --- plans and traces --------------------------------------------------------------------------------------------


def test_plans_are_grouped_by_the_pass_that_measures_them(small_bundle: Bundle) -> None:
    plans = list_plans(small_bundle)
    groups = group_by_trace(small_bundle, plans)
    assert sorted(map(str, plans)) == sorted(str(plan) for members in groups.values() for plan in members)
    costs = [full_cost(small_bundle, trace) for trace in groups]
    assert costs == sorted(costs)
    for trace, members in groups.items():
        assert not need_bank(trace.witnesses)  # no plan of this bundle looks inside
        for plan in members:
            assert plan.changed({"repeats": 4, "stages": (), "witnesses": trace.witnesses}) == trace
            assert full_cost(small_bundle, plan) <= full_cost(small_bundle, trace)


def test_without_a_null_class_no_plan_is_guided_and_times_scale_with_the_schedule(small_bundle: Bundle) -> None:
    unet = small_bundle.manifest.unet.model_copy(update={"labels": "class"})
    bundle = replace(
        small_bundle,
        manifest=small_bundle.manifest.model_copy(update={"unet": unet}),
        alpha_bar=small_bundle.alpha_bar[::100],
    )
    plans = list_plans(bundle)
    assert {plan.guidance for plan in plans} == {0.0}
    assert {start for plan in plans for start in plan.start_times} == {1, 2, 4, 5}
    assert len(set(plans)) == len(plans)
    assert all(full_cost(bundle, plan) > 0 for plan in plans)


def test_plans_that_look_inside_are_tried_where_the_bundle_has_one(small_bundle: Bundle) -> None:
    plans = list_plans(looking_inside(small_bundle))
    assert not any(need_bank(plan.witnesses) for plan in list_plans(small_bundle))
    looking = [plan for plan in plans if need_bank(plan.witnesses)]
    assert {plan.witnesses for plan in looking} == {LOOKING_INSIDE.witnesses}
    assert {(plan.start_times, plan.stages) for plan in looking} >= {((60,), (0,)), ((60,), ()), ((360,), (0, 1))}
    assert all(plan.of_one_step for plan in looking)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory, clothes_folder: Path, small_bundle: Bundle) -> TuningImages:
    """Eighty clothes in halves, and ten digits."""
    place = tmp_path_factory.mktemp("tuning") / "digits"
    unpack_set("digits", place, 10)
    ood = {"digits": list_inputs([str(place)])}
    return gather_images(list_inputs([str(clothes_folder)]), ood, small_bundle.manifest.image, 80)


PLANS = [
    ONE_STEP.changed({"repeats": 2, "stages": (0, 1)}),
    ONE_STEP.changed({"repeats": 3, "stages": (1,), "witnesses": ("jump",)}),
    ONE_STEP.changed({"repeats": 1, "witnesses": ("jump",)}),
    ONE_STEP.changed({"repeats": 2, "witnesses": ("reconstruction", "energy"), "combine": "sum"}),
]
LOOKING_INSIDE = ONE_STEP.changed({"repeats": 1, "stages": (0,), "witnesses": ("margin", "inside", "snapshot")})


def looking_inside(bundle: Bundle) -> Bundle:
    """The bundle with such a plan."""
    plans = {**bundle.manifest.plans, "inside": LOOKING_INSIDE}
    return replace(bundle, manifest=bundle.manifest.model_copy(update={"plans": plans}))


def test_what_a_trace_knows_of_images_is_that_of_the_plan(small_bundle: Bundle, images: TuningImages) -> None:
    trace = trace_of(small_bundle, LOOKING_INSIDE)
    assert set(LOOKING_INSIDE.witnesses) < set(trace.witnesses)
    measured = measure_trace(Detector.load(small_bundle, trace, batch=BATCH, threads=1), images, {0, 1})
    outcome = measured.outcome(LOOKING_INSIDE)
    detector = Detector.load(small_bundle, LOOKING_INSIDE, batch=BATCH, threads=1, fusion=outcome.fusion)
    found = detector.score_pixels(np.stack(list(images.groups["digits"].read())))
    np.testing.assert_allclose(found.score, outcome.scored.sets["digits"], rtol=1e-3, atol=1e-4)


@pytest.fixture(scope="module")
def traced(small_bundle: Bundle, images: TuningImages) -> TraceValues:
    """The values of PLANS' one trace."""
    (trace,) = {trace_of(small_bundle, plan) for plan in PLANS}
    detector = Detector.load(small_bundle, trace, batch=BATCH, threads=1)
    return measure_trace(detector, images, repeats_of(PLANS))


def test_scores_from_a_trace_equal_those_of_the_plan(
    small_bundle: Bundle, images: TuningImages, traced: TraceValues, subtests: pytest.Subtests
) -> None:
    for plan in PLANS:
        with subtests.test(plan=plan):
            outcome = traced.outcome(plan)
            fusion = outcome.fusion
            assert (fusion is not None) == plan.fused
            detector = Detector.load(small_bundle, plan, batch=BATCH, threads=1, fusion=fusion)
            for name, scores in {IND: outcome.scored.ind, **outcome.scored.sets}.items():
                found = detector.score_pixels(np.stack(list(images.groups[name].read())))
                np.testing.assert_allclose(found.score, scores, rtol=1e-4, atol=1e-5)
                if name == IND:
                    spent = full_cost(small_bundle, plan, 1) * outcome.repeats
                    assert found.evaluations.tolist() == spent.tolist()
            assert FIT not in outcome.scored.sets


def test_ctrl_c_keeps_what_was_measured(small_bundle: Bundle, images: TuningImages) -> None:
    other = [plan.changed({"start_times": (100,)}) for plan in PLANS]
    groups = {trace_of(small_bundle, PLANS[0]): PLANS, trace_of(small_bundle, other[0]): other}
    opened: list[Plan] = []

    def open_trace(trace: Plan) -> Detector:
        opened.append(trace)
        if len(opened) == 2:
            raise KeyboardInterrupt
        return Detector.load(small_bundle, trace, batch=BATCH, threads=1)

    found, interrupted = measure_candidates(small_bundle, groups, images, open_trace, lambda plan, _: 1.0)
    assert interrupted
    assert [one.plan for one in found] == PLANS
    with pytest.raises(KeyboardInterrupt):  # nothing to keep
        opened[:] = opened[:1]
        measure_candidates(small_bundle, groups, images, open_trace, lambda *_: 1.0)


# --- a whole run ------------------------------------------------------------------------------------------------


def tune_on_forty(bundle: Path, folder: Path, most: float) -> Tuned:
    """Within so many UNet evaluations, on forty of the folder's images, with OOD images made of them."""
    engine = EngineRequest(batch=BATCH, threads=1)
    return tune_bundle(TuneRequest(bundle, (str(folder),), CostLimit("evaluations", most), images=40, engine=engine))


@pytest.fixture
def tuned(small_bundle_copy: Path, clothes_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Tuned:
    """What was found among few plans, on forty of eighty clothes, for a copy of the small bundle."""
    monkeypatch.setattr("diffood.calibration.tune.list_plans", lambda _: PLANS)
    monkeypatch.setattr("diffood.calibration.tuning.timing.BATCHES", (2, 4))
    monkeypatch.setattr("diffood.calibration.tuning.timing.FEWEST_TIMED", 8)
    manifest = open_bundle(small_bundle_copy).manifest
    cheap = manifest.model_copy(update={"plans": {"cheap": ONE_STEP}, "default_plan": "cheap"})
    write_record(small_bundle_copy, MANIFEST, cheap)
    return tune_on_forty(small_bundle_copy, clothes_folder, most=2)


def test_the_chosen_plan_becomes_the_default_and_the_images_used_are_recorded(
    tuned: Tuned, small_bundle_copy: Path, clothes_folder: Path, tmp_path: Path
) -> None:
    bundle = open_bundle(small_bundle_copy)
    assert bundle.manifest.default_plan == "tuned"
    assert bundle.plan() == tuned.choice.chosen.plan
    assert bundle.plan("cheap") == ONE_STEP
    assert read_detector(bundle, "fp32").plan == bundle.plan()
    assert not tuned.interrupted
    assert tuned.compared["cheap"].plan == ONE_STEP
    assert {found.plan for found in tuned.candidates} == {*PLANS, ONE_STEP}
    assert tuned.choice.chosen.cost <= 2
    assert json.loads(json.dumps(tuned.as_json()))["chosen"]["plan"] == json.loads(bundle.plan().model_dump_json())

    everything = sorted(digest(source) for source in list_inputs([str(clothes_folder)]))
    assert load_tuned(bundle) == set(everything[:40])
    measured = load_measured(bundle)
    assert measured
    assert (measured.unit, measured.limit, measured.made) == ("UNet evaluations", 2, True)
    assert len(measured.plans) == len(tuned.candidates)
    taken = next(plan for plan in measured.plans if plan.chosen)
    assert (taken.cost, taken.auroc) == (tuned.choice.chosen.cost, tuned.choice.chosen.mean.value)
    assert sum(plan.front for plan in measured.plans) == len(tuned.choice.front)
    detector = Detector.load(bundle, bundle.plan(), batch=BATCH, threads=1)
    with pytest.raises(
        CalibrationError,
        match=r"^40 of these 80 images .* 40 others are left for it, and 59 are needed\. Add at least 19",
    ):
        calibrate_files(detector, list_inputs([str(clothes_folder)]), 0.05, 0.95, "pac")
    unpack_set("fashion-test", tmp_path / "more", 20)
    both = list_inputs([str(clothes_folder), str(tmp_path / "more")])
    done = calibrate_files(detector, both, 0.05, 0.95, "pac")
    assert (done.tuned, done.calibration.n) == (40, 60)
    paths = {source.id: source for source in both}
    assert not load_tuned(bundle) & {digest(paths[identity]) for identity in done.files.ids}


def test_a_limit_below_every_plan_is_refused_before_any_image_is_used(
    small_bundle_copy: Path, clothes_folder: Path
) -> None:
    with pytest.raises(UsageError, match=r"at most 0\.5 UNet evaluations per image; the cheapest there is costs 1\."):
        tune_on_forty(small_bundle_copy, clothes_folder, most=0.5)
    assert not (small_bundle_copy / TUNING).exists()


# --- time --------------------------------------------------------------------------------------------------------


def test_an_image_costs_the_stages_that_it_goes_through(small_bundle: Bundle) -> None:
    """No figure is compared with a clock: a busy machine would fail it."""
    model = LatencyModel(small_bundle, CPU, PICTURES, threads=1)
    whole = {repeats: model.cost(ONE_STEP.changed({"repeats": repeats}), {repeats: 1.0}) for repeats in (1, 2)}
    assert min(whole.values()) > 0
    assert model.cost(ONE_STEP.changed({"repeats": 2}), {1: 1.0}) == whole[2]  # without stages all is one call
    staged = ONE_STEP.changed({"repeats": 3, "stages": (0, 1)})
    at = {repeats: model.cost(staged, {repeats: 1.0}) for repeats in (0, 1, 3)}
    assert at[0] == model.cost(CLASSIFIER, {0: 1.0})
    assert at[1] == at[0] + max(0, whole[1] - at[0])
    assert at[3] == at[1] + max(0, whole[2] - at[0])
    assert model.cost(staged, {0: 0.25, 1: 0.25, 3: 0.5}) == pytest.approx((at[0] + at[1] + 2 * at[3]) / 4)


def test_an_engine_is_timed_at_every_batch_size_and_a_missing_one_has_an_error(
    small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffood.calibration.tuning.timing.BATCHES", (2, 4))
    monkeypatch.setattr("diffood.calibration.tuning.timing.FEWEST_TIMED", 8)
    cheap = ONE_STEP.changed({"repeats": 1, "witnesses": ("reconstruction",)})
    assert list_engines(small_bundle, cheap) == [EngineOption("fp32", "onnxruntime-cpu", gated=False)]
    assert fastest_gated(small_bundle, cheap).precision == "fp32"
    speed = time_plan(small_bundle, cheap, None, CPU, PICTURES, 1)
    assert speed.latency is not None
    assert list(speed.images_per_second) == [2, 4]
    missing = time_plan(small_bundle, cheap, None, EngineOption("int8", "onnxruntime-cpu", gated=False), PICTURES, 1)
    assert missing.latency is None
    assert "has no int8 graphs" in missing.error


def test_the_fastest_engine_is_the_fastest_that_was_judged_to_agree(small_bundle_copy: Path) -> None:
    add_rounded_graphs(small_bundle_copy, "int8")
    bundle = open_bundle(small_bundle_copy)
    fp32, int8 = (
        Detector.load(bundle, ONE_STEP.plain, precision=precision, batch=1, threads=1).fingerprint
        for precision in PRECISIONS
    )
    save_calibration(bundle, calibration_of([0.1, 0.2], 0.1, fingerprint=fp32))
    assert fastest_gated(bundle, ONE_STEP) == EngineOption("fp32", "onnxruntime-cpu", gated=False)

    def judged(speed: float, calibration: Calibration) -> EngineOption:
        scores = {"ind": np.array([0.1, 0.2])}
        runs = [Run(mark, scores, {"ind": np.zeros(2, np.int64)}, rate) for mark, rate in ((fp32, 1.0), (int8, speed))]
        record = judge(runs[0], runs[1], calibration, ParityLimits(flips=1))
        assert record.passed, record.problems
        add_record(bundle, record)
        return fastest_gated(bundle, ONE_STEP)

    assert judged(3.0, load_calibration(bundle)) == EngineOption("int8", "onnxruntime-cpu", gated=True)
    other = calibration_of([0.1, 0.2], 0.2, fingerprint=fp32)
    assert judged(3.0, other).precision == "fp32"


# --- tuning.json -------------------------------------------------------------------------------------------------


def test_a_later_tuning_keeps_the_hashes_of_earlier_ones(small_bundle_copy: Path) -> None:
    bundle = open_bundle(small_bundle_copy)
    assert load_tuned(bundle) == frozenset()
    add_tuned(bundle, ["b" * 64, "a" * 64])
    plan = MeasuredPlan(cost=1, auroc=0.9, low=0.8, high=1, front=True, chosen=True)
    keep_measured(bundle, TuningMeasurement(unit="milliseconds", limit=2, made=False, plans=(plan,)))
    add_tuned(bundle, ["c" * 64, "a" * 64])
    bundle = open_bundle(small_bundle_copy)
    assert load_tuned(bundle) == {"a" * 64, "b" * 64, "c" * 64}
    assert load_measured(bundle) == TuningMeasurement(unit="milliseconds", limit=2, made=False, plans=(plan,))
