"""INT8 graphs of a bundle: what is in them, how far they are from FP32, and what is refused."""

import itertools
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest

pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from onnx import numpy_helper, parser
from refusals import assert_refused

from diffood import zoo
from diffood.errors import ExportError, UsageError
from diffood.export.int8 import quantize
from diffood.export.int8.qdq import (
    QUANTISABLE,
    count_multiplications,
    fit_inputs,
    insert_pairs,
    list_products,
    measure_clips,
    open_session,
)
from diffood.export.int8.quantize import BUDGETS, FEWEST_IMAGES, JUDGED, quantize_bundle, search
from diffood.export.int8.states import FEWEST_TIMES, States, record_states
from diffood.export.onnx.precision import LIMITS, count_products
from diffood.export.onnx.proof import prove_equal, run_onnx
from diffood.runtime.assembly.recipe import make_recipe
from diffood.runtime.bundle.bundle import Bundle, Role, open_bundle
from diffood.runtime.bundle.detectors import read_detector
from diffood.runtime.bundle.writing import write_bundle
from diffood.runtime.detector import Detector
from diffood.runtime.images.pixels import from_pixels
from diffood.runtime.method.plan import CLASSIFIER
from diffood.runtime.method.schedule import Sampler
from diffood.zoo.images import load_set

ROWS = 32
LEAST_INT8: dict[Role, float] = {"classify": 0.4, "step_guided": 0.9, "step_plain": 0.9}  # of the multiplications
SMALL_BUDGETS: dict[Role, float] = {"classify": 0.05, "step_plain": 0.1}  # networks of few weights round worse


def real_images(first: int, count: int) -> npt.NDArray[np.uint8]:
    return load_set("fashion-validation").images[first : first + count, None]


@dataclass(frozen=True)
class Quantised:
    """A bundle with INT8 graphs next to its FP32 ones, and what was reported.

    fed: what a pass feeds the graphs on five images that no graph was calibrated on.
    """

    source: Path
    bundle: Bundle
    lines: list[str]
    budgets: dict[Role, float]
    fed: dict[Role, States]

    @property
    def roles(self) -> list[Role]:
        return [graph.role for graph in self.bundle.manifest.graphs if graph.precision == "int8"]


def without_guidance(path: Path) -> None:
    """Leave the guided graph, whose search takes longest, out of a bundle."""
    manifest = open_bundle(path).manifest
    plan = open_bundle(path).plan().changed({"guidance": 0.0})
    changed = {
        "graphs": tuple(graph for graph in manifest.graphs if graph.role != "step_guided"),
        "plans": manifest.plans | {manifest.default_plan: plan},
    }
    write_bundle(path, lambda files: manifest.model_copy(update={**changed, "files": files}))


def quantise(path: Path, budgets: dict[Role, float]) -> list[str]:
    """Quantise a bundle on the fewest images that do; returns what was reported."""
    lines: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        for role, budget in budgets.items():
            patch.setitem(quantize.BUDGETS, role, budget)
        quantize_bundle(path, real_images(0, FEWEST_IMAGES), report=lines.append)
    return lines


@pytest.fixture(scope="module")
def fed(small_bundle: Bundle) -> dict[Role, States]:
    """What the loop feeds the small bundle's graphs."""
    return record_states(small_bundle, real_images(500, 5))


@pytest.fixture(scope="module", params=["small", pytest.param("zoo", marks=pytest.mark.slow)])
def quantised(
    request: pytest.FixtureRequest, small_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory
) -> Quantised:
    """The small bundle without its guided graph, or the zoo's, from the fewest images that do; read-only."""
    if request.param == "zoo":
        path, lines = request.getfixturevalue("quantised_zoo")
        bundle = open_bundle(path)
        return Quantised(zoo.BUNDLE, bundle, lines, BUDGETS, record_states(bundle, real_images(500, 5)))
    path = Path(shutil.copytree(small_bundle.path, tmp_path_factory.mktemp("int8") / "bundle"))
    without_guidance(path)
    lines = quantise(path, SMALL_BUDGETS)
    bundle = open_bundle(path)
    return Quantised(small_bundle.path, bundle, lines, SMALL_BUDGETS, record_states(bundle, real_images(500, 5)))


