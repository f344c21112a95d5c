"""Golden values and the contract: what an engine must give, and one that computes one convolution wrongly."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from halved_graphs import reseal
from rounded_graphs import add_rounded_graphs

from diffood.calibration.parity.checks import check_contract, check_golden
from diffood.runtime.bundle.bundle import Bundle, Precision, open_bundle
from diffood.runtime.detector import Detector

onnx = pytest.importorskip("onnx")

CHANGED = {"start_times": (240,), "stride": 240, "repeats": 1}  # of a plan: no plan of the bundle


def load(path: Path, plan: str, precision: Precision = "fp32", **changes: object) -> Detector:
    bundle = open_bundle(path)
    return Detector.load(bundle, bundle.plan(plan).changed(changes), precision=precision, batch=4, threads=1)


def spoil(path: Path, name: str, which: int = 0) -> None:
    """Flip the sign of one kernel of one convolution of a graph; every hash stays true."""
    model = onnx.load(path / name)
    kernels = [tensor for tensor in model.graph.initializer if len(tensor.dims) == 4 and tensor.dims[2] == 3]
    weights = np.array(onnx.numpy_helper.to_array(kernels[which]))
    weights[0, 0] *= -1
    kernels[which].CopyFrom(onnx.numpy_helper.from_array(weights, kernels[which].name))
    onnx.save(model, path / name)
    reseal(path, lambda _: None)


def test_the_shipped_bundles_give_their_golden_values(small_bundle: Bundle, zoo_bundle: Bundle) -> None:
    for bundle, plan in ((small_bundle, "default"), (small_bundle, "reference"), (zoo_bundle, "fast")):
        check = check_golden(load(bundle.path, plan))
        assert check.outcome == "ok", check
        assert "of FP32 at export" in check.detail


def test_a_plan_with_other_witnesses_or_stages_has_the_same_golden_values(small_bundle: Bundle) -> None:
    check = check_golden(load(small_bundle.path, "default", witnesses=("reconstruction", "msp"), stages=(0,)))
    assert (check.outcome, "of FP32 at export," in check.detail) == ("ok", True), check


def test_a_plan_without_golden_values_is_compared_with_fp32_on_this_cpu(small_bundle_copy: Path) -> None:
    add_rounded_graphs(small_bundle_copy, "fp16")
    exact = check_golden(load(small_bundle_copy, "default", **CHANGED))
    assert (exact.outcome, "of FP32 at export, by a golden plan" in exact.detail) == ("ok", True), exact
    half = check_golden(load(small_bundle_copy, "default", "fp16", **CHANGED))
    assert (half.outcome, "of FP32 on this CPU, as the plan has no golden values" in half.detail) == ("ok", True), half


@pytest.mark.parametrize(("graph", "plan"), [("classify", "fast"), ("step_plain", "fast"), ("step_guided", "default")])
def test_an_engine_that_computes_one_convolution_wrongly_fails(small_bundle_copy: Path, graph: str, plan: str) -> None:
    add_rounded_graphs(small_bundle_copy, "fp16")
    spoil(small_bundle_copy, f"{graph}.onnx")
    for changes in ({}, CHANGED):
        check = check_golden(load(small_bundle_copy, plan, **changes))
        assert check.outcome == "failed", check
    half = check_golden(load(small_bundle_copy, plan, "fp16"))  # its own graphs are right
    assert half.outcome == "ok", half


def test_values_that_are_not_finite_fail_in_every_precision(small_bundle_copy: Path) -> None:
    add_rounded_graphs(small_bundle_copy, "fp16")
    model = onnx.load(small_bundle_copy / "step_plain.fp16.onnx")
    bias = next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 1 and tensor.data_type == 1)
    bias.CopyFrom(onnx.numpy_helper.from_array(np.full(list(bias.dims), np.inf, np.float32), bias.name))
    onnx.save(model, small_bundle_copy / "step_plain.fp16.onnx")
    reseal(small_bundle_copy, lambda _: None)
    check = check_golden(load(small_bundle_copy, "fast", "fp16"))
    assert (check.outcome, "within inf" in check.detail) == ("failed", True), check


def test_scores_repeat_to_the_bit_on_the_cpu(small_bundle: Bundle, zoo_bundle: Bundle) -> None:
    for bundle, threads in ((small_bundle, 1), (small_bundle, 3), (zoo_bundle, 2)):
        plan = bundle.plan("fast").changed({"witnesses": ("reconstruction",)})  # the most images in a call
        check = check_contract(Detector.load(bundle, plan, batch=8, threads=threads))
        assert (check.outcome, check.detail) == ("ok", "scores repeat in any order and run")


def test_a_bundle_without_golden_values_of_a_graph_says_so(small_bundle_copy: Path) -> None:
    change_golden(small_bundle_copy, lambda name: not name.startswith(("default", "plain", "reference")))
    assert check_golden(load(small_bundle_copy, "fast")).outcome == "ok"
    check = check_golden(load(small_bundle_copy, "default"))
    assert (check.outcome, check.detail) == ("skipped", "the bundle has no golden values of its graphs")


def change_golden(path: Path, keep: Callable[[str], bool]) -> None:
    """Leave these arrays of the golden values."""
    with np.load(path / "golden.npz") as arrays:
        kept = {name: arrays[name] for name in arrays.files if keep(name)}
    np.savez(path / "golden.npz", **kept)
    reseal(path, lambda _: None)
