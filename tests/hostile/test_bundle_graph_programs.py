"""Attack: a resealed graph that is a program: loops, functions, foreign operators, constants that ask for terabytes."""

import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attacks import undone

from diffood.errors import BundleError
from diffood.runtime.bundle.bundle import Bundle, open_bundle
from diffood.runtime.bundle.external_data import MAX_FIELDS, find_external_data
from diffood.runtime.bundle.graphs import read_model
from diffood.runtime.bundle.operators import MOST_NODES, find_forbidden
from diffood.runtime.detector import Detector
from diffood.runtime.onnx import messages
from diffood.runtime.onnx.builder import GraphBuilder, Value, make_tensor

Reseal = Callable[[str, bytes], None]
Change = Callable[[Any], None]


def adding(kind: str, *inputs: np.ndarray | str, domain: str = "", **ints: int) -> Change:
    """Let a model have another node; arrays become constants of it."""

    def change(model: Any) -> None:
        names = []
        for number, value in enumerate(inputs):
            names.append(value if isinstance(value, str) else f"given{number}")
            if not isinstance(value, str):
                model.graph.initializer.append(make_tensor(names[-1], value))
        attributes = [messages.Attribute(name=name, type=messages.INT_ATTRIBUTE, i=i) for name, i in ints.items()]
        node = messages.Node(op_type=kind, domain=domain, input=names, output=["added"], attribute=attributes)
        model.graph.node.append(node)

    return change


def as_constant_node(kind: str, shape: list[int]) -> Change:
    """A node whose shape is a Constant that comes after it."""

    def change(model: Any) -> None:
        adding(kind, "x", "late")(model)
        value = messages.Attribute(name="value_ints", type=messages.INTS_ATTRIBUTE, ints=shape)
        model.graph.node.append(messages.Node(op_type="Constant", output=["late"], attribute=[value]))

    return change


def endless_loop(model: Any) -> None:
    builder = GraphBuilder()
    start = builder.constant(np.zeros((1, 1), np.float32))
    (end,) = builder.loop(2**62, [start], (1, 1), lambda body, number, value: [value + 1.0])
    builder.output("turns", end, messages.FLOAT, (1, 1))
    model.graph.node.extend(builder.graph.node)
    model.graph.initializer.extend(builder.graph.initializer)


def with_function(model: Any) -> None:
    model.functions.add(key="mine")


LONG = np.array([2**31], np.int64)
TERABYTES = np.array([2**20, 2**20, 2**20], np.int64)
ATTACKS: dict[str, tuple[Change, str]] = {
    "a loop of 2^62": (endless_loop, "has the operator 'Loop', which the graphs of a bundle may not use"),
    "a branch": (adding("If", np.array(True)), "has the operator 'If'"),
    "a graph in an attribute": (
        lambda model: model.graph.node[0].attribute.add(name="b", g=messages.Graph()),
        "has a graph inside a",
    ),
    "a function": (with_function, "has functions of its own"),
    "an operator of a vendor": (adding("MatMulNBits", "x", domain="com.microsoft"), "of the domain 'com.microsoft'"),
    "an operator with an escape": (adding("\x1b[2J", "x"), r"the operator '\x1b[2J'"),
    "random numbers": (adding("RandomNormalLike", "x"), "has the operator 'RandomNormalLike'"),
    "ConstantOfShape": (adding("ConstantOfShape", LONG), "has a ConstantOfShape of shape [2147483648]"),
    "Expand": (adding("Expand", "x", TERABYTES), "has a Expand of shape"),
    "Expand in 32 bits": (adding("Expand", "x", np.array([2**30], np.int32)), "has a Expand of shape"),
    "Tile": (adding("Tile", "x", TERABYTES), "has a Tile of shape"),
    "Range": (adding("Range", np.array(0), np.array(2**40), np.array(1)), "has a Range of shape [1099511627776]"),
    "Pad": (adding("Pad", "x", np.array([0, 0, -(2**40), 0, 0, 2**40])), "has a Pad of shape"),
    "Resize": (adding("Resize", "x", "", "", np.array([1, 1, 2**20, 2**20])), "has a Resize of shape"),
    "OneHot": (adding("OneHot", "x", np.array([2**40]), np.zeros(2, np.float32)), "has a OneHot of shape"),
    "a Constant after its use": (as_constant_node("Expand", [2**40]), "has a Expand of shape [1099511627776]"),
    "an attribute": (adding("DepthToSpace", "x", blocksize=2**30), "has 1073741824 where at most 65536 is allowed"),
}


