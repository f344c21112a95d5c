"""What is timed counts its evaluations where they happen; the plain loop gives the detector's own scores."""

import pickle
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from diffood.bench.contenders import (
    ON_CPU,
    UNCALIBRATED,
    our_contenders,
    plain_contender,
    plans_of,
    torch_contenders,
)
from diffood.bench.metered import MeteredDetector, MeteredSession
from diffood.calibration.calibrate import Calibrated
from diffood.errors import UsageError
from diffood.runtime.bundle.bundle import Bundle, open_bundle
from diffood.runtime.bundle.fusion import Fusion, FusionRecord, StageRule
from diffood.runtime.detector import Detector
from diffood.runtime.method.fusion import FittedWitness
from diffood.runtime.method.plan import REFERENCE, Plan
from diffood.runtime.method.witnesses.logits import energy
from diffood.zoo.models import embedded_models

CHEAP = Plan(start_times=(120, 240), stride=120, repeats=2, guidance=2.0)  # 3 steps, twice, doubled: 12 evaluations
UNGUIDED = CHEAP.changed({"guidance": 0.0})


def test_evaluations_are_those_of_the_stages_that_run(small_bundle: Bundle, clothes: npt.NDArray[np.uint8]) -> None:
    for plan, each in ((CHEAP, 12), (UNGUIDED, 6)):
        (ours,), _ = our_contenders(small_bundle, {"cheap": plan}, backend="onnxruntime-cpu", batch=4, threads=1)
        assert ours.name == "diffood, cheap plan, fp32 on onnxruntime-cpu"
        runner = ours.open(ours.batch)
        assert runner.run(clothes[:3, None]) == 3 * each
        assert runner.meter is not None
        assert runner.meter.seconds > 0


def test_a_plain_loop_scores_as_the_detector_does(small_bundle: Bundle, clothes: npt.NDArray[np.uint8]) -> None:
    for plan in (CHEAP, UNGUIDED, CHEAP.changed({"schedule": "reference"})):
        contender = plain_contender(small_bundle, plan, batch=4, threads=1)
        runner, pixels = contender.open(contender.batch), clothes[:3, None]
        assert runner.run(pixels) == 3 * (12 if plan.guidance else 6)
        expected = Detector.load(small_bundle, plan, batch=4, threads=1).score_pixels(pixels).by_start
        np.testing.assert_allclose(runner.score(pixels), expected, atol=1e-4)  # type: ignore[attr-defined]


def test_contenders_pickle_for_a_process_of_their_own(small_bundle: Bundle, clothes: npt.NDArray[np.uint8]) -> None:
    ours, skipped = our_contenders(small_bundle, {"cheap": CHEAP}, batch=4, threads=1)
    assert [name for name, _ in skipped if "tensorrt " in f"{name} "] == ["diffood, fp32 on tensorrt"]
    for contender in (*ours, plain_contender(small_bundle, CHEAP, batch=4, threads=1)):
        assert pickle.loads(pickle.dumps(contender)).open(4).run(clothes[:1, None]) == 12


def test_what_has_no_gpu_where_others_have_one_says_so(zoo_bundle: Bundle) -> None:
    for gpu in (False, True):
        plain = plain_contender(zoo_bundle, CHEAP, batch=4, threads=1, gpu=gpu)
        in_torch, _ = torch_contenders(
            zoo_bundle, embedded_models(zoo_bundle.manifest), CHEAP, compiled=False, batch=4, threads=1, gpu=gpu
        )
        for contender in (plain, *in_torch):
            assert (ON_CPU in contender.note) == (gpu and not contender.gpu), contender.name
            assert not contender.gpu or gpu
        halves = [contender.name for contender in in_torch if "fp16" in contender.name]
        assert bool(halves) == (bool(in_torch) and in_torch[0].gpu)


def test_a_fused_plan_is_observed_and_says_so_until_it_is_calibrated(
    small_bundle: Bundle, clothes: npt.NDArray[np.uint8]
) -> None:
    fused = UNGUIDED.changed({"witnesses": ("jump", "energy")})
    (ours,), _ = our_contenders(small_bundle, {"fused": fused}, backend="onnxruntime-cpu", batch=4, threads=1)
    assert ours.note == UNCALIBRATED
    assert ours.open(4).run(clothes[:2, None]) == 12


def test_the_plans_are_the_bundles_and_the_calibrations(small_bundle_copy: Path) -> None:
    bundle = open_bundle(small_bundle_copy)
    assert plans_of(bundle) == dict(bundle.manifest.plans)
    assert list(plans_of(bundle, ["reference"])) == ["reference"]
    assert plans_of(bundle)["reference"] == REFERENCE
    with pytest.raises(UsageError, match="fastest"):
        plans_of(bundle, ["fastest"])


def test_images_that_end_early_cost_the_stages_that_they_went_through(
    small_bundle: Bundle, clothes: npt.NDArray[np.uint8]
) -> None:
    """Half of the images end after the classifier, since their energy is below the median."""
    plan = CHEAP.changed({"witnesses": ("jump", "energy"), "combine": "sum", "stages": (0,)})
    pixels = clothes[:20, None]
    loaded = Detector.load(small_bundle, plan, batch=4, threads=1)
    median = float(np.median([energy(found.logits) for _, found in loaded.observe(enumerate(pixels))]))
    jump, alone = (FittedWitness(name=name, center=0, scale=1, weight=0.5) for name in plan.witnesses)
    rule = StageRule(repeats=0, witnesses=(alone.model_copy(update={"weight": 1.0}),), low=median, high=None)
    record = FusionRecord(combine="sum", witnesses=(jump, alone), n=20, stages=(rule,))
    session = MeteredSession(loaded.session, small_bundle, plan)
    detector = Detector(small_bundle, plan, session, Fusion(record))
    assert MeteredDetector(detector, session.meter).run(pixels) == 10 * 12
    assert detector.score_pixels(pixels).evaluations.sum() == 10 * 12


def test_a_plan_in_stages_is_given_turns_whose_images_fill_the_batches_of_later_stages(small_bundle: Bundle) -> None:
    plans = {"whole": UNGUIDED, "staged": UNGUIDED.changed({"witnesses": ("jump", "energy"), "stages": (1,)})}
    ours, _ = our_contenders(small_bundle, plans, backend="onnxruntime-cpu", batch=4, threads=1)
    detector = Detector.load(small_bundle, UNGUIDED, batch=4, threads=1)
    assert [contender.chunk for contender in ours] == [4, detector.turn]


def test_a_calibrated_plan_is_fused_as_it_is_served(calibrated: Calibrated) -> None:
    bundle, plan = calibrated.detector.bundle, calibrated.detector.plan
    plans = plans_of(bundle)
    assert list(plans) == [*bundle.manifest.plans, "calibrated"]
    assert plans["calibrated"] == plan
    (ours,), _ = our_contenders(bundle, {"calibrated": plan}, backend="onnxruntime-cpu", batch=4, threads=1)
    assert ours.note == ""
    runner = ours.open(4)
    assert isinstance(runner, MeteredDetector)
    assert runner.detector.fusion is not None