@pytest.fixture(scope="module")
def step(small_bundle: Bundle, fed: dict[Role, States]) -> tuple[onnx.ModelProto, dict[str, float]]:
    """The small bundle's FP32 step graph and its ranges."""
    model = onnx.load_from_string(small_bundle.read("step_plain.onnx"))
    return model, measure_clips(model, fed["step_plain"].split(ROWS))


def load_int8(bundle: Bundle, role: Role) -> onnx.ModelProto:
    return onnx.load_from_string(bundle.read(bundle.graph(role, "int8").file))


def relative_error(want: npt.NDArray[np.float32], got: npt.NDArray[np.float32]) -> float:
    return float(np.sqrt(np.square(want - got).mean() / np.square(want).mean()))


def test_states_are_those_of_a_pass(small_bundle: Bundle, fed: dict[Role, States]) -> None:
    plan, images = small_bundle.plan(), real_images(500, 5)
    plan = plan.changed({"stride": plan.start_times[0] // FEWEST_TIMES})
    table = small_bundle.tables(plan)[0]
    predicted = Detector.load(small_bundle, plan.plain, threads=1).score_pixels(images).predicted
    for role, guidance in (("step_guided", plan.guidance), ("step_plain", 0.0)):
        states = fed[role]  # type: ignore[index]
        assert len(states) == len(table) * len(images) * plan.repeats
        assert np.all(states.inputs["guidance"] == guidance)
        at_time = [np.flatnonzero(states.inputs["time"] == time) for time in table.times]
        for rows in at_time:
            assert sorted(states.inputs["label"][rows]) == sorted(np.repeat(predicted, plan.repeats))
        session = open_session(onnx.load_from_string(small_bundle.read(f"{role}.onnx")))
        for rows, following in itertools.pairwise(at_time):
            fit = {node.name: states.inputs[node.name][rows] for node in session.get_inputs()}
            (x_next,) = session.run(["x_next"], fit)
            assert np.abs(x_next - states.inputs["x"][following]).max() < 1e-4


@pytest.mark.parametrize("sampler", ["ddim", "pndm2", "pndm4"])
def test_what_the_parts_come_to_is_what_the_detector_denoises_to(small_bundle: Bundle, sampler: Sampler) -> None:
    """Two start times, and registers of earlier predictions: the last rows of the classifier are the detector's own."""
    plan = small_bundle.plan().changed({"sampler": sampler, "start_times": (240, 360), "stride": 60})
    manifest = small_bundle.manifest
    plans = manifest.plans | {manifest.default_plan: plan}
    bundle = replace(small_bundle, manifest=manifest.model_copy(update={"plans": plans}))
    images = real_images(500, 3)
    found = [evidence.denoised for _, evidence in Detector.load(bundle, plan, threads=1).observe(enumerate(images))]
    states = record_states(bundle, images)["classify"]
    recorded = states.inputs["x"][states.groups == "denoised"]  # by start, repeat, image
    largest = recorded.reshape(len(plan.start_times), plan.repeats, *images.shape)[-1, 0]
    np.testing.assert_allclose(largest, np.stack(found), atol=1e-4)


def test_the_classifier_is_fed_images_and_what_they_were_denoised_to(fed: dict[Role, States]) -> None:
    states, images = fed["classify"], real_images(500, 5)
    assert np.array_equal(states.inputs["x"][states.groups == "images"], from_pixels(images))
    denoised = states.inputs["x"][states.groups == "denoised"]
    assert len(denoised) > len(images)
    assert np.abs(denoised).max() <= 1


def test_a_bundle_opens_with_its_int8_graphs_and_the_fp32_files_it_had(quantised: Quantised) -> None:
    bundle = quantised.bundle
    assert bundle.precisions == ("fp32", "int8")
    assert read_detector(bundle, "int8").entry.graphs["classify"] == bundle.sha256(bundle.graph("classify", "int8"))
    assert quantised.roles == [graph.role for graph in bundle.manifest.graphs if graph.precision == "fp32"]
    for file in quantised.source.iterdir():
        if file.name != "manifest.json":
            assert (bundle.path / file.name).read_bytes() == file.read_bytes()
    assert not [entry for entry in bundle.path.iterdir() if entry.name.startswith(".")]
    for role in quantised.roles:
        assert [line for line in quantised.lines if line.startswith(f"{role}.int8") and "products in int8" in line]


def test_most_work_and_weights_are_int8(quantised: Quantised) -> None:
    bundle = quantised.bundle
    for role in quantised.roles:
        entry, graph = bundle.graph(role, "int8"), load_int8(bundle, role).graph
        assert set(count_products(bundle.path / entry.file)) <= {"int8", "float32"}
        original = onnx.load_from_string(bundle.read(f"{role}.onnx"))
        work = count_multiplications(original, quantised.fed[role].take(np.arange(1)))
        rounded = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
        done = [node.output[0].removesuffix("_exact") for node in graph.node if set(node.input[:2]) <= rounded]
        assert sum(work[name] for name in done if name in work) > sum(work.values()) * LEAST_INT8[role], role
        assert entry.weights["int8"] > sum(entry.weights.values()) / 2, role
        assert entry.opset == bundle.graph(role).opset


def test_int8_is_symmetric_and_no_bias_is_an_integer(quantised: Quantised) -> None:
    for role in quantised.roles:
        graph = load_int8(quantised.bundle, role).graph
        constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        pairs = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
        assert pairs
        for node in pairs:
            value, scale, zero = node.input
            assert constants[zero].dtype == np.int8
            assert not constants[zero].any()
            assert constants[scale].dtype == np.float32
            assert np.all(constants[scale] > 0)
            if value in constants:  # a weight: one scale a channel, the channel's largest value is what int8 can show
                axis = next(attribute.i for attribute in node.attribute if attribute.name == "axis")
                assert constants[value].dtype == np.int8
                assert len(constants[scale]) == constants[value].shape[axis]
                assert np.abs(constants[value].astype(int)).max() == 127
        for node in graph.node:
            if node.op_type in QUANTISABLE and len(node.input) == 3:
                assert constants[node.input[2]].dtype == np.float32


def test_only_products_and_what_a_convolution_gives_are_rounded(quantised: Quantised) -> None:
    for role in quantised.roles:
        graph = load_int8(quantised.bundle, role).graph
        makers = {name: node for node in graph.node for name in node.output}
        rounded = {node.output[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
        assert not set(rounded) & {value.name for value in graph.output}
        for node in graph.node:
            for name in set(rounded) & set(node.input):
                if node.op_type not in QUANTISABLE:
                    exact = makers[rounded[name].input[0]].input[0]
                    assert makers[exact].op_type == "Conv", node.name
                    assert set(makers[exact].input[:2]) <= set(rounded), node.name


def test_onnxruntime_has_an_int8_kernel_for_every_int8_convolution(quantised: Quantised, tmp_path: Path) -> None:
    for role in quantised.roles:
        model = load_int8(quantised.bundle, role)
        rounded = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
        wanted = sum(node.op_type == "Conv" and set(node.input[:2]) <= rounded for node in model.graph.node)
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / f"{role}.onnx")
        options.log_severity_level = 4  # it warns that such a file fits this machine only
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        kernels = onnx.load(tmp_path / f"{role}.onnx").graph.node
        assert wanted > 0
        assert sum(node.op_type == "QLinearConv" for node in kernels) == wanted, role


def test_the_witness_inside_finds_the_same_maps_in_it(quantised: Quantised) -> None:
    fp32, int8 = (
        make_recipe(quantised.bundle, CLASSIFIER, precision).inner["inside"] for precision in ("fp32", "int8")
    )
    assert [(inner.channels, inner.size) for inner in int8] == [(inner.channels, inner.size) for inner in fp32] != []


def test_a_row_does_not_depend_on_the_batch(quantised: Quantised) -> None:
    for role in quantised.roles:
        model = load_int8(quantised.bundle, role)
        session, states = open_session(model), quantised.fed[role].take(np.arange(7))
        whole = session.run(None, fit_inputs(model, states))
        for batch in (1, 3):
            part = session.run(None, fit_inputs(model, states.take(np.arange(batch))))
            for value, want, got in zip(model.graph.output, whole, part, strict=True):
                assert np.abs(want[:batch] - got).max() < 1e-3, (role, value.name)


def test_error_on_other_images_is_near_the_budget_at_every_time_of_the_plan(quantised: Quantised) -> None:
    bundle = quantised.bundle
    for role in quantised.roles:
        fed = quantised.fed[role]
        models = onnx.load_from_string(bundle.read(bundle.graph(role).file)), load_int8(bundle, role)
        want, got = (open_session(model).run(list(JUDGED[role]), fit_inputs(model, fed)) for model in models)
        for group in np.unique(fed.groups):
            rows = fed.groups == group
            errors = [relative_error(left[rows], right[rows]) for left, right in zip(want, got, strict=True)]
            assert 0 < max(errors) < 3 * quantised.budgets[role], (role, group)


def test_a_second_run_replaces_the_graphs_by_the_same_bytes(quantised: Quantised, tmp_path: Path) -> None:
    path = Path(shutil.copytree(quantised.bundle.path, tmp_path / "bundle"))
    without_guidance(path)
    manifest = open_bundle(path).manifest
    (path / "step_plain.int8.onnx").write_bytes(b"an older one")
    write_bundle(path, lambda files: manifest.model_copy(update={"files": files}))
    quantise(path, quantised.budgets)
    assert open_bundle(path).precisions == ("fp32", "int8")
    assert (path / "step_plain.int8.onnx").read_bytes() == quantised.bundle.read("step_plain.int8.onnx")


def test_nothing_quantised_is_the_fp32_graph(
    step: tuple[onnx.ModelProto, dict[str, float]], fed: dict[Role, States]
) -> None:
    model, clips = step
    inputs = fit_inputs(model, fed["step_plain"])
    for want, got in zip(
        open_session(model).run(None, inputs),
        open_session(insert_pairs(model, clips, ())).run(None, inputs),
        strict=True,
    ):
        assert np.array_equal(want, got)


MOVED = """
<ir_version: 10, opset_import: ["" : 21]>
net (float[n,3,6,6] x) => (y)
<float[4,3,3,3] w, int64[3] whole = {0, 4, -1}, int64[1] none = {0}, int64[1] one = {1}, int64[1] two = {2}> {
    c = Conv(x, w)
    LINES
}
"""


MOVES = {
    "patches of a transformer": "r = Reshape(c, whole) t = Transpose<perm=[0, 2, 1]>(r) y = Add(t, t)",
    "attention": "r = Reshape(c, whole) p = Slice(r, none, two, one) q = Slice(r, one, two, one) y = Mul(p, q)",
    "output": "r = Reshape(c, whole) y = Transpose<perm=[0, 2, 1]>(r)",
    "squeezed": "u = Unsqueeze(c, one) s = Squeeze(u, one) y = Relu(s)",
    "pooled": "m = MaxPool<kernel_shape=[2, 2]>(c) y = Relu(m)",
}


def test_onnxruntime_loads_an_int8_convolution_whose_output_is_only_moved(
    tmp_path: Path, subtests: pytest.Subtests
) -> None:
    for name, lines in MOVES.items():
        with subtests.test(name):
            assert_loads_in_int8(lines, tmp_path)


def assert_loads_in_int8(lines: str, tmp_path: Path) -> None:
    """ONNX Runtime runs MOVED with these lines on integers, and gives the same as without its optimisations."""
    draw, limit = np.random.default_rng(0), 12.0
    model = parser.parse_model(MOVED.replace("LINES", lines))
    weight = draw.standard_normal((4, 3, 3, 3)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    (product,) = list_products(model)
    model = insert_pairs(model, {"x": 3.0, "c": limit}, {product.output[0]})
    x, found = draw.standard_normal((5, 3, 6, 6)).astype(np.float32), []
    for level in ("ORT_DISABLE_ALL", "ORT_ENABLE_ALL"):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
        options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
        found.append(session.run(["y"], {"x": x})[0])
    assert "QLinearConv" in {node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node}
    assert len(np.unique(found[0])) > 50
    off = np.abs(found[0] - found[1]) > 1e-5  # a product that lies between two values may be rounded to either
    assert off.mean() < 0.01


def test_a_tighter_budget_leaves_more_in_fp32_and_holds(
    step: tuple[onnx.ModelProto, dict[str, float]], fed: dict[Role, States]
) -> None:
    (model, clips), states, judged = step, fed["step_plain"], JUDGED["step_plain"]
    products = len(list_products(model))
    everything = search(model, clips, states, judged, 10.0, ROWS)
    assert everything.left == ()
    budget = max(everything.errors.values()) / 3
    tight = search(model, clips, states, judged, budget, ROWS)
    assert 0 < len(tight.left) < products
    assert max(tight.errors.values()) <= budget
    with pytest.raises(ExportError, match="Use fp16"):
        search(model, clips, states, judged, 0.0, ROWS)


def test_broken_scales_are_refused_by_the_proof(quantised: Quantised, tmp_path: Path) -> None:
    import torch

    bundle, fed = quantised.bundle, quantised.fed["step_plain"]
    model = load_int8(bundle, "step_plain")
    scales = {node.input[1] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    for tensor in model.graph.initializer:
        if tensor.name in scales:
            tensor.CopyFrom(numpy_helper.from_array(100 * numpy_helper.to_array(tensor), tensor.name))
    onnx.save(model, tmp_path / "broken.onnx")
    sample = {name: torch.from_numpy(value) for name, value in fit_inputs(model, fed).items()}
    outputs = ("x_next", "epsilon")
    expected = run_onnx(bundle.path / "step_plain.onnx", outputs)
    whole = bundle.path / bundle.graph("step_plain", "int8").file
    assert prove_equal(expected, whole, outputs, iter([sample]), LIMITS["int8"]).rows == len(fed)
    with pytest.raises(ExportError, match="differs"):
        prove_equal(expected, tmp_path / "broken.onnx", outputs, iter([sample]), LIMITS["int8"])


def test_images_that_do_not_fit_are_refused(small_bundle_copy: Path) -> None:
    images = real_images(0, FEWEST_IMAGES)
    cases = [
        (images[:-1], "too few"),
        (images[:, 0], "this bundle takes uint8"),
        (from_pixels(images), "float32"),
    ]
    assert_refused(UsageError, cases, lambda given: quantize_bundle(small_bundle_copy, given, report=print))


def test_a_failure_leaves_the_bundle_as_it_was(small_bundle_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {file.name: file.read_bytes() for file in small_bundle_copy.iterdir()}
    monkeypatch.setitem(quantize.BUDGETS, "classify", 0.0)
    with pytest.raises(ExportError, match="Use fp16"):
        quantize_bundle(small_bundle_copy, real_images(0, FEWEST_IMAGES), report=print)
    assert {file.name: file.read_bytes() for file in small_bundle_copy.iterdir()} == before