def rewritten(victim: Path, change: Change) -> bytes:
    model = messages.Model.FromString((victim / "classify.onnx").read_bytes())
    change(model)
    return bytes(model.SerializeToString())


def test_a_graph_that_is_a_program_is_refused_before_an_engine_has_it(
    victim: Path, reseal: Reseal, subtests: pytest.Subtests
) -> None:
    for attack, (change, said) in ATTACKS.items():
        with subtests.test(attack=attack), undone(victim):
            reseal("classify.onnx", rewritten(victim, change))
            bundle = open_bundle(victim)
            with pytest.raises(BundleError, match="export the bundle again") as caught:
                Detector.load(bundle, bundle.plan("plain"), batch=2, threads=1)
            assert said in str(caught.value) and str(caught.value).isprintable()


def test_more_nodes_or_fields_than_any_model_has_are_refused() -> None:
    node = messages.Node(op_type="Identity", input=["x"], output=["y"])
    model = messages.Model(graph=messages.Graph(node=[node] * (MOST_NODES + 1)))
    assert "more than 50000 nodes" in find_forbidden(model.SerializeToString())
    with pytest.raises(ValueError, match="more than 1000000 fields"):
        find_external_data(b"\x08\x01" * (MAX_FIELDS + 1))


def field(number: int, data: bytes) -> bytes:
    """A field of a protobuf message, with a message of less than 2 MiB in it."""
    size = len(data)
    return bytes([number << 3 | 2, size & 127 | 128, size >> 7 & 127 | 128, size >> 14]) + data


def test_lists_of_numbers_and_of_dimensions_are_not_read_to_their_end() -> None:
    numbers = field(5, field(8, bytes(2**20)))  # an attribute with integers
    model = field(7, field(1, field(4, b"Relu") + numbers))
    tracemalloc.start()
    try:
        assert "an attribute of more than 512 numbers, of a Relu" in find_forbidden(model)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
    shape = field(2, field(1, field(2, field(1, b"") * 250_000)))  # the type of an output
    with pytest.raises(ValueError, match="more than 1000000 fields"):
        find_external_data(field(7, field(12, shape)) * 4)


def test_names_of_megabytes_are_refused(subtests: pytest.Subtests) -> None:
    name = bytes(2**20)
    weight, nodes = field(5, field(8, name)), [field(1, field(number, name)) for number in (1, 2, 3)]
    for part in (weight, *nodes):
        with subtests.test(part=part[:8]), pytest.raises(ValueError, match="a name of 1048576 bytes"):
            find_forbidden(field(7, part))


def test_what_exports_write_is_allowed(zoo_bundle: Bundle, small_bundle: Bundle) -> None:
    for bundle in (zoo_bundle, small_bundle):  # all others pass here when a test opens them, quantised ones too
        for entry in bundle.manifest.graphs:
            model, _ = read_model(bundle, entry)
            assert not find_forbidden(model)


def test_ends_of_slices_and_free_sizes_are_allowed() -> None:
    builder = GraphBuilder()
    x = builder.input("x", messages.FLOAT, ("n", 8))
    ends = [builder.integers([value]) for value in (0, 2**63 - 1, 1)]
    y: Value = builder.node("Slice", x, *ends).reshape(-1, 8)
    builder.output("y", y, messages.FLOAT, ("n", 8))
    assert not find_forbidden(builder.serialise({"": 21}))


def test_names_that_are_no_text_or_act_on_a_terminal_are_refused_on_one_line(
    victim: Path, reseal: Reseal, subtests: pytest.Subtests
) -> None:
    """An engine quotes them in its errors."""
    original = (victim / "classify.onnx").read_bytes()
    model = messages.Model.FromString(original)
    names = {"output": "logits", "weight": model.graph.initializer[0].name, "size": "batch"}
    names |= {"input of a node": model.graph.node[1].input[0]}
    for what, name in names.items():
        for letter, said in ((b"\xff", "it has names that are not UTF-8"), (b"\x1b", ".*")):
            with subtests.test(what=what, letter=letter), undone(victim):
                reseal("classify.onnx", original.replace(name.encode(), letter + name.encode()[1:], 1))
                bundle = open_bundle(victim)
                try:
                    Detector.load(bundle, bundle.plan("plain"), batch=2, threads=1)
                except BundleError as error:
                    assert str(error).isprintable() and re.search(said, str(error))
                else:
                    assert (what, letter) == ("size", b"\x1b"), "accepted"
