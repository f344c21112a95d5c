"""Graphs written by protobuf alone: valid ONNX, arithmetic as written, loops, parts used more than once."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from diffood.runtime.bundle.bundle import Bundle
from diffood.runtime.onnx import messages
from diffood.runtime.onnx.builder import GraphBuilder, Value
from diffood.runtime.onnx.parts import Part
from diffood.zoo import BUNDLE

OPSET = {"": 21}


def run(model: bytes, **feeds: np.ndarray) -> list[np.ndarray]:
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return [np.asarray(value) for value in session.run(None, feeds)]


def one_input(width: int = 3) -> tuple[GraphBuilder, Value]:
    builder = GraphBuilder()
    return builder, builder.input("x", messages.FLOAT, ("batch", width))


def test_arithmetic_is_that_of_numpy() -> None:
    builder, x = one_input()
    x64 = np.array([[1.5, -2, 3], [0.25, 5, -6]], np.float32)
    other = builder.constant(np.array([2, 4, 8], np.float32))
    cases = {
        "sum": (x + other, x64 + np.array([2, 4, 8])),
        "less": (x - 1.0, x64 - 1),
        "times": (x * other, x64 * [2, 4, 8]),
        "over": (x / other, x64 / [2, 4, 8]),
        "minus": (-x, -x64),
        "product": (x @ builder.constant(np.eye(3, 2, dtype=np.float32)), x64[:, :2]),
        "turned": (x.reshape(-1, 1, 3).transpose(2, 1, 0), x64.T[:, None]),
        "mean": (x.reduce("ReduceMean", 1), x64.mean(axis=1)),
        "joined": (builder.concat([x, x]), np.concatenate([x64, x64])),
    }
    for name, (value, expected) in cases.items():
        builder.output(name, value, messages.FLOAT, ("n", *expected.shape[1:]))
    for (name, (_, expected)), found in zip(cases.items(), run(builder.serialise(OPSET), x=x64), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6, err_msg=name)


def test_equal_constants_are_kept_once_and_unused_ones_not_at_all() -> None:
    builder, x = one_input()
    builder.constant(np.arange(9, dtype=np.int64))
    builder.output("y", x * 2.0 + x * 2.0 + 3.0, messages.FLOAT, ("batch", 3))
    assert len(onnx.load_from_string(builder.serialise(OPSET)).graph.initializer) == 2


def test_a_loop_takes_values_from_outside_and_counts_from_zero() -> None:
    builder, x = one_input()
    table = builder.constant(np.array([1, 10, 100], np.float32))

    def step(body: GraphBuilder, number: Value, total: Value, product: Value) -> list[Value]:
        row = body.node("Gather", table, number, axis=0)
        return [total + x * row, product * row]

    total, product = builder.loop(3, [x * 0.0, x * 0.0 + 1.0], ("batch", 3), step)
    builder.output("total", total, messages.FLOAT, ("batch", 3))
    builder.output("product", product, messages.FLOAT, ("batch", 3))
    given = np.array([[1, 2, 3]], np.float32)
    found = run(builder.serialise(OPSET), x=given)
    np.testing.assert_array_equal(found[0], given * 111)
    np.testing.assert_array_equal(found[1], np.full_like(given, 1000))


def test_a_message_read_and_written_again_is_the_same_message(small_bundle: Bundle) -> None:
    for path in (*small_bundle.path.glob("*.onnx"), *BUNDLE.glob("*.onnx")):
        data = path.read_bytes()
        again = messages.Model.FromString(data).SerializeToString()
        assert onnx.load_from_string(again) == onnx.load_from_string(data), path


def test_a_part_used_twice_holds_its_weights_once(small_bundle: Bundle) -> None:
    data = (small_bundle.path / "classify.onnx").read_bytes()
    image = small_bundle.manifest.image
    builder = GraphBuilder()
    x = builder.input("x", messages.FLOAT, ("batch", image.channels, image.height, image.width))
    part = Part("classify", data)
    logits = part(builder, {"x": x})["logits"] + part(builder, {"x": x * 0.5})["logits"]
    builder.output("y", logits, messages.FLOAT, ("batch", len(small_bundle.manifest.class_names)))
    model = builder.serialise(part.domains)
    given = np.random.default_rng(0).uniform(-1, 1, (4, *onnx_shape(data))).astype(np.float32)
    alone = [run(data, x=value)[0] for value in (given, given / 2)]
    np.testing.assert_allclose(run(model, x=given)[0], alone[0] + alone[1], rtol=1e-5, atol=1e-5)
    held = len(onnx.load_from_string(data).graph.initializer)
    assert len(onnx.load_from_string(model).graph.initializer) <= held + 1


def onnx_shape(model: bytes) -> tuple[int, ...]:
    dims = onnx.load_from_string(model).graph.input[0].type.tensor_type.shape.dim
    return tuple(dim.dim_value for dim in dims[1:])


def test_tensors_inside_a_branch_of_a_part_are_renamed_too() -> None:
    """Classifiers that users bring may branch; names inside must not meet those of the other copy."""
    source = """
        <ir_version: 10, opset_import: ["": 21]>
        branching (float[N, 3] x) => (float[N, 3] y) {
            zero = Constant <value_float = 0.0> ()
            total = ReduceSum <keepdims = 0> (x)
            positive = Greater (total, zero)
            y = If (positive) <
                then_branch = then () => (float[N, 3] kept) { twice = Add (x, x)  kept = Identity (twice) },
                else_branch = other () => (float[N, 3] turned) { turned = Neg (x) }
            >
        }
    """
    model = onnx.parser.parse_model(source).SerializeToString()
    builder, x = one_input()
    part = Part("branching", model)
    builder.output("y", part(builder, {"x": part(builder, {"x": x})["y"]})["y"], messages.FLOAT, ("batch", 3))
    for given, expected in (([[1, 2, 3]], [[4, 8, 12]]), ([[-1, -2, -3]], [[2, 4, 6]])):
        (found,) = run(builder.serialise(part.domains), x=np.array(given, np.float32))
        np.testing.assert_array_equal(found, np.array(expected, np.float32))


def test_a_part_that_no_export_writes_is_refused(subtests: pytest.Subtests) -> None:
    for case, (data, reason) in {
        "no message": (b"\xff\xff\xff", "it is not an ONNX graph"),
        "functions": (
            onnx.helper.make_model(
                onnx.helper.make_graph([], "empty", [], []),
                functions=[onnx.helper.make_function("d", "f", [], [], [], [onnx.helper.make_opsetid("", 21)])],
            ).SerializeToString(),
            "it has functions",
        ),
    }.items():
        with subtests.test(case=case), pytest.raises(ValueError, match=reason):
            Part("step", data)


def test_weights_in_another_file_stay_there(tmp_path: Path) -> None:
    weight = onnx.numpy_helper.from_array(np.array([1, 2, 3], np.float32), "w")
    node = onnx.helper.make_node("Mul", ["x", "w"], ["y"])
    value = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 3]) for name in "xy"]
    graph = onnx.helper.make_graph([node], "g", value[:1], value[1:], [weight])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    part = Part("step", (tmp_path / "m.onnx").read_bytes())
    builder, x = one_input()

    def twice(body: GraphBuilder, _number: Value, state: Value) -> list[Value]:
        return [part(body, {"x": state})["y"]]

    (end,) = builder.loop(2, [x], ("batch", 3), twice)
    builder.output("y", end, messages.FLOAT, ("batch", 3))
    built = onnx.load_from_string(builder.serialise(part.domains))
    (outside,) = [tensor for tensor in built.graph.initializer if tensor.external_data]
    assert outside.name == part.name_of("w") == "step/w"
    (tmp_path / "built.onnx").write_bytes(built.SerializeToString())
    session = onnxruntime.InferenceSession(tmp_path / "built.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": np.ones((1, 3), np.float32)})
    np.testing.assert_array_equal(found, [[1, 4, 9]])
