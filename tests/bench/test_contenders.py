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
from diffood.bench.metered import MeteredDetector
from diffood.calibration.calibrate import Calibrated
from diffood.errors import UsageError
from diffood.runtime.bundle.bundle import Bundle, open_bundle
from diffood.runtime.detector import Detector
from diffood.runtime.images.pixels import from_pixels
from diffood.runtime.method.plan import REFERENCE, Plan
from diffood.zoo.models import embedded_models

CHEAP = Plan(start_times=(120, 240), stride=120, repeats=2, guidance=2.0)  # 3 steps, twice, doubled: 12 evaluations
UNGUIDED = CHEAP.changed({"guidance": 0.0})


def prepared(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    return from_pixels(pixels[:, None])


def test_evaluations_are_counted_in_the_engine(small_bundle: Bundle, clothes: npt.NDArray[np.uint8]) -> None:
    for plan, each in ((CHEAP, 12), (UNGUIDED, 6)):
        (ours,), _ = our_contenders(small_bundle, {"cheap": plan}, backend="onnxruntime-cpu", batch=4, threads=1)
        assert ours.name == "diffood, cheap plan, fp32 on onnxruntime-cpu"
        assert ours.single_rows == (1, 4)
        runner = ours.open(ours.rows)
        assert runner.run(prepared(clothes[:3])) == 3 * each
        meter = runner.meter
        assert meter is not None
        assert meter.busy == 3 * 6
        assert meter.rows == 4 * 5  # 6 long and 6 short ways in 4 lanes: 18 rows of work in 5 steps of 4
        assert meter.seconds > 0


def test_a_plain_loop_scores_as_the_detector_does(small_bundle: Bundle, clothes: npt.NDArray[np.uint8]) -> None:
    for plan in (CHEAP, UNGUIDED, CHEAP.changed({"schedule": "reference"})):
        contender = plain_contender(small_bundle, plan, batch=4, threads=1)
        runner = contender.open(contender.rows)
        x = prepared(clothes[:3])
        assert runner.run(x) == 3 * (12 if plan.guidance else 6)
        expected = Detector.load(small_bundle, plan, batch=4, threads=1).score_prepared(x).by_start
        np.testing.assert_allclose(runner.score(x), expected, atol=1e-4)  # type: ignore[attr-defined]


def test_contenders_pickle_for_a_process_of_their_own(small_bundle: Bundle, clothes: npt.NDArray[np.uint8]) -> None:
    ours, skipped = our_contenders(small_bundle, {"cheap": CHEAP}, batch=4, threads=1)
    assert [name for name, _ in skipped if "tensorrt " in f"{name} "] == ["diffood, fp32 on tensorrt"]
    for contender in (*ours, plain_contender(small_bundle, CHEAP, batch=4, threads=1)):
        assert pickle.loads(pickle.dumps(contender)).open(4).run(prepared(clothes[:1])) == 12


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
    assert ours.open(4).run(prepared(clothes[:2])) == 12


def test_the_plans_are_the_bundles_and_the_calibrations(small_bundle_copy: Path) -> None:
    bundle = open_bundle(small_bundle_copy)
    assert plans_of(bundle) == dict(bundle.manifest.plans)
    assert list(plans_of(bundle, ["reference"])) == ["reference"]
    assert plans_of(bundle)["reference"] == REFERENCE
    with pytest.raises(UsageError, match="fastest"):
        plans_of(bundle, ["fastest"])


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
