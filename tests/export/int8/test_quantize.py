"""INT8 graphs of the zoo's bundle: what is in them, how far they are from FP32, and what is refused."""

import itertools
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest

pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from onnx import numpy_helper, parser

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
from diffood.runtime.bundle.bundle import Bundle, Role, open_bundle, write_bundle
from diffood.runtime.detector import Detector
from diffood.runtime.images.pixels import from_pixels
from diffood.zoo.images import load_set

ROLES: tuple[Role, ...] = ("classify", "step_guided", "step_plain")
ROWS = 32
LEAST_INT8: dict[Role, float] = {"classify": 0.4, "step_guided": 0.9, "step_plain": 0.9}  # of the multiplications


def real_images(first: int, count: int) -> npt.NDArray[np.float32]:
    return from_pixels(load_set("fashion-validation").images[first : first + count, None])


@pytest.fixture(scope="module")
def quantised(quantised_zoo: tuple[Path, list[str]]) -> tuple[Bundle, list[str]]:
    """The zoo's bundle with INT8 graphs from the fewest images that do, and what was reported."""
    return open_bundle(quantised_zoo[0]), quantised_zoo[1]


@pytest.fixture(scope="module")
def fed(zoo_bundle: Bundle) -> dict[Role, States]:
    """What the loop feeds the graphs on five images that no graph was calibrated on; five leave lanes idle."""
    return record_states(zoo_bundle, real_images(500, 5))


@pytest.fixture(scope="module")
def classifier(zoo_bundle: Bundle, fed: dict[Role, States]) -> tuple[onnx.ModelProto, dict[str, float]]:
    """The FP32 classifier and its ranges."""
    model = onnx.load_from_string(zoo_bundle.read("classify.onnx"))
    return model, measure_clips(model, fed["classify"].split(ROWS))


def load_int8(bundle: Bundle, role: Role) -> onnx.ModelProto:
    return onnx.load_from_string(bundle.read(bundle.graph(role, "int8").file))


def relative_error(want: npt.NDArray[np.float32], got: npt.NDArray[np.float32]) -> float:
    return float(np.sqrt(np.square(want - got).mean() / np.square(want).mean()))


def test_states_are_those_of_the_loop(zoo_bundle: Bundle, fed: dict[Role, States]) -> None:
    plan, images = zoo_bundle.plan(), real_images(500, 5)
    plan = plan.changed({"stride": plan.start_times[0] // FEWEST_TIMES})
    table = zoo_bundle.tables(plan)[0]
    predicted = Detector.load(zoo_bundle, plan, threads=1).session.classify(images).logits.argmax(axis=1)
    for role, guidance in (("step_guided", plan.guidance), ("step_plain", 0.0)):
        states = fed[role]  # type: ignore[index]
        assert len(states) == len(table) * len(images) * plan.repeats  # and no row of an idle lane
        assert np.all(states.inputs["guidance"] == guidance)
        at_time = [np.flatnonzero(states.inputs["time"] == time) for time in table.times]
        for rows in at_time:
            assert sorted(states.inputs["label"][rows]) == sorted(np.repeat(predicted, plan.repeats))
        session = open_session(onnx.load_from_string(zoo_bundle.read(f"{role}.onnx")))
        for rows, following in itertools.pairwise(at_time):
            fit = {node.name: states.inputs[node.name][rows] for node in session.get_inputs()}
            (x_next,) = session.run(["x_next"], fit)
            assert np.abs(x_next - states.inputs["x"][following]).max() < 1e-4


def test_the_classifier_is_fed_images_and_what_they_were_denoised_to(fed: dict[Role, States]) -> None:
    states, images = fed["classify"], real_images(500, 5)
    assert np.array_equal(states.inputs["x"][states.groups == "images"], images)
    denoised = states.inputs["x"][states.groups == "denoised"]
    assert len(denoised) > len(images)
    assert np.abs(denoised).max() <= 1


def test_a_bundle_opens_with_its_int8_graphs_and_the_fp32_files_it_had(quantised: tuple[Bundle, list[str]]) -> None:
    bundle, lines = quantised
    assert bundle.precisions == ("fp32", "int8")
    assert {graph.role for graph in bundle.manifest.graphs if graph.precision == "int8"} == set(ROLES)
    for file in zoo.BUNDLE.iterdir():
        if file.name != "manifest.json":
            assert (bundle.path / file.name).read_bytes() == file.read_bytes()
    assert not [entry for entry in bundle.path.iterdir() if entry.name.startswith(".")]
    for role in ROLES:
        assert [line for line in lines if line.startswith(f"{role}.int8") and "products in int8" in line]


@pytest.mark.parametrize("role", ROLES)
def test_most_work_and_weights_are_int8(
    quantised: tuple[Bundle, list[str]], fed: dict[Role, States], role: Role
) -> None:
    entry, graph = quantised[0].graph(role, "int8"), load_int8(quantised[0], role).graph
    assert set(count_products(quantised[0].path / entry.file)) <= {"int8", "float32"}
    work = count_multiplications(onnx.load_from_string(quantised[0].read(f"{role}.onnx")), fed[role].take(np.arange(1)))
    rounded = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    done = [node.output[0].removesuffix("_exact") for node in graph.node if set(node.input[:2]) <= rounded]
    assert sum(work[name] for name in done if name in work) > sum(work.values()) * LEAST_INT8[role]
    assert entry.weights["int8"] > sum(entry.weights.values()) / 2
    assert entry.opset == quantised[0].graph(role).opset


@pytest.mark.parametrize("role", ROLES)
def test_int8_is_symmetric_and_no_bias_is_an_integer(quantised: tuple[Bundle, list[str]], role: Role) -> None:
    graph = load_int8(quantised[0], role).graph
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


@pytest.mark.parametrize("role", ROLES)
def test_only_products_and_what_a_convolution_gives_are_rounded(
    quantised: tuple[Bundle, list[str]], role: Role
) -> None:
    graph = load_int8(quantised[0], role).graph
    makers = {name: node for node in graph.node for name in node.output}
    rounded = {node.output[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
    assert not set(rounded) & {value.name for value in graph.output}
    for node in graph.node:
        for name in set(rounded) & set(node.input):
            if node.op_type not in QUANTISABLE:
                exact = makers[rounded[name].input[0]].input[0]
                assert makers[exact].op_type == "Conv", node.name
                assert set(makers[exact].input[:2]) <= set(rounded), node.name


@pytest.mark.parametrize("role", ROLES)
def test_onnxruntime_has_an_int8_kernel_for_every_int8_convolution(
    quantised: tuple[Bundle, list[str]], role: Role, tmp_path: Path
) -> None:
    model = load_int8(quantised[0], role)
    rounded = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    wanted = sum(node.op_type == "Conv" and set(node.input[:2]) <= rounded for node in model.graph.node)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 4  # it warns that such a file fits this machine only
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    kernels = onnx.load(tmp_path / "optimised.onnx").graph.node
    assert wanted > 0
    assert sum(node.op_type == "QLinearConv" for node in kernels) == wanted


@pytest.mark.parametrize("role", ROLES)
def test_a_row_does_not_depend_on_the_batch(
    quantised: tuple[Bundle, list[str]], fed: dict[Role, States], role: Role
) -> None:
    model = load_int8(quantised[0], role)
    session, states = open_session(model), fed[role].take(np.arange(7))
    whole = session.run(None, fit_inputs(model, states))
    for batch in (1, 3):
        for name, want, got in zip(
            [value.name for value in model.graph.output],
            whole,
            session.run(None, fit_inputs(model, states.take(np.arange(batch)))),
            strict=True,
        ):
            assert np.abs(want[:batch] - got).max() < 1e-3, name


@pytest.mark.parametrize("role", ROLES)
def test_error_on_other_images_is_near_the_budget_at_every_time_of_the_plan(
    quantised: tuple[Bundle, list[str]], fed: dict[Role, States], role: Role
) -> None:
    bundle = quantised[0]
    models = onnx.load_from_string(bundle.read(bundle.graph(role).file)), load_int8(bundle, role)
    want, got = (open_session(model).run(list(JUDGED[role]), fit_inputs(model, fed[role])) for model in models)
    for group in np.unique(fed[role].groups):
        rows = fed[role].groups == group
        errors = [relative_error(left[rows], right[rows]) for left, right in zip(want, got, strict=True)]
        assert 0 < max(errors) < 3 * BUDGETS[role], group


def test_a_second_run_replaces_the_graphs_by_the_same_bytes(
    quantised: tuple[Bundle, list[str]], tmp_path: Path
) -> None:
    path = Path(shutil.copytree(quantised[0].path, tmp_path / "bundle"))
    manifest = quantised[0].manifest
    (path / "step_plain.int8.onnx").write_bytes(b"an older one")
    plan = quantised[0].plan().changed({"guidance": 0.0})
    changed = {  # without the guided graph, whose search takes longest
        "graphs": tuple(graph for graph in manifest.graphs if graph.role != "step_guided"),
        "plans": manifest.plans | {manifest.default_plan: plan},
    }
    write_bundle(path, lambda files: manifest.model_copy(update={**changed, "files": files}))
    quantize_bundle(path, real_images(0, FEWEST_IMAGES), report=lambda _: None)
    assert open_bundle(path).precisions == ("fp32", "int8")
    assert (path / "step_plain.int8.onnx").read_bytes() == quantised[0].read("step_plain.int8.onnx")


def test_nothing_quantised_is_the_fp32_graph(
    classifier: tuple[onnx.ModelProto, dict[str, float]], fed: dict[Role, States]
) -> None:
    model, clips = classifier
    inputs = fit_inputs(model, fed["classify"])
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


@pytest.mark.parametrize(
    "lines",
    [
        "r = Reshape(c, whole) t = Transpose<perm=[0, 2, 1]>(r) y = Add(t, t)",  # patches of a transformer
        "r = Reshape(c, whole) p = Slice(r, none, two, one) q = Slice(r, one, two, one) y = Mul(p, q)",  # attention
        "r = Reshape(c, whole) y = Transpose<perm=[0, 2, 1]>(r)",
        "u = Unsqueeze(c, one) s = Squeeze(u, one) y = Relu(s)",
        "m = MaxPool<kernel_shape=[2, 2]>(c) y = Relu(m)",
    ],
    ids=["patches", "attention", "output", "squeezed", "pooled"],
)
def test_onnxruntime_loads_an_int8_convolution_whose_output_is_only_moved(lines: str, tmp_path: Path) -> None:
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
    classifier: tuple[onnx.ModelProto, dict[str, float]], fed: dict[Role, States]
) -> None:
    model, clips = classifier
    products = len(list_products(model))
    everything = search(model, clips, fed["classify"], JUDGED["classify"], 10.0, ROWS)
    assert everything.left == ()
    budget = max(everything.errors.values()) / 3
    tight = search(model, clips, fed["classify"], JUDGED["classify"], budget, ROWS)
    assert 0 < len(tight.left) < products
    assert max(tight.errors.values()) <= budget
    with pytest.raises(ExportError, match="Use fp16"):
        search(model, clips, fed["classify"], JUDGED["classify"], 0.0, ROWS)


def test_broken_scales_are_refused_by_the_proof(
    quantised: tuple[Bundle, list[str]], fed: dict[Role, States], tmp_path: Path
) -> None:
    import torch

    bundle, role = quantised[0], "step_guided"
    model = load_int8(bundle, "step_guided")
    scales = {node.input[1] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    for tensor in model.graph.initializer:
        if tensor.name in scales:
            tensor.CopyFrom(numpy_helper.from_array(100 * numpy_helper.to_array(tensor), tensor.name))
    onnx.save(model, tmp_path / "broken.onnx")
    sample = {name: torch.from_numpy(value) for name, value in fit_inputs(model, fed["step_guided"]).items()}
    expected, outputs = run_onnx(bundle.path / f"{role}.onnx", ("x_next", "epsilon")), ("x_next", "epsilon")
    whole = bundle.path / bundle.graph("step_guided", "int8").file
    assert prove_equal(expected, whole, outputs, iter([sample]), LIMITS["int8"]).rows == len(fed["step_guided"])
    with pytest.raises(ExportError, match="differs"):
        prove_equal(expected, tmp_path / "broken.onnx", outputs, iter([sample]), LIMITS["int8"])


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (real_images(0, FEWEST_IMAGES - 1), "too few"),
        (real_images(0, FEWEST_IMAGES)[:, 0], "this bundle takes float32"),
        (real_images(0, FEWEST_IMAGES).astype(np.float64), "float64"),
        (real_images(0, FEWEST_IMAGES) * 127, "must lie in"),
        (real_images(0, FEWEST_IMAGES) * np.float32(np.nan), "must lie in"),
    ],
)
def test_images_that_do_not_fit_are_refused(bundle_copy: Path, images: npt.NDArray[np.float32], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        quantize_bundle(bundle_copy, images, report=lambda _: None)


def test_a_failure_leaves_the_bundle_as_it_was(bundle_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {file.name: file.read_bytes() for file in bundle_copy.iterdir()}
    monkeypatch.setitem(quantize.BUDGETS, "classify", 0.0)
    with pytest.raises(ExportError, match="Use fp16"):
        quantize_bundle(bundle_copy, real_images(0, FEWEST_IMAGES), report=lambda _: None)
    assert {file.name: file.read_bytes() for file in bundle_copy.iterdir()} == before
